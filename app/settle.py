"""`settle`: the only way into a terminal state, for the executor, cancel, expiry, deadline and crash cap alike.

One transaction holds the run's end, its last events, its deliveries, its task's counters and the next run's turn.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from app.coalesce import Coalescer
from app.db import Connection, Database, Row
from app.errors import LeaseLost, ParleyError
from app.events import EventType, NewEvent, StoredEvent, replay
from app.messages import Json
from app.notifications import Notice, NotificationConfig, alerts, plan
from app.notifications.deliver import insert as insert_deliveries
from app.notifications.deliver import plan_updates
from app.runs import Fenced, NewRun, RunState, Write, hand_on, insert
from app.runs.end import Ended, Ending, end
from app.settings import Settings

log = structlog.stdlib.get_logger(__name__)

TERMINAL_EVENT = {
    RunState.COMPLETED: EventType.RUN_COMPLETED,
    RunState.FAILED: EventType.RUN_FAILED,
    RunState.CANCELLED: EventType.RUN_CANCELLED,
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: completed, failed or cancelled.
        result: The result as text; for an end before the answer, what there is of it.
        output: The structured output, if one was asked for.
        error: `{"code", "message", "retryable"}` of a failed or cancelled run.
        unchanged: Whether it found nothing new, which nobody is told of.
        write: The last messages, calls and events, before the terminal event.
    """

    state: RunState
    result: str | None = None
    output: Any = None
    error: Json | None = None
    unchanged: bool = False
    write: Write = field(default_factory=Write)


@dataclass(frozen=True)
class Settled:
    """What the ending committed.

    Attributes:
        events: To publish.
        work_is_due: Whether a run or a delivery became due.
        dependents_of: The run's task, when others depend on it: they may go on now, or never.
    """

    events: list[StoredEvent]
    work_is_due: bool
    dependents_of: UUID | None = None


def failed(error: ParleyError, write: Write | None = None) -> Outcome:
    """The outcome of a run that ended by one of our errors."""
    return Outcome(RunState.FAILED, error=error_of(error), write=write or Write())


def cancelled(reason: str | None, write: Write | None = None, result: str | None = None) -> Outcome:
    """The outcome of a run that was cancelled."""
    error: Json = {"code": "cancelled", "message": reason or "The run was cancelled.", "retryable": False}
    return Outcome(RunState.CANCELLED, result=result, error=error, write=write or Write())


def error_of(error: ParleyError) -> Json:
    """An error as runs and events show it."""
    return {"code": error.code, "message": error.detail, "retryable": error.retryable}


# The heads are locked in a statement of its own, before anything is decided; the rest is read for the notification, and
# is as old as the wait for the locks: what another transaction may have changed meanwhile is read again.
ABOUT = """
select r.id, r.task_id, r.detached, r.model, r.principal_id, r.retry_of, c.workspace_id, c.title as conversation_title,
    a.name as agent, t.title as task_title, t.notification_config, t.auto_pause_after, p.email,
    r.notification
from heads h join runs r on r.conversation_id = h.conversation_id and r.id = any($2::uuid[])
join conversations c on c.id = h.conversation_id join agents a on a.id = c.agent_id
left join tasks t on t.id = r.task_id left join principals p on p.id = r.principal_id
where h.conversation_id = any($1::uuid[]) order by h.conversation_id
"""
LOCK = f"{ABOUT} for no key update of h"
# Of many: whose head another transaction holds is left to wait for it alone.
LOCK_FREE = f"{LOCK} skip locked"


async def settle(
    connection: Connection,
    settings: Settings,
    run_id: UUID,
    conversation_id: UUID,
    outcome: Outcome,
    *,
    who: Fenced | None = None,
) -> Settled | None:
    """End a run.

    Needs an `engine_tx()`; publish the answered events and ring after its commit.

    Args:
        connection: Of that transaction.
        settings: For links and the default Slack webhook.
        run_id: The run.
        conversation_id: Its conversation.
        outcome: How it ended.
        who: The executor ending its own run; None for everybody else.

    Returns:
        None when the run had ended already: that end stands.

    Raises:
        LeaseLost: when `who` does not hold the run any more.
    """
    settled = await settle_all(connection, settings, [Settlement(run_id, conversation_id, outcome, who)])
    if who and not settled:
        raise LeaseLost
    return settled.get(run_id)


@dataclass(frozen=True)
class Settlement:
    """A run, how it shall end, and the executor that ends its own."""

    run_id: UUID
    conversation_id: UUID
    outcome: Outcome
    who: Fenced | None = None


async def settle_all(
    connection: Connection, settings: Settings, settlements: Sequence[Settlement]
) -> dict[UUID, Settled]:
    """End runs of different conversations; those that end here, by run.

    Needs an `engine_tx()`. One alone waits for its conversation's head; of several, those whose heads are held are left
    out. Failures lock their tasks in any order: settle each alone.
    """
    conversations = [each.conversation_id for each in settlements]
    lock = LOCK if len(settlements) == 1 else LOCK_FREE
    rows = await connection.fetch(lock, conversations, [each.run_id for each in settlements])
    about = {row["id"]: row for row in rows}
    endings = [await _ending(connection, each, about[each.run_id]) for each in settlements if each.run_id in about]
    ended = await end(connection, endings)
    return {
        each.run_id: await _follow_up(connection, settings, each, ended[each.run_id], about[each.run_id])
        for each in settlements
        if each.run_id in ended
    }


async def _ending(connection: Connection, of: Settlement, about: Row) -> Ending:
    outcome = of.outcome
    why = await _why_paused(connection, of.run_id, about, outcome)
    return Ending(
        of.run_id,
        of.conversation_id,
        of.who,
        outcome.state,
        _with_terminal_event(outcome, why),
        outcome.result,
        outcome.output,
        outcome.error,
        outcome.unchanged,
    )


async def _follow_up(connection: Connection, settings: Settings, of: Settlement, ended: Ended, about: Row) -> Settled:
    """What an end brings with it: withdrawn questions, the next run's turn, the task's count, deliveries."""
    outcome = of.outcome
    if ended.was_waiting:
        await connection.execute(WITHDRAW, of.run_id)
    if outcome.state is not RunState.COMPLETED:
        await connection.execute(CLOSE_CALLS, of.run_id)
    work_is_due = await _pass_the_turn(connection, ended)
    if ended.task_id and outcome.state is RunState.FAILED:
        paused = next((event for event in ended.events if event.type is EventType.TASK_AUTO_PAUSED), None)
        await connection.execute(COUNT, ended.task_id, paused.fields["reason"] if paused else None)
        if paused:
            occasion, why = f"{paused.conversation_id}:{paused.seq}", paused.fields["reason"]
            alert = alerts.task_paused(ended.task_id, about["task_title"], why, occasion)
            work_is_due |= await alerts.tell(connection, settings, [alert])
    terminal = next(event for event in ended.events if event.is_terminal)
    error = outcome.error.get("message") if outcome.error else None
    quiet = NOTHING_NEW if outcome.unchanged else None
    about = {**about, "detached": ended.detached, "model": ended.model}
    if ended.was_waiting:
        work_is_due |= await plan_updates(connection, ended.workspace_id, terminal)
    work_is_due |= await announce(
        connection,
        settings,
        about,
        terminal,
        text=outcome.result or "",
        error=error,
        quiet=quiet,
        recovered=ended.recovered,
    )
    return Settled(ended.events, work_is_due, ended.task_id if ended.has_dependents else None)


class Settlements:
    """The seam behind which the ends of this process's runs are put together."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Settle through this database's engine pool."""
        self._database = database
        self._settings = settings
        self._seam = Coalescer(self._together, self._alone, key=lambda each: each.conversation_id)

    async def settle(self, settlement: Settlement) -> Settled | None:
        """End a run as `settle` does, in a transaction that other runs may share.

        Raises:
            LeaseLost: when the run's executor does not hold it any more.
            DatabaseUnavailable: when PostgreSQL is away; whether the end landed is then unknown.
        """
        # Failures lock their tasks one by one, which only one of them may do at a time.
        if settlement.outcome.state is not RunState.COMPLETED:
            return await self._alone(settlement)
        return await self._seam.do(settlement)

    async def _together(self, settlements: list[Settlement]) -> dict[Hashable, Settled | None]:
        async with self._database.engine_tx("settle") as connection:
            settled = await settle_all(connection, self._settings, settlements)
        return {each.conversation_id: settled[each.run_id] for each in settlements if each.run_id in settled}

    async def _alone(self, of: Settlement) -> Settled | None:
        try:
            async with self._database.engine_tx("settle") as connection:
                return await settle(connection, self._settings, of.run_id, of.conversation_id, of.outcome, who=of.who)
        except LeaseLost:
            landed = of.who and await self._landed(of.who, of.outcome)
            if not landed:
                raise
            return landed

    async def _landed(self, who: Fenced, outcome: Outcome) -> Settled | None:
        """What an earlier try had committed whose answer was lost; None when that is not why the run is over."""
        last = await self._database.fetchval(LANDED, who.run_id, who.fence, who.write_no, str(outcome.state))
        if last is None:
            return None
        before = last - len(outcome.write.events) - 1
        events = await replay(self._database, who.conversation_id, before, run_id=who.run_id)
        return Settled(events, work_is_due=True)


LANDED = """
select (select max(e.seq) from events e where e.run_id = r.id)
from runs r where r.id = $1 and r.fence = $2 and r.write_no = $3 + 1 and r.state = $4
"""


def _with_terminal_event(outcome: Outcome, why_paused: str | None) -> Write:
    """The outcome's write with its last events; the outcome itself stays as it is, for another try."""
    events = list(outcome.write.events)
    if why_paused:
        events.append(NewEvent(EventType.TASK_AUTO_PAUSED, {"reason": why_paused}))
    kind = TERMINAL_EVENT[outcome.state]
    if outcome.state is RunState.COMPLETED:
        events.append(NewEvent(kind, shown={"result": outcome.result, "output": outcome.output}))
    else:
        events.append(NewEvent(kind, {"error": outcome.error}))
    return replace(outcome.write, events=events)


WITHDRAW = "update approvals set state = 'cancelled', decided_at = now() where run_id = $1 and state = 'pending'"

# What was under way may have taken effect, or not. A call that never began stays as it was proposed.
CLOSE_CALLS = """
update tool_calls set state = 'unknown', error = 'the run ended while this call was under way', finished_at = now()
where run_id = $1 and state = 'started'
"""


async def _pass_the_turn(connection: Connection, ended: Ended) -> bool:
    """Hand `ready` to the conversation's next run, and give messages that came too late a run of their own."""
    due = False
    if ended.open_runs and ended.was_ready:
        due = await hand_on(connection, ended.conversation_id) is not None
    if ended.has_steers:
        follow_up = NewRun(
            ended.conversation_id,
            ended.workspace_id,
            ended.principal_id,
            task_id=ended.task_id,
            detached=ended.detached,
        )
        inserted = await insert(connection, follow_up, behind=ended.open_runs)
        ended.events.extend(inserted.events)
        await connection.execute(MOVE_STEERS, ended.run_id, follow_up.id)
        due = due or inserted.ready
    return due


MOVE_STEERS = (
    "update inputs set run_id = $2, kind = 'prompt' where run_id = $1 and kind = 'steer' and consumed_seq is null"
)

NOTHING_NEW = "the run found nothing new"
MAX_CAUSE = 300  # Characters of the last error in the reason of a pause.

COUNT = """
update tasks set consecutive_failures = consecutive_failures + 1, enabled = enabled and $2::text is null,
    paused_reason = coalesce($2, paused_reason)
where id = $1
"""


# Two failures at once must not both, or neither, be the one that pauses: the count is read under the task's lock.
LOCK_RUN = "select from runs where id = $1 for no key update"
LOCK_TASK = "select consecutive_failures, enabled from tasks where id = $1 for no key update"


async def _why_paused(connection: Connection, run_id: UUID, about: Row, outcome: Outcome) -> str | None:
    """Why this end pauses its task, if it does."""
    limit = about["auto_pause_after"]
    if not limit or outcome.state is not RunState.FAILED:
        return None
    await connection.execute(LOCK_RUN, run_id)
    task = await connection.fetchrow(LOCK_TASK, about["task_id"])
    if task is None or not task["enabled"] or task["consecutive_failures"] + 1 < limit:
        return None
    failures = f"{limit} failures in a row" if limit > 1 else "a failure"
    cause = outcome.error["message"] if outcome.error else "unknown"
    return f"paused after {failures}; the last: {cause[:MAX_CAUSE]}"


async def announce(
    connection: Connection,
    settings: Settings,
    about: Row,
    event: StoredEvent,
    *,
    text: str,
    error: str | None = None,
    quiet: str | None = None,
    recovered: bool = False,
    asked: Sequence[Json] = (),
) -> bool:
    """Plan the deliveries of an event; whether there are any to send.

    Needs the `engine_tx()` that appends the event.

    Args:
        connection: Of that transaction.
        settings: For links and the default Slack webhook.
        about: The run's row of `LOCK`.
        event: What happened.
        text: What is told, as Markdown.
        error: What went wrong.
        quiet: Why nobody is told, if so.
        recovered: Whether it is the task's first success after failures.
        asked: The questions of a run that waits: see `Notice`.
    """
    default_slack = settings.slack_webhook_url is not None
    config = _readable(about, partial(_config, about, default_slack=default_slack))
    if config is None:
        return False
    notice = Notice(
        event=event.type,
        workspace_id=about["workspace_id"],
        conversation_id=event.conversation_id,
        run_id=event.run_id,
        task_id=about["task_id"],
        event_seq=event.seq,
        title=about["task_title"] or about["conversation_title"],
        base_url=settings.base_url,
        text=text,
        error=error,
        agent=about["agent"],
        model=about["model"] or "",
        finished_at=event.at,
        quiet=quiet,
        recovered=recovered,
        asked=tuple(asked),
        thread=about["notification"] and about["notification"].get("thread"),
    )
    planned = plan(notice, config, default_slack=default_slack)
    await insert_deliveries(connection, notice, planned)
    return any(delivery.state == "pending" for delivery in planned)


# What a run did on its way is told by whoever executes it: the same events again make no second row.
STEPS = """
select e.seq, e.type, e.at, e.payload from events e
where e.run_id = $1 and e.type = any($2::text[]) and e.seq > $3 order by e.seq
"""
STEP_EVENTS = {
    "started": EventType.RUN_STARTED,
    "progress": EventType.RUN_PROGRESS,
    "recovered": EventType.RUN_RECOVERED,
}
SAID = {
    EventType.RUN_STARTED: "The run has begun.",
    EventType.RUN_RECOVERED: "The process that executed the run was lost; the run goes on from its last step.",
}


async def announce_steps(
    connection: Connection, settings: Settings, run_id: UUID, conversation_id: UUID, *, after: int = 0
) -> bool:
    """Plan the deliveries of a run's start, progress and recoveries that its task asks for; whether there are any.

    Needs an `engine_tx()`.

    Args:
        connection: Of that transaction.
        settings: For links and the default Slack webhook.
        run_id: The run.
        conversation_id: Its conversation.
        after: Only events after this number.
    """
    about = await connection.fetchrow(ABOUT, [conversation_id], [run_id])
    config = _readable(about, partial(NotificationConfig.from_stored, about["notification_config"])) if about else None
    wanted = [str(kind) for name, kind in STEP_EVENTS.items() if config and name in config.on]
    if about is None or not wanted:
        return False
    planned = False
    for row in await connection.fetch(STEPS, run_id, wanted, after):
        event = StoredEvent(row["seq"], EventType(row["type"]), run_id, conversation_id, row["at"], row["payload"])
        planned |= await announce(connection, settings, about, event, text=SAID.get(event.type) or _progress(event))
    return planned


def _progress(event: StoredEvent) -> str:
    done, total = event.fields.get("done"), event.fields.get("total")
    return f"{event.fields.get('text', '')}{f' ({done} of {total})' if done is not None and total else ''}"


def _readable(about: Row, read: Callable[[], NotificationConfig | None]) -> NotificationConfig | None:
    """A stored config; None of one that can't be read: a run must be able to end whatever is kept for it."""
    try:
        return read()
    except Exception:
        log.exception("notifications.unreadable", run_id=str(about["id"]), task_id=str(about["task_id"]))
        return None


def _config(about: Row, *, default_slack: bool) -> NotificationConfig | None:
    """Where the message that it answers came from; else the task's rules; a turn sent to the background tells its sender."""
    if about["notification"]:
        return NotificationConfig.from_stored(about["notification"]["config"])
    if about["task_id"]:
        return NotificationConfig.from_stored(about["notification_config"])
    channels = [*(["email"] if about["email"] else []), *(["slack"] if default_slack else [])]
    if not about["detached"] or not channels:
        return None
    return NotificationConfig.model_validate({"channels": channels, "email_address": about["email"]})
