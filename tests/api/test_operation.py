"""/audit, /workers and /settings."""

from uuid import UUID

import httpx
import pytest

from app import identity
from app.db import Database
from app.settings import Settings
from tests.api.conftest import ADMIN_KEY, bearer

WORKER = """
insert into workers (id, kind, host, pid, slots, running, seen_at)
values ($1, 'worker', 'here', 7, 16, 2, now() - make_interval(secs => $2))
"""


async def test_settings_are_shown_without_their_secrets(client: httpx.AsyncClient, settings: Settings) -> None:
    answer = await client.get("/settings")
    shown = {each["name"]: each for each in answer.json()["items"]}
    assert set(shown) == {name.upper() for name in Settings.model_fields}
    assert shown["PARLEY_LEASE_SECONDS"]["value"] == 10.0
    assert shown["PARLEY_SECRET"]["secret"]
    for secret in (settings.parley_secret, settings.parley_encryption_keys, settings.database_url):
        assert secret
        assert secret.get_secret_value() not in answer.text
    assert all(each["description"] for each in shown.values())


async def test_workers_are_alive_while_they_are_seen(client: httpx.AsyncClient, database: Database) -> None:
    for name, seconds in (("a", 1.0), ("b", 60.0), ("c", 2.0)):
        await database.execute(WORKER, name, seconds)
    first = (await client.get("/workers?limit=2")).json()
    rest = (await client.get("/workers", params={"cursor": first["next_cursor"]})).json()
    found = {each["id"]: each["alive"] for each in first["items"] + rest["items"] if each["kind"] == "worker"}
    assert found == {"a": True, "b": False, "c": True}


async def test_the_audit_log_tells_who_did_what(client: httpx.AsyncClient) -> None:
    made = (await client.post("/agents", json={"name": "x"}, headers={"X-Request-ID": "r-1"})).json()
    await client.patch("/agents/x", json={"description": "d"})
    await client.post("/agents/x/publish")
    entries = (await client.get("/audit", params={"subject_id": made["id"]})).json()["items"]
    assert [entry["action"] for entry in entries] == ["agent.publish", "agent.patch", "agent.create"]
    assert (entries[-1]["request_id"], entries[-1]["detail"]) == ("r-1", {"name": "x"})
    only = (await client.get("/audit?action=agent.patch&limit=1")).json()
    assert [entry["detail"]["version"] for entry in only["items"]] == [2]


OTHER = UUID("00000000-0000-7000-8000-0000000000ff")


@pytest.mark.parametrize("path", ["/settings", "/workers"])
async def test_what_is_the_servers_is_not_for_other_workspaces(
    guarded: httpx.AsyncClient, database: Database, path: str
) -> None:
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    async with database.transaction(OTHER) as session:
        made = await identity.create_key(session, OTHER, "theirs", ["admin"])
    theirs = made.text
    refused = await guarded.get(path, headers=bearer(theirs))
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
    assert (await guarded.get("/audit", headers=bearer(theirs))).status_code == 200
    assert (await guarded.get(path, headers=bearer(ADMIN_KEY))).status_code == 200
