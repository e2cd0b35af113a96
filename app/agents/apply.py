"""Agents that are kept as files: laid upon what is stored, and compared with it."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.agents.diff import Change, changes
from app.agents.rows import checked, create, draft, get, read, serve, version_of
from app.agents.spec import AgentSpec
from app.errors import NotFound
from app.identity import Principal
from app.models import Agent, AgentVersion
from app.settings import Settings


class Applied(StrEnum):
    """What applying a spec does to its agent."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Application:
    """A spec laid upon the agent of its name.

    Attributes:
        applied: What becomes of the agent.
        changes: What differs from what was served before.
        version: The version that holds the spec; None when nothing was stored.
    """

    applied: Applied
    changes: list[Change]
    version: AgentVersion | None = None


async def apply(
    session: AsyncSession,
    settings: Settings,
    principal: Principal,
    spec: AgentSpec,
    *,
    publishes: bool = True,
    dry_run: bool = False,
) -> Application:
    """Make an agent what a spec says; one that is that already stays as it is, without a new version.

    Args:
        session: Where it is saved.
        settings: For the checks.
        principal: Who does it.
        spec: The whole agent.
        publishes: Serve the version; else it is left as a draft. A new agent is always served.
        dry_run: Check and compare alone.

    Raises:
        InvalidRequest: naming the field.
        Duplicate: when another created an agent of that name at the same time.
    """
    spec = await checked(session, settings, principal.workspace_id, spec)
    agent = await _named(session, principal.workspace_id, spec.name)
    if agent is None:
        if not dry_run:
            agent = await create(session, settings, principal, spec)
        version = await version_of(session, agent, 1) if agent else None
        return Application(Applied.CREATED, changes(None, spec), version)
    served = await version_of(session, agent, agent.published_version)
    found = changes(read(served), spec)
    if not found:
        return Application(Applied.UNCHANGED, found, served)
    latest = await version_of(session, agent, agent.latest_version)
    drafted = read(latest) == spec
    if drafted and not publishes:
        return Application(Applied.UNCHANGED, found, latest)
    if dry_run:
        return Application(Applied.UPDATED, found)
    chosen = latest if drafted else await draft(session, agent, spec, principal)
    if publishes:
        await serve(session, agent, chosen)
    return Application(Applied.UPDATED, found, chosen)


async def _named(session: AsyncSession, workspace_id: UUID, name: str) -> Agent | None:
    """The agent of a name, locked, if there is one."""
    try:
        return await get(session, workspace_id, name, lock=True)
    except NotFound:
        return None


async def compare(
    session: AsyncSession, workspace_id: UUID, ref: str, before: int | None, after: int | None
) -> tuple[AgentVersion, AgentVersion, list[Change]]:
    """What tells two versions of an agent apart: the served one and the newest when none are named.

    Raises:
        NotFound: when there is no such agent.
        UnknownReference: when it has no such version.
    """
    agent = await get(session, workspace_id, ref)
    first = await version_of(session, agent, before or agent.published_version, field="from")
    second = await version_of(session, agent, after or agent.latest_version, field="to")
    return first, second, changes(read(first), read(second))
