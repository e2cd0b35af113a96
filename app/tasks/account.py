"""Accounting for due instants: a row for each that started something, and one for each stretch that did not."""

from uuid import UUID

from app.db import Connection, Row
from app.errors import InvalidRequest
from app.models import new_id
from app.tasks.due import Rule, Stretch, passed

# Whether no stretch of a task's instants reaches over one.
FREE = """coalesce((
    select e.due_until < {due_at} from fires e where e.task_id = {task_id} and e.kind = 'schedule' and e.due_at < {due_at}
    order by e.due_at desc limit 1
), true)"""
# Invariant (G5): one row per task and due instant, whoever comes first.
INSERT_FIRE = f"""
insert into fires (id, workspace_id, task_id, kind, due_at, due_until, count, outcome, reason, run_id, conversation_id,
    told_run_id)
select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
where $4 <> 'schedule' or {FREE.format(task_id="$3", due_at="$5")}
on conflict (task_id, due_at) where kind = 'schedule' do nothing returning id
"""
# Instants left out for the same reason as those right before them are one stretch with them.
EXTEND = """
update fires set due_until = $5, count = count + $6
where id = (select id from fires where task_id = $1 order by id desc limit 1)
    and kind = 'schedule' and outcome = $2 and reason = $3 and coalesce(due_until, due_at) < $4 returning id
"""


async def not_started(connection: Connection, task: Row, stretch: Stretch, outcome: str, reason: str) -> None:
    """Account for instants at which nothing was started, in one row; `outcome` is skipped or missed."""
    if stretch.first is None:
        return
    longer = (task["id"], outcome, reason, stretch.first, stretch.last, stretch.count)
    if await connection.fetchval(EXTEND, *longer) is not None:
        return
    until = stretch.last if stretch.count > 1 else None
    whose = (new_id(), task["workspace_id"], task["id"], "schedule")
    await connection.execute(
        INSERT_FIRE, *whose, stretch.first, until, stretch.count, outcome, reason, None, None, None
    )


async def passed_over(connection: Connection, task: Row, reason: str) -> None:
    """Account for the instants of a locked task that have come due and that no look will find any more."""
    due = task["next_fire_at"]
    if task["task_type"] != "scheduled" or due is None or due > task["now"]:
        return
    try:
        stretch = await passed(Rule.of(task), due, task["now"])
    except InvalidRequest:  # Its rule can't be read any more: how many there would have been is not known.
        stretch = Stretch(due, due, 1)
    await not_started(connection, task, stretch, "skipped", reason)


async def started(
    connection: Connection, task: Row, kind: str, fire_id: UUID, due_at: object, run_id: UUID, conversation_id: UUID
) -> bool:
    """Account for a start; False when the instant was accounted for before."""
    values = (fire_id, task["workspace_id"], task["id"], kind, due_at, None, 1, "run", None, run_id, conversation_id)
    return await connection.fetchval(INSERT_FIRE, *values, task["told_run_id"]) is not None
