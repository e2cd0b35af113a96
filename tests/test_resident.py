import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.executor import Engine
from app.models import new_id
from app.settings import Settings
from app.tools import sources
from tests.engine import World, engine, in_turn, scripted, world
from tests.executor.test_turns import text
from workers.resident import Resident

__all__ = ["engine", "world"]


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"parley_sweep_seconds": 0.1, "parley_concurrency": 4, "redis_url": None})


async def submit(world: World, **run: Any) -> Any:
    return await world.say(await world.conversation(agent="quick"), run=run)


@pytest.fixture
async def _quick(world: World) -> None:
    await world.agent("quick", model=scripted("quick", in_turn(text("ok"))))


@pytest.mark.usefixtures("_quick")
async def test_more_runs_than_slots_all_complete_without_redis(world: World, engine: Engine) -> None:
    accepted = [await submit(world) for _ in range(15)]
    resident = Resident(engine)
    resident.start()
    for each in accepted:
        assert (await world.ended(each.run_id))["state"] == "completed"
    await resident.stop()
    await world.check()
    assert resident.defects == 0


@pytest.mark.usefixtures("_quick")
async def test_stopping_while_it_claims_leaves_no_run_behind(world: World, settings: Settings) -> None:
    """A claim that commits while the worker stops is executed or given back, never left to its lease."""
    for n in range(12):
        for _ in range(3):
            await submit(world)
        async with Engine.open(settings, kind="worker") as opened:
            resident = Resident(opened)
            resident.start()
            await asyncio.sleep(n * 0.0007)
            await resident.stop()
        rows = await world.database.fetch("select state, crash_count from runs where state = 'running'")
        assert rows == []
    await world.check()


@pytest.mark.usefixtures("_quick")
async def test_the_sweep_ends_what_is_overdue_and_mends_what_is_stranded(world: World, engine: Engine) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    late = await submit(world, run_at=later, deadline_at=datetime.now(UTC) - timedelta(seconds=1))
    slow = await submit(world, run_at=later, queue_timeout_seconds=0.01)
    stranded = await submit(world)
    await world.database.execute("update runs set ready = false where id = $1", stranded.run_id)
    await world.database.execute("update heads set updated_at = now() - interval '1 minute'")
    resident = Resident(engine)
    resident.start()
    assert (await world.ended(late.run_id))["error"]["code"] == "deadline_exceeded"
    assert (await world.ended(slow.run_id))["error"]["code"] == "queue_timeout"
    assert (await world.ended(stranded.run_id))["state"] == "completed"
    assert resident.defects == 1
    await resident.stop()
    await world.check()


@pytest.mark.usefixtures("_quick")
async def test_a_run_that_takes_its_workers_down_is_poison(world: World, engine: Engine) -> None:
    accepted = await submit(world)
    await world.claim(owner="dead")
    await world.database.execute("update runs set crash_count = 2")
    await world.lapse(accepted.run_id)
    await world.database.execute("select pg_sleep(0)")
    resident = Resident(engine)
    resident.start()
    row = await world.ended(accepted.run_id, 30)
    assert (row["state"], row["error"]["code"]) == ("failed", "poison")
    await resident.stop()
    await world.check()


async def test_a_server_that_hangs_delays_those_of_its_own_workspace_alone(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, read = new_id(), new_id(), asyncio.Event()
    for workspace in (ours, theirs):
        await world.database.execute("insert into workspaces (id, name) values ($1, $2)", workspace, str(workspace))
    for number, workspace in enumerate([*[ours] * 20, theirs]):
        await world.database.execute(
            "insert into tool_sources (id, workspace_id, name, kind, spec, skipped, due_at)"
            " values ($1, $2, $3, 'mcp', '{}', '[]', now() - make_interval(hours => 100 - $4))",
            new_id(),
            workspace,
            f"server-{number}",
            number,
        )
    begun: list[Any] = []

    async def hang(database: Any, sessions: Any, due: Any) -> None:
        begun.append(due["workspace_id"])
        if due["workspace_id"] == ours:
            await asyncio.Event().wait()
        read.set()

    monkeypatch.setattr(sources, "read_again", hang)
    resident = Resident(engine)
    resident.start()
    try:
        await asyncio.wait_for(read.wait(), 3)
        assert sorted(map(str, begun)) == sorted(map(str, [ours, theirs]))
    finally:
        await resident.stop()
