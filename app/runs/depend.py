"""Runs that wait for tasks: born waiting, queued when every task they depend on has ended as it should."""

from uuid import UUID

from app.db import Connection, Database, Row
from app.events import EventType, NewEvent, StoredEvent, append

# The tasks that a task depends on, each with its latest run, which is the one that counts.
DEPENDENCIES = """
task_dependencies d join tasks t on t.id = d.depends_on_id
left join lateral (select * from runs o where o.task_id = d.depends_on_id order by o.id desc limit 1) l on true
"""
# A deleted task that never ran has ended without success.
VERDICT = """
case when l.state in ('queued', 'running', 'waiting') or (l.state is null and t.deleted_at is null) then 'open'
    when d.on_outcome = 'any' or l.state = 'completed' then 'met' else 'failed' end
"""
DEPENDING = "r.state = 'waiting' and r.started_at is null"
# All have ended as they should, or one has not and will not.
DECIDED = f"""
select r.id, r.workspace_id, r.conversation_id, r.task_id from runs r
where {DEPENDING} and (
    not exists (select from {DEPENDENCIES} where d.task_id = r.task_id and {VERDICT} <> 'met')
    or exists (select from {DEPENDENCIES} where d.task_id = r.task_id and {VERDICT} = 'failed'))
"""
OF_TASK = "(r.task_id = $1 or r.task_id in (select task_id from task_dependencies where depends_on_id = $1))"
FEW = "order by r.id limit 100"


async def decided(database: Database, task_id: UUID | None = None) -> list[Row]:
    """Runs whose wait for tasks is over, one way or the other: all, or those of a task and of the tasks behind it."""
    if task_id is None:
        return await database.fetch(f"{DECIDED} {FEW}")
    return await database.fetch(f"{DECIDED} and {OF_TASK} {FEW}", task_id)


STANDINGS = f"""
select t.id, t.title, l.id as run_id, l.state, l.result, l.output, l.error, c.trusted, {VERDICT} as verdict
from {DEPENDENCIES} left join conversations c on c.id = l.conversation_id
where d.task_id = $1 order by t.id
"""


async def standings(connection: Connection, run_id: UUID) -> list[Row] | None:
    """How the tasks stand for which a run waits; None when it waits no more.

    Needs an `engine_tx()` that holds the lock of the conversation's head.
    """
    task_id = await connection.fetchval(
        f"select task_id from runs r where id = $1 and {DEPENDING} for no key update", run_id
    )
    return await connection.fetch(STANDINGS, task_id) if task_id else None


# Invariant: queued once, from waiting, on the locked row. Its time in the queue begins now.
ENQUEUE = """
with r as (
    update runs set state = 'queued', waits = 0, run_at = greatest(run_at, now()),
        queue_deadline = queue_deadline + (now() - queued_at)
    where id = $1 and state = 'waiting' returning conversation_id, ready
), h as (
    update heads set state = 'queued', updated_at = now() from r where heads.conversation_id = r.conversation_id and r.ready
)
select ready from r
"""


async def enqueue(connection: Connection, conversation_id: UUID, run_id: UUID) -> tuple[bool, list[StoredEvent]]:
    """Queue a run that waited for tasks; whether it is the next of its conversation, and its event.

    Needs an `engine_tx()` that holds the lock of the conversation's head, in which `standings` found it waiting.
    """
    ready = await connection.fetchval(ENQUEUE, run_id)
    event = NewEvent(EventType.RUN_QUEUED, {"reason": "the tasks it depends on have ended"})
    return bool(ready), await append(connection, conversation_id, run_id, [event])
