"""The net below every query filter: one workspace never sees another's rows."""

from uuid import UUID

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError

from app import agents, identity
from app.agents import AgentSpec
from app.db import DEFAULT_WORKSPACE, TENANT_ROLE, Database
from app.errors import NotFound
from app.identity import Principal
from app.models import Agent, AgentVersion, ApiKey, AuditEntry, Base, Workspace, new_id
from app.settings import Settings

OTHER = UUID("00000000-0000-7000-8000-0000000000ff")

# What the tenant role may not do beside reading.
READ_ONLY = {"breakers", "canaries", "workers", "workspaces"}
APPEND_ONLY = {"audit"}

GRANTS = """
select c.relname as name, c.relrowsecurity as secured,
    (select count(*) from pg_policy p where p.polrelid = c.oid) as policies,
    array(select privilege from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as privilege
          where has_table_privilege($1, c.oid, privilege)) as granted
from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname <> 'alembic_version'
"""


@pytest.fixture
async def other(database: Database, settings: Settings) -> Principal:
    """Somebody of another workspace, who has an agent."""
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    who = Principal(new_id(), OTHER, "other", frozenset({"admin"}), "user")
    async with database.transaction(OTHER) as session:
        await agents.create(session, settings, who, AgentSpec(name="theirs"))
        await identity.create_key(session, OTHER, "their key", ["admin"])
    return who


async def test_every_table_has_a_policy_and_its_grants(database: Database) -> None:
    assert database.has_net
    rows = {row["name"]: row for row in await database.fetch(GRANTS, TENANT_ROLE)}
    assert set(rows) == set(Base.metadata.tables) | {"embeddings"}
    for name, row in rows.items():
        expected = {"SELECT"} if name in READ_ONLY else {"SELECT", "INSERT", "UPDATE", "DELETE"}
        expected -= {"UPDATE", "DELETE"} if name in APPEND_ONLY else set()
        assert (row["secured"], row["policies"], set(row["granted"])) == (True, 1, expected), name


async def test_a_session_sees_its_own_workspace_without_any_filter(database: Database, other: Principal) -> None:
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        assert (await session.scalars(select(Agent.name))).all() == ["assistant"]
        assert (await session.scalars(select(ApiKey.name))).all() == []
        assert (await session.scalars(select(Workspace.name))).all() == ["default"]
    async with database.transaction(OTHER) as session:
        assert (await session.scalars(select(Agent.name))).all() == ["theirs"]
        assert (await session.scalars(select(AgentVersion.version))).all() == [1]
        assert (await session.scalars(select(Workspace.name))).all() == ["other"]


async def test_no_row_can_be_written_into_another_workspace(database: Database, other: Principal) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            session.add(Agent(id=new_id(), workspace_id=OTHER, name="spy", published_version=1, latest_version=1))
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        changed = await session.execute(update(Agent).where(Agent.name == "theirs").values(name="mine"))
        assert changed.rowcount == 0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DBAPIError):
        async with database.transaction(OTHER) as session:
            session.add(
                AgentVersion(agent_id=agents.rows.DEFAULT_AGENT_ID, version=9, workspace_id=OTHER, spec={}, sha256="")
            )


async def test_the_audit_log_can_only_grow(database: Database) -> None:
    for statement in ("update audit set action = 'x'", "delete from audit"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with database.transaction(DEFAULT_WORKSPACE) as session:
                await session.execute(text(statement))


async def test_a_role_without_a_workspace_sees_nothing(database: Database) -> None:
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await session.execute(text("select set_config('app.workspace', '', true)"))
        for table in Base.metadata.sorted_tables:
            if table.name != "workers":
                assert (await session.execute(select(table).limit(1))).first() is None


async def test_the_setting_ends_with_the_transaction(database: Database) -> None:
    async with database.transaction(OTHER):
        pass
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        assert await session.scalar(text("select current_setting('app.workspace')")) == str(DEFAULT_WORKSPACE)
        assert await session.scalar(text("select current_user")) == TENANT_ROLE
    assert await database.fetchval("select current_user") != TENANT_ROLE


async def test_names_and_ids_of_another_workspace_are_unknown(database: Database, other: Principal) -> None:
    async with database.transaction(OTHER) as session:
        theirs = (await agents.get(session, OTHER, "theirs")).id
    for ref in ("theirs", theirs):
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            with pytest.raises(NotFound):
                await agents.get(session, DEFAULT_WORKSPACE, str(ref))
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        assert (await session.scalars(select(AuditEntry.id))).all() == []


async def test_a_key_of_another_workspace_opens_only_that(database: Database, settings: Settings) -> None:
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    async with database.transaction(OTHER) as session:
        key = await identity.create_key(session, OTHER, "k", ["admin"])
    who = await identity.Doorkeeper(database, settings).authenticate(key.text)
    assert who.workspace_id == OTHER
