"""The registry: which tool a name means, for runs, calls by hand and checks alike.

The tools of the installation go first: what the built-in ones, those of extensions and of MCP programs are called means
the same in every workspace. A workspace's own tool of such a name, made before the installation had it, is out of reach
until it is deleted; `parley doctor` tells of it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.errors import Conflict, Disabled, Duplicate
from app.models import RegisteredTool, ToolVersion
from app.settings import Settings
from app.tools import BUILT_IN, registered
from app.tools.stored import stored_tool
from app.tools.tool import Tool

# The tools of the installation: the built-in ones; extensions and MCP programs add theirs at the start.
INSTALLED: dict[str, Tool] = dict(BUILT_IN)

HIDDEN = (
    "select name, count(*) as workspaces from tools where name = any($1) and deleted_at is null group by 1 order by 1"
)


def offered(settings: Settings) -> dict[str, Tool]:
    """The tools of the installation that these settings make available."""
    return {name: tool for name, tool in INSTALLED.items() if tool.available(settings)}


def in_reach(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a workspace's tools that the installation has no other of the same name for."""
    return [record for record in records if record["name"] not in INSTALLED]


async def names(session: AsyncSession, workspace_id: UUID) -> set[str]:
    """What an agent of this workspace may name."""
    own = select(RegisteredTool.name).where(
        RegisteredTool.workspace_id == workspace_id, RegisteredTool.deleted_at.is_(None)
    )
    return {*INSTALLED, *await session.scalars(own)}


async def find(session: AsyncSession, workspace_id: UUID, name: str) -> tuple[Tool, ToolVersion | None]:
    """The tool of a name, with its version when it is the workspace's own.

    Raises:
        NotFound: when there is none.
        Disabled: when the workspace has disabled it.
    """
    if name in INSTALLED:
        return INSTALLED[name], None
    tool, version = await registered.get(session, workspace_id, name)
    if not tool.enabled:
        raise Disabled(f"the tool {name} is disabled")
    return stored_tool(version.spec), version


def check_free(name: str) -> None:
    """Refuse a name that the installation has.

    Raises:
        Duplicate: saying whose it is.
    """
    if name in INSTALLED:
        raise Duplicate(_whose(name), field="name")


def check_own(name: str) -> None:
    """Refuse to change a tool of the installation.

    Raises:
        Conflict: saying whose it is.
    """
    if name in INSTALLED:
        raise Conflict(_whose(name))


def _whose(name: str) -> str:
    kind = INSTALLED[name].kind
    whose = {"builtin": "a built-in tool", "extension": "the tool of an extension"}
    return f"{name} is {whose.get(kind, 'the tool of a program of this installation')}"


async def hidden(database: Database) -> dict[str, int]:
    """Names whose own tools are out of reach, with how many workspaces have one."""
    rows = await database.fetch(HIDDEN, list(INSTALLED))
    return {row["name"]: row["workspaces"] for row in rows}
