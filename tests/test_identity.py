"""Who acts: keys, scopes, seeds."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app import audit, identity
from app.db import DEFAULT_WORKSPACE, Database
from app.errors import InvalidRequest, NotFound, Unauthenticated
from app.identity import Doorkeeper, LastUse, NewKey, Principal
from app.settings import Settings


async def make_key(database: Database, scopes: list[str], expires_at: datetime | None = None) -> NewKey:
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        return await identity.create_key(session, DEFAULT_WORKSPACE, "ci", scopes, expires_at)


async def test_a_key_opens_its_workspace_with_its_scopes(database: Database, settings: Settings) -> None:
    key = await make_key(database, ["tasks:write", "agents:read"])
    who = await Doorkeeper(database, settings).authenticate(key.text)
    assert (who.workspace_id, who.name, who.kind, who.key_id) == (DEFAULT_WORKSPACE, "ci", "key", key.row.id)
    assert who.scopes == {"tasks:write", "agents:read"}


async def test_only_the_hash_is_kept(database: Database) -> None:
    key = await make_key(database, ["admin"])
    secret = key.text.rpartition(key.row.id.hex + "_")[2]
    assert len(secret) == 43
    stored = await database.fetchrow("select * from api_keys")
    assert stored
    assert secret not in str(dict(stored))


async def test_a_wrong_key_is_refused(database: Database, settings: Settings) -> None:
    key = (await make_key(database, ["admin"])).text
    wrong = [None, "", "x", key[:-1], key[:-1] + ("A" if key[-1] != "A" else "B"), key.replace("parley_", "parley-")]
    unknown = f"parley_{UUID(int=5).hex}_{'a' * 43}"
    for text in [*wrong, unknown, "ключ", "\ud800"]:
        with pytest.raises(Unauthenticated):
            await Doorkeeper(database, settings).authenticate(text)


async def test_a_revoked_or_expired_key_is_refused_at_once(database: Database, settings: Settings) -> None:
    expired = await make_key(database, ["admin"], datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Unauthenticated, match="expired"):
        await Doorkeeper(database, settings).authenticate(expired.text)
    key = await make_key(database, ["admin"])
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await identity.revoke_key(session, DEFAULT_WORKSPACE, key.row.id)
        await identity.revoke_key(session, DEFAULT_WORKSPACE, key.row.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        await Doorkeeper(database, settings).authenticate(key.text)
    with pytest.raises(NotFound):
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            await identity.revoke_key(session, DEFAULT_WORKSPACE, UUID(int=9))


async def test_the_configured_key_is_an_admin(database: Database, settings: Settings) -> None:
    configured = settings.model_copy(
        update={"parley_admin_key": Settings.of(parley_admin_key="s3cret").parley_admin_key}
    )
    who = await Doorkeeper(database, configured).authenticate("s3cret")
    assert (who.name, who.may("keys:write")) == ("admin", True)
    with pytest.raises(Unauthenticated):
        await Doorkeeper(database, configured).authenticate("s3cre")


@pytest.mark.parametrize(
    ("scopes", "scope", "may"),
    [
        (["admin"], "tasks:write", True),
        (["admin"], "admin", True),
        (["tasks:write"], "tasks:write", True),
        (["tasks:write"], "tasks:read", True),
        (["tasks:read"], "tasks:write", False),
        (["tasks:*"], "tasks:write", True),
        (["tasks:*"], "agents:read", False),
        (["*:read"], "agents:read", True),
        (["*:write"], "agents:read", True),
        (["*:write"], "admin", False),
        (["tasks:*"], "admin", False),
        ([], "agents:read", False),
    ],
)
def test_what_scopes_cover(scopes: list[str], scope: str, may: bool) -> None:
    who = Principal(UUID(int=1), DEFAULT_WORKSPACE, "x", frozenset(scopes), "key")
    assert who.may(scope) is may


@pytest.mark.parametrize("scope", ["root", "tasks:delete", "tasks", "*", "*:*", ""])
def test_an_unknown_scope_is_named(scope: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        identity.check_scopes(["admin", scope])
    assert refused.value.field == "scopes.1"


async def test_the_last_use_is_written_in_batches(database: Database, settings: Settings) -> None:
    key = await make_key(database, ["admin"])
    uses = LastUse(database)
    uses.note(await Doorkeeper(database, settings).authenticate(key.text))
    assert await database.fetchval("select last_used_at from api_keys") is None
    await uses.flush()
    assert await database.fetchval("select last_used_at from api_keys") is not None


async def test_seeding_at_once_and_again_changes_nothing(database: Database) -> None:
    await asyncio.gather(*(identity.seed(database) for _ in range(4)))
    assert await database.fetchval("select count(*) from principals") == 2
    assert await database.fetchval("select name from workspaces") == "default"


async def test_both_doors_write_the_audit_log(database: Database) -> None:
    values: dict[str, Any] = {"detail": {"name": "x"}, "request_id": "r1"}
    async with database.engine_tx() as connection:
        entry = audit.Entry(DEFAULT_WORKSPACE, identity.LOCAL.id, "task.create", "task", "1", **values)
        await audit.record_engine(connection, entry)
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        audit.record(session, audit.Entry(DEFAULT_WORKSPACE, identity.LOCAL.id, "agent.create", "agent", "2", **values))
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        found = await audit.entries(session, DEFAULT_WORKSPACE, after=None, limit=10)
        assert [(entry.action, entry.detail) for entry in found] == [
            ("agent.create", {"name": "x"}),
            ("task.create", {"name": "x"}),
        ]
        assert len(await audit.entries(session, DEFAULT_WORKSPACE, after=None, limit=10, action="task.create")) == 1
