"""Firing: every due instant of a task becomes a fire row with its outcome, in one transaction with the run it starts.

Any number of schedulers may fire at once. Lock order is heads, then runs, then tasks, as in `settle`. A start that
only makes new conversations touches no head another transaction knows, so tasks of that kind are locked in batches;
one that goes on in, or interrupts, a conversation has its head locked before the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog

from app import failpoints
from app.conversations import Accepted
from app.db import UNAVAILABLE, Connection, Database, Row
from app.errors import DatabaseUnavailable, ParleyError
from app.models import new_id
from app.models.task import LAST_IS_OPEN
from app.notifications import alerts
from app.runs import wish_cancel
from app.settings import Settings
from app.settle import cancelled, settle
from app.tasks.account import not_started, started
from app.tasks.begin import begin_usual
from app.tasks.due import LATE, Backlog, Stretch, backlog_of
from app.tasks.inputs import check_for
from app.tasks.launch import READ, Start, launch, on_schedule
from app.tasks.rows import own_conversation, read, version_of

log = structlog.stdlib.get_logger(__name__)

BATCH = 50
INTERRUPTED = "interrupted by the task's next start"

IS_DUE = "t.enabled and t.deleted_at is null and t.next_fire_at <= now()"
# Starts in a conversation that exists already, whose head must be locked first.
IS_ENTWINED = "(t.conversation = 'same' or t.overlap = 'interrupt')"
# A start that must wait for the last one to end stays due; looking at it is pointless until then.
MUST_WAIT = f"""
(t.overlap = 'queue' or (t.catch_up = 'all' and t.overlap <> 'allow' and t.next_fire_at < now() - $1::interval))
and {LAST_IS_OPEN}
"""
LOCK_DUE = f"""
select t.id from tasks t where {IS_DUE} and not {IS_ENTWINED} and not ({MUST_WAIT}) and t.id <> all($2::uuid[])
order by t.next_fire_at limit $3 for no key update skip locked
"""
FIND_ENTWINED = f"""
select t.id, t.workspace_id, t.conversation = 'same' and not exists (
    select from conversations c where c.id = t.conversation_id) as lacks_conversation
from tasks t
where {IS_DUE} and {IS_ENTWINED} and not ({MUST_WAIT}) and t.id <> all($2::uuid[])
order by t.next_fire_at limit $3
"""
LOCK_HEADS = """
select conversation_id from heads where conversation_id = any($1::uuid[]) order by conversation_id for no key update
"""
LOCK_ONE = f"select t.id from tasks t where t.id = $1 and {IS_DUE} for no key update skip locked"
NEXT = """
select extract(epoch from min(next_fire_at) - now())::float from tasks
where enabled and deleted_at is null and next_fire_at > now()
"""

ADVANCE = "update tasks set next_fire_at = $2 where id = $1"
PAUSE = "update tasks set enabled = false, paused_reason = $2, updated_at = now() where id = $1"


@dataclass
class Fired:
    """What one look at the due tasks committed.

    Attributes:
        tasks: How many tasks were looked at.
        accepted: What the runs that were started, and those that were interrupted, ask for now.
        failed: Tasks that could not be fired for a reason that is not theirs; leave them out for now.
    """

    tasks: int = 0
    accepted: list[Accepted] = field(default_factory=list[Accepted])
    failed: set[UUID] = field(default_factory=set[UUID])


async def seconds_to_next(database: Database) -> float | None:
    """How long until a task will be due, by PostgreSQL's clock."""
    return await database.fetchval(NEXT)


async def fire_due(
    database: Database, settings: Settings, *, limit: int = BATCH, without: Sequence[UUID] = ()
) -> Fired:
    """Fire up to `limit` due tasks of each kind; call it again while it finds any.

    Args:
        database: Where the tasks are; times come from its clock.
        settings: For the notifications of interrupted runs.
        limit: Tasks per transaction.
        without: Tasks to leave out.
    """
    fired = Fired()
    async with database.engine_tx() as connection:
        rows = await connection.fetch(LOCK_DUE, LATE, list(without), limit)
        due = await connection.fetch(f"{READ} where t.id = any($1::uuid[])", [row["id"] for row in rows])
        begun = await begin_usual(connection, due)
        fired.tasks += len(begun)
        fired.accepted += begun.values()
        for task in due:
            if task["id"] not in begun:
                await _fire_apart(connection, settings, task, fired)
        if fired.tasks:
            failpoints.before("fire")
    if fired.tasks:
        failpoints.after("fire")
    for found in await database.fetch(FIND_ENTWINED, LATE, list(without), limit):
        await _fire_entwined(database, settings, found, fired)
    return fired


async def _fire_apart(connection: Connection, settings: Settings, task: Row, fired: Fired) -> None:
    """Fire one task so that its fault is nobody else's."""
    await connection.execute("savepoint task")
    try:
        accepted = await _fire(connection, settings, task)
    except (DatabaseUnavailable, *UNAVAILABLE):
        raise  # The connection is gone, and with it the whole batch: nothing of it was fired.
    except ParleyError as error:
        await connection.execute("rollback to savepoint task")
        log.warning("task.paused", task_id=str(task["id"]), reason=error.detail)
        await connection.execute(PAUSE, task["id"], error.detail)
        occasion = f"{task['id']} {task['next_fire_at']}"
        alert = alerts.task_paused(task["id"], task["title"], error.detail, occasion)
        await alerts.tell(connection, settings, [alert])
    except Exception:  # a defect that one task meets must not keep the others from firing
        log.exception("task.not_fired", task_id=str(task["id"]))
        await connection.execute("rollback to savepoint task")
        fired.failed.add(task["id"])
    else:
        fired.accepted += accepted
    fired.tasks += 1


async def _fire_entwined(database: Database, settings: Settings, found: Row, fired: Fired) -> None:
    if found["lacks_conversation"]:
        async with database.engine_tx() as connection:
            await own_conversation(connection, found["workspace_id"], found["id"], "schedule")
    async with database.engine_tx("fire") as connection:
        heads = _heads_of(await read(connection, found["workspace_id"], found["id"]))
        await connection.execute(LOCK_HEADS, heads)
        if await connection.fetchval(LOCK_ONE, found["id"]) is None:
            return  # Another scheduler has it, or it was changed.
        task = await read(connection, found["workspace_id"], found["id"])
        # Else it was started by hand meanwhile, or its conversation was deleted: look again.
        if set(_heads_of(task)) <= set(heads) and not task["lacks_conversation"]:
            await _fire_apart(connection, settings, task, fired)


def _heads_of(task: Row) -> list[UUID]:
    return [key for key in (task["conversation_id"], task["last_conversation_id"]) if key is not None]


# --- one task ------------------------------------------------------------------------------------------


async def _fire(connection: Connection, settings: Settings, task: Row) -> list[Accepted]:
    """Account for every instant of a locked task that is due, and start what is to be started."""
    due = await backlog_of(task)
    accepted: list[Accepted] = []
    await _miss(connection, task, due)
    next_fire_at = due.next_fire_at
    for instant in due.starts:
        is_open = task["last_is_open"] or bool(accepted)
        match _overlap(task, instant) if is_open else "allow":
            case "queue":
                next_fire_at = instant
                break
            case "skip":
                await _skip(connection, task, instant, accepted)
            case "interrupt":
                accepted += await _interrupt(connection, settings, task)
                accepted += await _start(connection, settings, task, instant)
            case _:
                accepted += await _start(connection, settings, task, instant)
    failpoints.before("advance")
    await connection.execute(ADVANCE, task["id"], next_fire_at)
    failpoints.after("advance")
    return accepted


def _overlap(task: Row, instant: datetime) -> str:
    """The policy for an instant that comes while the last run is open.

    With catch-up `all` the instants that were missed take turns instead of skipping or interrupting each other.
    """
    if task["catch_up"] == "all" and task["overlap"] != "allow" and instant < task["now"] - LATE:
        return "queue"
    return task["overlap"]


async def _miss(connection: Connection, task: Row, due: Backlog) -> None:
    missed = due.missed
    if missed.first is None:
        return
    ended: datetime | None = task["last_finished_at"]
    if due.starts and task["overlap"] == "queue" and ended and missed.first < ended:
        reason = f"the run {task['last_run_id']} had not ended; of the instants that wait only the latest is started"
    elif due.starts and task["catch_up"] != "all":
        reason = "came due before the last one was looked at; only the latest is made up for"
    elif task["catch_up"] == "none":
        reason = f"not looked at within {LATE.seconds} seconds, and catch_up is none"
    else:
        reason = f"not started within the {task['catch_up_window_seconds']} seconds of catch_up_window_seconds"
    await not_started(connection, task, missed, "missed", reason)


async def _skip(connection: Connection, task: Row, instant: datetime, accepted: list[Accepted]) -> None:
    blocking = accepted[-1].run_id if accepted else task["last_run_id"]
    reason = f"the run {blocking} has not ended"
    await not_started(connection, task, Stretch(instant, instant, 1), "skipped", reason)


async def _start(connection: Connection, settings: Settings, task: Row, instant: datetime) -> list[Accepted]:
    begun = on_schedule(task, instant)
    if not await _account(connection, begun, "schedule"):
        return []  # Accounted for before its schedule was changed to this instant again.
    return [await launch(connection, settings, begun)]


async def _account(connection: Connection, begun: Start, kind: str) -> bool:
    fire_id, due_at = begun.fire_id or new_id(), begun.due_at
    return await started(connection, begun.task, kind, fire_id, due_at, begun.run_id, begun.conversation_id)


async def _interrupt(connection: Connection, settings: Settings, task: Row) -> list[Accepted]:
    """Cancel the last run, whose head is locked; what people asked in its conversation goes on."""
    run_id, conversation_id = task["last_run_id"], task["last_conversation_id"]
    if await wish_cancel(connection, run_id, INTERRUPTED):
        return [Accepted(conversation_id, run_id, None, ready=False, events=[], cancelling=run_id)]
    settled = await settle(connection, settings, run_id, conversation_id, cancelled(INTERRUPTED))
    if settled is None:
        return []
    return [Accepted(conversation_id, run_id, None, ready=settled.work_is_due, events=settled.events)]


# --- by hand ---------------------------------------------------------------------------------------------


async def execute(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    task_id: UUID,
    *,
    principal_id: UUID | None = None,
    run_id: UUID | None = None,
    origin: str = "api",
) -> Accepted:
    """Start a task now, by hand, disabled or not, whatever it is doing.

    Args:
        connection: Of an `engine_tx()`.
        settings: For notifications.
        workspace_id: Whose task.
        task_id: Which task.
        principal_id: Who asks.
        run_id: Made by the caller when a repeat must find the same run.
        origin: Of the conversation, if a new one begins.

    Raises:
        NotFound: no such task.
        InvalidRequest: when its input is not what its agent takes.
        RunFailed: when the prompt's template can't be rendered.
    """
    task = await own_conversation(connection, workspace_id, task_id, origin)
    await check_for(connection, task["agent_id"], version_of(task), task["input"], task["task_type"])
    begun = Start(
        task,
        origin,
        due_at=task["now"],
        fire_id=new_id(),
        principal_id=principal_id,
        trusted=task["trusted"],
        run_id=run_id or new_id(),
    )
    await _account(connection, begun, "manual")
    return await launch(connection, settings, begun)
