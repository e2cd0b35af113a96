"""The rows of tools that people registered: each change a version, the latest one served."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Duplicate, NotFound
from app.models import RegisteredTool, ToolSource, ToolVersion, new_id
from app.tools.definition import Definition

Stored = tuple[RegisteredTool, ToolVersion]


async def create(
    session: AsyncSession,
    workspace_id: UUID,
    principal_id: UUID | None,
    definition: Definition,
    *,
    tool_id: UUID | None = None,
    approval: Any = None,
) -> Stored:
    """Save a new tool.

    Raises:
        Duplicate: when the name is taken.
    """
    name = str(definition.spec["name"])
    tool = RegisteredTool(
        id=tool_id or new_id(),
        workspace_id=workspace_id,
        name=name,
        kind=str(definition.spec["kind"]),
        enabled=True,
        published_version=1,
        approval=approval or None,
    )
    session.add(tool)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Duplicate(f"a tool called {name} exists already", field="name") from error
    version = _version(tool, definition, principal_id)
    session.add(version)
    await session.flush()
    await session.refresh(tool)
    await session.refresh(version)
    return tool, version


def _version(tool: RegisteredTool, definition: Definition, principal_id: UUID | None) -> ToolVersion:
    return ToolVersion(
        tool_id=tool.id,
        version=tool.published_version,
        workspace_id=tool.workspace_id,
        spec=definition.spec,
        sha256=definition.sha256,
        principal_id=principal_id,
    )


async def get(session: AsyncSession, workspace_id: UUID, name: str, *, lock: bool = False) -> Stored:
    """A tool with the version that is served.

    Raises:
        NotFound: when there is none of that name.
    """
    query = select(RegisteredTool).where(
        RegisteredTool.workspace_id == workspace_id,
        RegisteredTool.name == name,
        RegisteredTool.deleted_at.is_(None),
    )
    tool = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if tool is None:
        raise NotFound(f"there is no tool {name!r}")
    version = await session.get_one(ToolVersion, (tool.id, tool.published_version))
    return tool, version


async def page(
    session: AsyncSession, workspace_id: UUID, *, after: str | None, limit: int, kind: str | None = None
) -> Sequence[Stored]:
    """Tools by name, from after one on; of one kind when it is named."""
    query = (
        select(RegisteredTool, ToolVersion)
        .join(
            ToolVersion,
            (ToolVersion.tool_id == RegisteredTool.id) & (ToolVersion.version == RegisteredTool.published_version),
        )
        .where(RegisteredTool.workspace_id == workspace_id, RegisteredTool.deleted_at.is_(None))
        .order_by(RegisteredTool.name.collate("C"))
        .limit(limit)
    )
    if after is not None:
        query = query.where(RegisteredTool.name.collate("C") > after)
    if kind is not None:
        query = query.where(RegisteredTool.kind == kind)
    return [(tool, version) for tool, version in await session.execute(query)]


async def of_source(session: AsyncSession, source: ToolSource) -> Sequence[ToolVersion]:
    """What is served of a source's enabled tools, by name."""
    query = (
        select(ToolVersion)
        .join(
            RegisteredTool,
            (ToolVersion.tool_id == RegisteredTool.id) & (ToolVersion.version == RegisteredTool.published_version),
        )
        .where(
            RegisteredTool.workspace_id == source.workspace_id,
            RegisteredTool.source_id == source.id,
            RegisteredTool.deleted_at.is_(None),
            RegisteredTool.enabled,
        )
        .order_by(RegisteredTool.name.collate("C"))
    )
    return (await session.scalars(query)).all()


async def versions(
    session: AsyncSession, tool: RegisteredTool, *, before: int | None, limit: int
) -> Sequence[ToolVersion]:
    """The versions of a tool, newest first, from before one on."""
    query = select(ToolVersion).where(ToolVersion.tool_id == tool.id).order_by(ToolVersion.version.desc())
    if before is not None:
        query = query.where(ToolVersion.version < before)
    return (await session.scalars(query.limit(limit))).all()


async def change(
    session: AsyncSession,
    workspace_id: UUID,
    principal_id: UUID | None,
    name: str,
    *,
    definition: Definition | None,
    enabled: bool | None,
    approval: Any = None,
) -> Stored:
    """Serve a new definition, switch the tool on or off, or give it another approval policy.

    The same content makes no new version. An empty list of rules takes the policy away.

    Raises:
        NotFound: when there is none of that name.
    """
    tool, version = await get(session, workspace_id, name, lock=True)
    if definition is not None and definition.sha256 != version.sha256:
        latest = await session.scalar(select(func.max(ToolVersion.version)).where(ToolVersion.tool_id == tool.id))
        tool.published_version = (latest or 0) + 1
        version = _version(tool, definition, principal_id)
        session.add(version)
    if enabled is not None:
        tool.enabled, tool.disabled_reason = enabled, None
    if approval is not None:
        tool.approval = approval or None
    tool.updated_at = func.now()
    await session.flush()
    await session.refresh(tool)
    await session.refresh(version)
    return tool, version


async def delete(session: AsyncSession, workspace_id: UUID, name: str) -> RegisteredTool:
    """Take a tool away; runs that call it are told that it is gone.

    Raises:
        NotFound: when there is none of that name.
    """
    tool, _ = await get(session, workspace_id, name, lock=True)
    tool.deleted_at = func.now()
    await session.flush()
    return tool
