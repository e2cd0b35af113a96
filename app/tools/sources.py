"""What tools are read from: MCP servers and OpenAPI documents. Read again, what changed is a new version of its tool.

A tool that its source no longer has is disabled with the reason, never deleted, and enabled again when it is back. A
tool that a person has disabled stays so.
"""

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database, Row
from app.errors import Conflict, DatabaseUnavailable, Duplicate, NotFound, ParleyError
from app.models import RegisteredTool, ToolSource, new_id
from app.tools import registered as rows
from app.tools.definition import Definition, defined
from app.tools.http import HttpSpec, risk_of
from app.tools.mcp import McpSource, McpSpec, read_listing
from app.tools.mcp_sessions import Server, Sessions
from app.tools.registry import check_free
from app.tools.tool import Risk

log = structlog.stdlib.get_logger(__name__)

READ_AGAIN_SECONDS = 600.0
SOONEST_SECONDS = 10.0  # However often a server says that its tools have changed.
GONE = "its source does not have it any more"

Action = Literal["create", "update", "unchanged"]

# Moving `due_at` on is the claim: of any number of processes one reads, and a reader that dies is followed by the next.
CLAIM = """
update tool_sources set due_at = now() + make_interval(secs => $1::float)
where id = (
    select id from tool_sources where due_at <= now() and workspace_id <> all($2::uuid[])
    order by due_at limit 1 for no key update skip locked
)
returning id, workspace_id, name, spec, sha256
"""
SOONER = """
update tool_sources set due_at = least(due_at, greatest(now(), read_at + make_interval(secs => $3::float)))
where workspace_id = $1 and name = $2 and due_at is not null
"""
FAILED = "update tool_sources set error = $3, updated_at = now() where workspace_id = $1 and name = $2"
SAME = "update tool_sources set error = null, read_at = now(), updated_at = now() where id = $1"


@dataclass(frozen=True)
class Taken:
    """What became of one definition.

    Attributes:
        definition: As it is served.
        action: What was done, or would be.
        version: The version served; None for a new tool that was not saved.
    """

    definition: Definition
    action: Action
    version: int | None


@dataclass
class Contents:
    """What a source holds.

    Attributes:
        definitions: Its tools.
        skipped: What can't be a tool, each with the reason.
        names: Names that it has, wanted or not; a tool of any other name is gone.
    """

    definitions: list[Definition] = field(default_factory=list[Definition])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    names: set[str] = field(default_factory=set[str])

    @property
    def sha256(self) -> str:
        """Names the content."""
        content = [sorted(each.sha256 for each in self.definitions), self.skipped]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


# --- rows -------------------------------------------------------------------------------------------


async def get(session: AsyncSession, workspace_id: UUID, name: str, *, lock: bool = False) -> ToolSource:
    """A source.

    Raises:
        NotFound: when there is none of that name.
    """
    query = select(ToolSource).where(ToolSource.workspace_id == workspace_id, ToolSource.name == name)
    source = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if source is None:
        raise NotFound(f"there is no tool source {name!r}")
    return source


async def page(session: AsyncSession, workspace_id: UUID, *, after: str | None, limit: int) -> Sequence[ToolSource]:
    """Sources by name, from after one on."""
    query = select(ToolSource).where(ToolSource.workspace_id == workspace_id)
    query = query.order_by(ToolSource.name.collate("C")).limit(limit)
    if after is not None:
        query = query.where(ToolSource.name.collate("C") > after)
    return (await session.scalars(query)).all()


async def put(session: AsyncSession, workspace_id: UUID, name: str, kind: str, spec: Mapping[str, Any]) -> ToolSource:
    """The source of that name, made or changed, and locked.

    Raises:
        Duplicate: when it is of another kind.
    """
    try:
        source = await get(session, workspace_id, name, lock=True)
    except NotFound:
        source = ToolSource(id=new_id(), workspace_id=workspace_id, name=name, kind=kind, spec=dict(spec), skipped=[])
        session.add(source)
    if source.kind != kind:
        raise Duplicate(f"there is a tool source {name} already, of the kind {source.kind}", field="name")
    source.spec = dict(spec)
    await session.flush()
    return source


async def delete(session: AsyncSession, workspace_id: UUID, name: str) -> ToolSource:
    """Take a source away, and its tools with it.

    Raises:
        NotFound: when there is none of that name.
    """
    source = await get(session, workspace_id, name, lock=True)
    of_it = (RegisteredTool.workspace_id == workspace_id, RegisteredTool.source_id == source.id)
    gone = {"deleted_at": func.coalesce(RegisteredTool.deleted_at, func.now()), "source_id": None}
    await session.execute(update(RegisteredTool).where(*of_it).values(gone))
    await session.delete(source)
    await session.flush()
    return source


# --- what a source holds, as tools --------------------------------------------------------------------


async def take(
    session: AsyncSession,
    workspace_id: UUID,
    principal_id: UUID | None,
    definition: Definition,
    *,
    source: ToolSource | None,
) -> Taken:
    """Save one definition as a tool of a source, or only say what would be done when there is none.

    Raises:
        Duplicate: when the name is taken by a tool from elsewhere.
    """
    name, kind = str(definition.spec["name"]), str(definition.spec["kind"])
    check_free(name)
    try:
        tool, version = await rows.get(session, workspace_id, name, lock=source is not None)
    except NotFound:
        if source is not None:
            tool, _ = await rows.create(session, workspace_id, principal_id, definition)
            tool.source_id = source.id
        return Taken(definition, "create", 1 if source is not None else None)
    if tool.kind != kind or (source is not None and tool.source_id not in (None, source.id)):
        raise Duplicate(f"a tool called {name} exists already, of the kind {tool.kind}", field="name")
    definition = _with_own(definition, version.spec.get("own") or {})
    same = definition.sha256 == version.sha256
    if source is not None:
        tool.source_id = source.id
        back = True if tool.disabled_reason is not None else None
        _, version = await rows.change(session, workspace_id, principal_id, name, definition=definition, enabled=back)
    return Taken(definition, "unchanged" if same else "update", version.version)


def _with_own(definition: Definition, own: Mapping[str, Any]) -> Definition:
    """A definition with what a person has said of its tool."""
    if not own:
        return definition
    spec = definition.spec | dict(own) | {"own": dict(own)}
    if spec["kind"] == "mcp":
        return defined(McpSpec.model_validate(spec))
    # The operation may have become one that changes something.
    risk = risk_of(str(spec["method"]), Risk(spec["risk"]))
    return defined(HttpSpec.model_validate(spec | {"risk": risk}))


async def save(session: AsyncSession, source: ToolSource, principal_id: UUID | None, found: Contents) -> list[Taken]:
    """Save what a locked source holds; its tools that are gone are disabled.

    Raises:
        Duplicate: when a name is taken by a tool from elsewhere; of an MCP server such a tool is skipped.
    """
    taken: list[Taken] = []
    skipped = list(found.skipped)
    for definition in found.definitions:
        try:
            taken.append(await take(session, source.workspace_id, principal_id, definition, source=source))
        except Duplicate as error:
            if source.kind != "mcp":
                raise
            skipped.append((str(definition.spec["name"]), error.detail))
    await _disable_gone(session, source, {*found.names, *(str(each.definition.spec["name"]) for each in taken)})
    source.sha256, source.error, source.read_at = found.sha256, None, func.now()
    source.skipped = [list(each) for each in skipped]
    source.updated_at = func.now()
    await session.flush()
    return taken


async def present(session: AsyncSession, workspace_id: UUID, name: str) -> tuple[ToolSource, list[Taken]]:
    """A source with its enabled tools as they are.

    Raises:
        NotFound: when there is none of that name.
    """
    source = await get(session, workspace_id, name)
    tools = await rows.of_source(session, source)
    return source, [Taken(Definition(each.spec, each.sha256), "unchanged", each.version) for each in tools]


async def _disable_gone(session: AsyncSession, source: ToolSource, present: set[str]) -> None:
    gone = (
        update(RegisteredTool)
        .where(
            RegisteredTool.workspace_id == source.workspace_id,
            RegisteredTool.source_id == source.id,
            RegisteredTool.deleted_at.is_(None),
            RegisteredTool.enabled,
            RegisteredTool.name.not_in(present),
        )
        .values(enabled=False, disabled_reason=GONE, updated_at=func.now())
    )
    await session.execute(gone)


# --- reading MCP servers ------------------------------------------------------------------------------


async def listing(sessions: Sessions, workspace_id: UUID, name: str, spec: McpSource) -> Contents:
    """What a server offers now.

    Raises:
        ToolError: it could not be reached, refuses, or does not answer as MCP says.
    """
    listed = await sessions.tools(spec.server(name, workspace_id))
    # Long lists take a while to check: not on the event loop.
    read = await asyncio.to_thread(read_listing, name, spec, listed)
    return Contents(read.definitions, read.skipped)


async def save_mcp(
    session: AsyncSession, workspace_id: UUID, principal_id: UUID | None, name: str, spec: McpSource, found: Contents
) -> tuple[ToolSource, list[Taken]]:
    """Save a server with its tools; it is read again from now on.

    Raises:
        Duplicate: when there is a source of that name and another kind.
    """
    source = await put(session, workspace_id, name, "mcp", spec.model_dump(mode="json"))
    source.due_at = func.now() + timedelta(seconds=READ_AGAIN_SECONDS)
    return source, await save(session, source, principal_id, found)


async def next_due(database: Database, *, but: Collection[UUID] = ()) -> Row | None:
    """Take the server that has been due longest, whoever's it is, but those of some workspaces; None when none is."""
    return await database.fetchrow(CLAIM, READ_AGAIN_SECONDS, list(but))


async def read_again(database: Database, sessions: Sessions, due: Row) -> None:
    """Read a server that was taken; one that can't be reached keeps its tools as they are, and shows the error."""
    try:
        await _read(database, sessions, due)
    except (ParleyError, ValueError) as error:
        said = error.detail if isinstance(error, ParleyError) else str(error)
        log.warning("source.unread", source=due["name"], detail=said)
        await failed(database, due["workspace_id"], due["name"], said)


async def _read(database: Database, sessions: Sessions, due: Row) -> None:
    spec = McpSource.model_validate(due["spec"])
    found = await listing(sessions, due["workspace_id"], due["name"], spec)
    if found.sha256 == due["sha256"]:
        await database.execute(SAME, due["id"])
        return
    async with database.transaction(due["workspace_id"]) as session:
        source = await get(session, due["workspace_id"], due["name"], lock=True)
        if source.spec != due["spec"]:
            raise Conflict("the source was changed while it was read")
        await save(session, source, None, found)


async def failed(database: Database, workspace_id: UUID, name: str, said: str) -> None:
    """Note that a source could not be read."""
    await database.execute(FAILED, workspace_id, name, said[:2000])


async def soon(database: Database, server: Server) -> None:
    """Have a server's list read before its time; in an outage, it is read at its time."""
    with suppress(DatabaseUnavailable):
        await database.execute(SOONER, server.workspace_id, server.name, SOONEST_SECONDS)
