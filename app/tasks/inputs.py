"""A task's `input`, held to what its agent takes before anything is stored or started.

An agent may be changed later, so a run looks once more when it begins.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from app.agents.spec import UUID_LIKE
from app.db import Connection
from app.errors import InvalidRequest
from app.tools.schema import misfit

SCHEMA = "select spec->'input_schema' from agent_versions where agent_id = $1 and version = $2"
# Agents of tasks about to be stored, by whatever they are called there; most have no schema and so no row.
SCHEMAS = """
select a.workspace_id, a.id, a.name, v.spec->'input_schema' as schema
from agents a join agent_versions v on v.agent_id = a.id and v.version = a.published_version
where a.workspace_id = any($1::uuid[]) and a.deleted_at is null and (a.name = any($2::text[]) or a.id = any($3::uuid[]))
    and v.spec->>'input_schema' is not null
"""
Schemas = Mapping[tuple[UUID, str], dict[str, Any]]


def check(schema: dict[str, Any] | None, given: Any, task_type: str) -> None:
    """Refuse an input that the agent does not take.

    Raises:
        InvalidRequest: naming what does not fit.
    """
    # What a webhook brings is its payload; its task's input is only what was set beside it.
    if schema is None or (given is None and task_type == "triggered"):
        return
    if wrong := misfit(schema, {} if given is None else given, "input"):
        raise InvalidRequest(wrong, field=wrong.partition(":")[0])


async def check_for(connection: Connection, agent_id: UUID, version: int | None, given: Any, task_type: str) -> None:
    """Refuse an input that this version of an agent does not take.

    Raises:
        InvalidRequest: naming what does not fit.
    """
    check(await connection.fetchval(SCHEMA, agent_id, version), given, task_type)


async def schemas_of(connection: Connection, agents: Sequence[tuple[UUID, str]]) -> Schemas:
    """What agents take, by workspace and what they are called; those that say nothing of it are left out."""
    names = [name for _, name in agents]
    ids = [name for name in names if UUID_LIKE.fullmatch(name)]
    rows = await connection.fetch(SCHEMAS, [workspace for workspace, _ in agents], names, ids)
    named = {(row["workspace_id"], row["name"]): row["schema"] for row in rows}
    return {(row["workspace_id"], str(row["id"])): row["schema"] for row in rows} | named
