"""Holds: pause and drain, by everything, workspace, agent or task."""

from uuid import UUID

from app.db import Connection, Database, Row
from app.models import new_id

# Whether a hold `k` speaks of a run `r`; the table is nearly always empty.
OF_RUN = """(k.scope = 'all' or k.workspace_id = r.workspace_id and (k.scope = 'workspace'
    or k.scope = 'task' and k.ref = r.task_id
    or k.scope = 'agent' and k.ref = (select c.agent_id from conversations c where c.id = r.conversation_id)))"""
HELD = f"exists (select from holds k where {OF_RUN})"

# The same for a conversation `c` whose run is about to be inserted.
OF_CONVERSATION = """(k.scope = 'all' or k.workspace_id = c.workspace_id and (
    k.scope = 'workspace' or k.scope = 'task' and k.ref = c.task_id or k.scope = 'agent' and k.ref = c.agent_id))"""
HELD_CONVERSATION = f"exists (select from holds k where {OF_CONVERSATION})"

# A hold `k` as reasons tell it.
TOLD = """json_build_object('mode', k.mode, 'scope', k.scope, 'ref', k.ref, 'reason', k.reason,
    'by', (select name from principals p where p.id = k.principal_id))"""

PUT = """
insert into holds as h (id, workspace_id, scope, ref, mode, reason, principal_id) values ($1, $2, $3, $4, $5, $6, $7)
on conflict (workspace_id, scope, ref) do update set mode = excluded.mode, reason = excluded.reason,
    principal_id = excluded.principal_id, created_at = now()
returning id
"""
LIFT = "delete from holds where workspace_id = $1 and scope = $2 and ref is not distinct from $3"

PAUSED = f"""
select r.id from runs r where r.id = any($1::uuid[]) and r.state = 'running'
    and exists (select from holds k where k.mode = 'pause' and {OF_RUN})
"""


async def hold(
    connection: Connection,
    workspace_id: UUID,
    scope: str,
    ref: UUID | None,
    mode: str,
    *,
    reason: str | None,
    principal_id: UUID | None,
) -> None:
    """Let no run of a scope start; a second hold of the same scope replaces the first."""
    await connection.execute(PUT, new_id(), workspace_id, scope, ref, mode, reason, principal_id)


async def lift(connection: Connection, workspace_id: UUID, scope: str, ref: UUID | None) -> None:
    """Let runs of a scope start again."""
    await connection.execute(LIFT, workspace_id, scope, ref)


async def holds(connection: Connection, workspace_id: UUID) -> list[Row]:
    """What is held in a workspace, and for everybody."""
    return await connection.fetch(
        "select * from holds where workspace_id = $1 or scope = 'all' order by created_at", workspace_id
    )


async def paused(database: Database, run_ids: list[UUID]) -> list[UUID]:
    """Which of these running runs a pause asks to step aside."""
    return [row["id"] for row in await database.fetch(PAUSED, run_ids)] if run_ids else []
