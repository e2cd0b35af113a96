"""The rows of agents: created, drafted, published, rolled back, deleted; and the one that is served."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.agents.spec import AgentPatch, AgentSpec, check
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Database, dump_json
from app.errors import ConfigurationError, Conflict, Duplicate, NotFound, UnknownReference
from app.identity import Principal
from app.knowledge import memories
from app.models import Agent, AgentVersion, new_id
from app.patterns import PATTERN_TOOLS
from app.settings import Settings
from app.tools import registry
from app.tools.registry import INSTALLED

DEFAULT_AGENT = "assistant"
DEFAULT_AGENT_ID = UUID("00000000-0000-7000-8000-000000000004")
DEFAULT_INSTRUCTIONS = "You are a helpful assistant. Use your tools where they help, and be brief and exact."

# Agents that extensions bring: made in the first workspace where they were never before.
OFFERED: dict[str, AgentSpec] = {}
OFFERS = UUID("0c2a3e64-8a5b-5d0f-9c1e-3f6b7a2d4e58")

SEED = """
with agent as (
    insert into agents (id, workspace_id, name, published_version, latest_version) values ($1, $2, $3, 1, 1)
    on conflict do nothing returning id
)
insert into agent_versions (agent_id, version, workspace_id, spec, sha256, principal_id, published_at)
select id, 1, $2, $4, $5, $6, clock_timestamp() from agent
"""


def offer(spec: AgentSpec, settings: Settings) -> None:
    """Let the next `seed` make an agent of an extension; it may name built-in tools and those of extensions.

    Raises:
        InvalidRequest: naming the field.
        ConfigurationError: when there is another of that name.
    """
    if spec.name == DEFAULT_AGENT or OFFERED.get(spec.name, spec) is not spec:
        raise ConfigurationError(f"there is an agent called {spec.name} already")
    check(spec, settings, INSTALLED)
    OFFERED[spec.name] = spec


async def seed(database: Database) -> None:
    """Make the default agent, and those of extensions, where they are missing; any number may call it at once."""
    spec = AgentSpec(
        name=DEFAULT_AGENT,
        instructions=DEFAULT_INSTRUCTIONS,
        description="Answers questions and works on tasks with the built-in tools.",
        tools=[name for name, tool in INSTALLED.items() if tool.kind == "builtin" and name not in PATTERN_TOOLS],
    )
    await _seed(database, DEFAULT_AGENT_ID, spec)
    for offered in OFFERED.values():
        await _seed(database, uuid5(OFFERS, offered.name), offered)


async def _seed(database: Database, agent_id: UUID, spec: AgentSpec) -> None:
    content = spec.model_dump(mode="json")
    await database.execute(SEED, agent_id, DEFAULT_WORKSPACE, spec.name, content, sha256(spec), SYSTEM_PRINCIPAL)


def sha256(spec: AgentSpec) -> str:
    """Names a version's content."""
    return hashlib.sha256(dump_json(spec.model_dump(mode="json")).encode()).hexdigest()


# --- reading --------------------------------------------------------------------------------------


def read(version: AgentVersion) -> AgentSpec:
    """The spec of a stored version."""
    return AgentSpec.model_validate(version.spec)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def get(session: AsyncSession, workspace_id: UUID, ref: str, *, lock: bool = False) -> Agent:
    """The agent of that id or name, unless it is archived.

    Raises:
        NotFound: when there is none.
    """
    query = select(Agent).where(
        Agent.workspace_id == workspace_id,
        Agent.deleted_at.is_(None),
        or_(Agent.id == _uuid(ref), Agent.name == ref),
    )
    agent = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if agent is None:
        raise NotFound(f"there is no agent {ref!r}")
    return agent


async def check_known(session: AsyncSession, workspace_id: UUID, name: str, *, field: str) -> None:
    """Refuse the name of an agent that there never was; one that is archived is known.

    Raises:
        UnknownReference: naming the field.
    """
    query = select(Agent.id).where(Agent.workspace_id == workspace_id, Agent.name == name).limit(1)
    if await session.scalar(query) is None:
        raise UnknownReference(f"there is no agent {name!r}", field=field)


async def page(
    session: AsyncSession, workspace_id: UUID, *, after: UUID | None, limit: int, archived: bool = False
) -> Sequence[tuple[Agent, AgentVersion]]:
    """Agents with their published versions, newest first, from after one on; or those that are archived."""
    query = (
        select(Agent, AgentVersion)
        .join(AgentVersion, (AgentVersion.agent_id == Agent.id) & (AgentVersion.version == Agent.published_version))
        .where(Agent.workspace_id == workspace_id, Agent.deleted_at.is_not(None) == archived)
        .order_by(Agent.id.desc())
        .limit(limit)
    )
    rows = await session.execute(query.where(Agent.id < after) if after else query)
    return [(agent, version) for agent, version in rows]


async def version_of(session: AsyncSession, agent: Agent, version: int, *, field: str = "version") -> AgentVersion:
    """One version of an agent.

    Raises:
        UnknownReference: when it has none of that number.
    """
    found = await session.get(AgentVersion, (agent.id, version))
    if found is None:
        raise UnknownReference(f"the agent {agent.name} has no version {version}", field=field)
    return found


async def versions(
    session: AsyncSession, agent: Agent, *, before: int | None = None, limit: int = 100
) -> Sequence[AgentVersion]:
    """The versions of an agent, newest first."""
    query = select(AgentVersion).where(AgentVersion.agent_id == agent.id).order_by(AgentVersion.version.desc())
    if before:
        query = query.where(AgentVersion.version < before)
    return (await session.scalars(query.limit(limit))).all()


# --- writing --------------------------------------------------------------------------------------


async def checked(session: AsyncSession, settings: Settings, workspace_id: UUID, spec: AgentSpec) -> AgentSpec:
    """The spec as it is saved in this workspace.

    Raises:
        InvalidRequest: naming the field.
    """
    # Large schemas take a while to check: not on the event loop.
    return await asyncio.to_thread(check, spec, settings, await registry.names(session, workspace_id))


async def create(
    session: AsyncSession,
    settings: Settings,
    principal: Principal,
    spec: AgentSpec,
    *,
    agent_id: UUID | None = None,
) -> Agent:
    """Save a new agent; its version 1 is published.

    Raises:
        InvalidRequest: naming the field.
        Duplicate: when the name is taken.
    """
    spec = await checked(session, settings, principal.workspace_id, spec)
    agent = Agent(
        id=agent_id or new_id(),
        workspace_id=principal.workspace_id,
        name=spec.name,
        published_version=1,
        latest_version=1,
    )
    session.add(agent)
    await _flush_name(session, spec.name)
    version = _version(agent, 1, spec, principal)
    version.published_at = _clock()
    session.add(version)
    await session.flush()
    await session.refresh(agent)
    return agent


async def patch(
    session: AsyncSession, settings: Settings, principal: Principal, ref: str, changes: AgentPatch
) -> AgentVersion:
    """Save a draft: the latest version with these fields replaced. Changing nothing makes no version.

    Raises:
        NotFound: when there is no such agent.
        InvalidRequest: naming the field.
    """
    agent = await get(session, principal.workspace_id, ref, lock=True)
    latest = await version_of(session, agent, agent.latest_version)
    values = changes.model_dump(mode="json", exclude_unset=True)
    if values.get("name", "") is None:
        del values["name"]
    spec = AgentSpec.model_validate(latest.spec | values)
    spec = await checked(session, settings, principal.workspace_id, spec)
    if sha256(spec) == latest.sha256:
        return latest
    return await draft(session, agent, spec, principal)


async def draft(session: AsyncSession, agent: Agent, spec: AgentSpec, principal: Principal) -> AgentVersion:
    """Save a checked spec as the newest version of a locked agent."""
    agent.latest_version += 1
    version = _version(agent, agent.latest_version, spec, principal)
    session.add(version)
    await session.flush()
    await session.refresh(version)
    return version


def _version(agent: Agent, number: int, spec: AgentSpec, principal: Principal) -> AgentVersion:
    return AgentVersion(
        agent_id=agent.id,
        version=number,
        workspace_id=agent.workspace_id,
        spec=spec.model_dump(mode="json"),
        sha256=sha256(spec),
        principal_id=principal.id,
    )


async def publish(
    session: AsyncSession, settings: Settings, workspace_id: UUID, ref: str, version: int | None = None
) -> AgentVersion:
    """Serve a version, the latest when none is named, from the next run on.

    Raises:
        NotFound: when there is no such agent.
        UnknownReference: when it has no such version.
        InvalidRequest: when the version names what no longer exists.
    """
    agent = await get(session, workspace_id, ref, lock=True)
    chosen = await version_of(session, agent, version or agent.latest_version)
    await checked(session, settings, workspace_id, read(chosen))
    await serve(session, agent, chosen)
    return chosen


async def serve(session: AsyncSession, agent: Agent, version: AgentVersion) -> None:
    """Publish a version of a locked agent: it is served from the next run on."""
    version.published_at = _clock()
    await _serve(session, agent, version)
    await session.refresh(version)


def _clock() -> Any:
    """The time of the change itself: a transaction that waited for the agent began before the one it waited for."""
    return func.clock_timestamp()


async def _serve(session: AsyncSession, agent: Agent, version: AgentVersion) -> None:
    agent.published_version = version.version
    agent.name = str(version.spec["name"])
    agent.updated_at = func.now()
    await _flush_name(session, agent.name)
    await session.refresh(agent)


async def rollback(
    session: AsyncSession, settings: Settings, workspace_id: UUID, ref: str, version: int | None = None
) -> AgentVersion:
    """Serve a version again that was served once, the one published before the served one when none is named.

    It does not count as publishing: done again, it goes one further back.

    Raises:
        NotFound: when there is no such agent.
        Conflict: when nothing was published before, or the named version never was.
        UnknownReference: when it has no such version.
        InvalidRequest: when the version names what no longer exists.
    """
    agent = await get(session, workspace_id, ref, lock=True)
    chosen = await (version_of(session, agent, version) if version else _served_before(session, agent))
    if chosen.published_at is None:
        raise Conflict(f"version {chosen.version} of {agent.name} was never published: there is nothing to go back to")
    await checked(session, settings, workspace_id, read(chosen))
    await _serve(session, agent, chosen)
    return chosen


async def _served_before(session: AsyncSession, agent: Agent) -> AgentVersion:
    served = await version_of(session, agent, agent.published_version)
    earlier = (
        select(AgentVersion)
        .where(AgentVersion.agent_id == agent.id, AgentVersion.published_at < served.published_at)
        .order_by(AgentVersion.published_at.desc())
        .limit(1)
    )
    found = await session.scalar(earlier)
    if found is None:
        raise Conflict(f"no version of {agent.name} was published before version {served.version}, which is served")
    return found


async def delete(session: AsyncSession, workspace_id: UUID, ref: str) -> Agent:
    """Archive an agent: it is out of service and forgets what it remembered; its conversations stay readable.

    Raises:
        NotFound: when there is no such agent.
        Conflict: when it is the default agent.
    """
    agent = await get(session, workspace_id, ref, lock=True)
    if agent.id == DEFAULT_AGENT_ID:
        raise Conflict("the default agent can't be deleted; change it instead")
    agent.deleted_at = func.now()
    await memories.forget_agent(session, workspace_id, agent.id)
    await session.flush()
    return agent


async def unarchive(session: AsyncSession, workspace_id: UUID, ref: str) -> Agent:
    """Put an archived agent into service again, with the version it served; one in service stays as it is.

    Args:
        session: Where it is saved.
        workspace_id: Whose agent it is.
        ref: Its id, or its name: of several archived ones, the one archived last.

    Raises:
        NotFound: when there is no such agent.
        Duplicate: when another has its name by now.
    """
    query = (
        select(Agent)
        .where(Agent.workspace_id == workspace_id, or_(Agent.id == _uuid(ref), Agent.name == ref))
        .order_by(Agent.deleted_at.desc().nulls_last())
        .limit(1)
        .with_for_update(key_share=True)
    )
    agent = await session.scalar(query)
    if agent is None:
        raise NotFound(f"there is no agent {ref!r}")
    agent.deleted_at = None
    agent.updated_at = func.now()
    await _flush_name(session, agent.name)
    await session.refresh(agent)
    return agent


async def _flush_name(session: AsyncSession, name: str) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        raise Duplicate(f"an agent called {name!r} exists already", field="name") from error
