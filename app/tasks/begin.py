"""The usual fires of a batch in one statement: for each its row, and a conversation that begins with its run.

Whatever is not usual is left to the steps of `fire`: instants that were missed, a start that must not be beside the last
run, a task that keeps to one conversation or waits for others, an instant that was accounted for before, a fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import structlog

from app import failpoints
from app.conversations import Accepted, Beginning
from app.conversations.begin import accepted_as, record
from app.db import UNAVAILABLE, Connection, Row
from app.errors import DatabaseUnavailable, ParleyError
from app.patterns import PATTERNS
from app.runs.begin import BEGINNINGS, ROWS
from app.tasks.account import FREE
from app.tasks.due import backlog_of
from app.tasks.launch import Start, on_schedule, turn_of

log = structlog.stdlib.get_logger(__name__)

# Invariant (G5): one row per task and due instant, as in `account`; who has none begins nothing.
FIRES = f""", fire as (
    insert into fires (id, workspace_id, task_id, kind, due_at, count, outcome, run_id, conversation_id, told_run_id)
    select f.fire_id, f.workspace_id, f.task_id, 'schedule', s.due_at, 1, 'run', f.run_id, f.conversation_id, s.told_run_id
    from free f join json_to_recordset($2::json) as s(run_id uuid, due_at timestamptz, told_run_id uuid) using (run_id)
    where {FREE.format(task_id="f.task_id", due_at="s.due_at")}
    on conflict (task_id, due_at) where kind = 'schedule' do nothing
    returning run_id
), x as materialized (select free.* from free join fire using (run_id))"""
BEGIN = BEGINNINGS + FIRES + ROWS
ADVANCE = """
update tasks t set next_fire_at = s.at from unnest($1::uuid[], $2::timestamptz[]) as s(id, at) where t.id = s.id
"""


@dataclass(frozen=True)
class Usual:
    """A start of which nothing is unusual, and when its task is due next."""

    start: Start
    beginning: Beginning
    next_fire_at: datetime | None


async def begin_usual(connection: Connection, tasks: Sequence[Row]) -> dict[UUID, Accepted]:
    """Fire those of the due tasks of which nothing is unusual; what they ask for now, by task.

    Needs the `engine_tx()` that holds the tasks locked. Either all of them are fired and advanced, or none.
    """
    usual = [found for task in tasks if (found := await _usual(task))]
    if not usual:
        return {}
    await connection.execute("savepoint usual")
    try:
        return await _begin(connection, usual)
    except (DatabaseUnavailable, *UNAVAILABLE):
        raise
    except Exception:  # One by one it comes out whose fault it is.
        log.exception("tasks.not_fired_together", tasks=len(usual))
        await connection.execute("rollback to savepoint usual")
        return {}


async def _begin(connection: Connection, usual: Sequence[Usual]) -> dict[UUID, Accepted]:
    told = [
        {"run_id": each.start.run_id, "due_at": each.start.due_at, "told_run_id": each.start.task["told_run_id"]}
        for each in usual
    ]
    rows = await connection.fetch(BEGIN, [record(each.beginning) for each in usual], told)
    begun = {row["run_id"]: row["at"] for row in rows}
    fired = [each for each in usual if each.start.run_id in begun]
    failpoints.before("advance")
    await connection.execute(ADVANCE, [each.start.task["id"] for each in fired], [each.next_fire_at for each in fired])
    failpoints.after("advance")
    return {each.start.task["id"]: accepted_as(each.beginning, begun[each.start.run_id]) for each in fired}


async def _usual(task: Row) -> Usual | None:
    if task["waits"] or (task["last_is_open"] and task["overlap"] != "allow"):
        return None
    try:
        due = await backlog_of(task)
        if due.missed.first is not None or len(due.starts) != 1:
            return None
        start = on_schedule(task, due.starts[0])
        return Usual(start, _beginning(start), due.next_fire_at)
    except ParleyError:
        return None


def _beginning(start: Start) -> Beginning:
    task = start.task
    return Beginning(
        task["workspace_id"],
        replace(PATTERNS[task["task_type"]], trusted=start.trusted),
        str(task["agent_id"]),
        turn_of(start),
        origin=start.origin,
        title=task["title"],
        principal_id=task["created_by"],
        context_data=task["context_data"],
        conversation_id=start.conversation_id,
    )
