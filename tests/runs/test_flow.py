"""Flow control in the claim: turns between workspaces, concurrency keys, holds."""

import asyncio
from uuid import UUID

import httpx
import pytest

from app.db import DEFAULT_WORKSPACE
from app.identity import create_key
from app.models import new_id
from app.runs import hold, lift
from app.runs.claim import CLAIM_KEYED, TRY_KEY
from app.settings import Settings
from tests.api.conftest import bearer, serve
from tests.engine import World


async def other_workspace(world: World) -> UUID:
    """A second workspace with the default agent."""
    workspace = new_id()
    await world.database.execute("insert into workspaces (id, name) values ($1, 'other')", workspace)
    await world.database.execute(
        """with a as (insert into agents (id, workspace_id, name, published_version, latest_version)
           values ($2, $1, 'assistant', 1, 1) returning id)
           insert into agent_versions (agent_id, version, workspace_id, spec, sha256)
           select a.id, 1, $1, v.spec, 'x' from a, agent_versions v limit 1""",
        workspace,
        new_id(),
    )
    return workspace


async def move(world: World, run_id: UUID, conversation_id: UUID, workspace: UUID) -> None:
    """Put a queued run into another workspace, past the API."""
    agent = await world.database.fetchval("select id from agents where workspace_id = $1", workspace)
    async with world.database.engine_tx() as connection:
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(
            "update conversations set workspace_id = $2, agent_id = $3 where id = $1", conversation_id, workspace, agent
        )
        for table in ("heads", "runs", "inputs", "events"):
            await connection.execute(
                f"update {table} set workspace_id = $2 where conversation_id = $1", conversation_id, workspace
            )


async def test_a_busy_workspace_does_not_starve_another(world: World) -> None:
    other = await other_workspace(world)
    for _ in range(10):
        await world.queued(run={"priority": 5})
    late = await world.queued()
    await move(world, late.run_id, late.conversation_id, other)
    first = await world.claim(limit=2)
    assert late.run_id in {each.run_id for each in first}
    for _ in range(3):
        (claimed,) = await world.claim(limit=1)
        assert claimed.workspace_id == DEFAULT_WORKSPACE


async def test_with_one_slot_at_a_time_the_idle_workspace_comes_first(world: World) -> None:
    other = await other_workspace(world)
    for _ in range(5):
        await world.queued()
    assert len(await world.claim(limit=3)) == 3
    late = await world.queued()
    await move(world, late.run_id, late.conversation_id, other)
    (claimed,) = await world.claim(limit=1)
    assert claimed.run_id == late.run_id


async def keyed(world: World, key: str, limit: int, count: int) -> None:
    for _ in range(count):
        accepted = await world.queued()
        await world.database.execute(
            "update runs set concurrency_key = $2, concurrency_limit = $3 where id = $1", accepted.run_id, key, limit
        )


async def test_a_concurrency_key_never_runs_more_than_its_limit(world: World) -> None:
    await keyed(world, "customer-7", 2, 6)
    await keyed(world, "customer-8", 1, 2)
    batches = await asyncio.gather(*(world.claim(limit=10) for _ in range(6)))
    claimed = [each for batch in batches for each in batch]
    assert len(claimed) == len({each.run_id for each in claimed}) == 3
    rows = await world.database.fetch(
        "select concurrency_key, count(*) from runs where state = 'running' group by 1 order by 1"
    )
    assert [tuple(row.values()) for row in rows] == [("customer-7", 2), ("customer-8", 1)]


async def test_a_key_is_counted_by_one_claim_at_a_time(world: World) -> None:
    await keyed(world, "k", 1, 2)
    async with world.database.engine_tx() as other:
        assert await other.fetchval(TRY_KEY, str(DEFAULT_WORKSPACE), "k")
        assert len(await other.fetch(CLAIM_KEYED, "default", 10, "other", 30.0, DEFAULT_WORKSPACE, "k")) == 1
        assert await world.claim() == []
    assert await world.claim() == []


async def test_full_keys_do_not_starve_one_with_room(world: World) -> None:
    for n in range(50):
        for _ in range(2):
            await world.queued(run={"concurrency_key": f"full {n}", "concurrency_limit": 1, "priority": 9})
    assert len(await world.claim()) == 50
    await world.queued(run={"concurrency_key": "free", "concurrency_limit": 1})
    assert len(await world.claim()) == 1


async def test_a_batch_counts_its_own_picks_and_the_bounds_of_the_worker(world: World) -> None:
    await keyed(world, "k", 5, 5)
    assert len(await world.claim(limit=3)) == 3


@pytest.mark.parametrize("scope", ["all", "workspace", "agent"])
async def test_a_hold_keeps_its_runs_queued_and_says_why(world: World, client: httpx.AsyncClient, scope: str) -> None:
    ref = None
    if scope == "agent":
        ref = await world.database.fetchval("select id from agents where name = 'assistant'")
    accepted = await world.queued()
    async with world.database.engine_tx() as connection:
        await hold(connection, DEFAULT_WORKSPACE, scope, ref, "pause", reason="new key", principal_id=None)
    assert await world.claim() == []
    said = (await client.get(f"/runs/{accepted.run_id}")).json()
    assert (said["state"], said["reason"]) == ("queued", "paused: new key")
    async with world.database.engine_tx() as connection:
        await lift(connection, DEFAULT_WORKSPACE, scope, ref)
    assert [each.run_id for each in await world.claim()] == [accepted.run_id]


async def test_paused_messages_are_accepted_and_queue(client: httpx.AsyncClient) -> None:
    held = await client.post("/pause", json={"scope": "all", "reason": "maintenance"})
    assert [item["mode"] for item in held.json()["items"]] == ["pause"]
    answer = await client.post("/runs", json={"message": "Hello"}, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    run = (await client.get(f"/runs/{answer.json()['run_id']}")).json()
    assert run["reason"] == "paused by system: maintenance"
    assert (await client.post("/resume", json={"scope": "all"})).json()["items"] == []
    assert (await client.get(f"/runs/{run['id']}")).json()["reason"] != run["reason"]


async def test_a_tenant_can_not_hold_the_others(world: World, settings: Settings) -> None:
    other = await other_workspace(world)
    async with world.database.transaction(other) as session:
        made = await create_key(session, other, "their key", ["admin"])
    async with serve(settings.model_copy(update={"parley_auth": "on"}), **bearer(made.text)) as client:
        for path in ("/pause", "/drain", "/resume"):
            refused = await client.post(path, json={"scope": "all"})
            assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
        assert (await client.post("/pause", json={"scope": "workspace"})).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "planet"}, "scope"),
        ({"scope": "agent"}, "ref"),
        ({"scope": "agent", "ref": "nobody"}, "ref"),
        ({"scope": "task", "ref": "x"}, "ref"),
        ({"scope": "all", "ref": "x"}, "ref"),
    ],
)
async def test_a_bad_hold_is_refused(client: httpx.AsyncClient, body: dict[str, str], field: str) -> None:
    refused = await client.post("/pause", json=body)
    assert refused.status_code == 422
    assert refused.json().get("field", field) == field
