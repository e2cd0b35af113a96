"""The one statement that makes runs terminal. Only `app.settle` calls it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db import Connection, Row
from app.events import NewEvent, StoredEvent, stored
from app.messages import Json
from app.runs.states import RunState, sources
from app.runs.write import ADD_ROWS, Fenced, Write, parameters

# Invariant: one outcome. The UPDATE is guarded by the from-states, and for the executor by fence and write number;
# zero rows means somebody else was first. The caller holds the head's lock.
END = (
    """
with w as materialized (
    select * from json_to_recordset($1::json) as w(
        run_id uuid, conversation_id uuid, fence bigint, write_no bigint, n_messages int, n_events int,
        requests bigint, input_tokens bigint, output_tokens bigint, cost_usd numeric, cost_unknown bool, model text,
        state text, was text[], result text, output json, error json, unchanged bool)
), l as materialized (
    select r.id, r.ready, r.state from runs r join w on w.run_id = r.id order by r.id for no key update of r
), r as (
    update runs set state = w.state, finished_at = now(), ready = false, owner = null, lease_until = null,
        reason = null, waits = 0, result = w.result, output = w.output, error = w.error,
        unchanged = w.unchanged,
        write_no = runs.write_no + 1,
        ran_seconds = runs.ran_seconds
            + case when l.state = 'running' then extract(epoch from now() - runs.claimed_at) else 0 end,
        requests = runs.requests + w.requests, input_tokens = runs.input_tokens + w.input_tokens,
        output_tokens = runs.output_tokens + w.output_tokens, cost_usd = runs.cost_usd + w.cost_usd,
        cost_unknown = runs.cost_unknown or w.cost_unknown, model = coalesce(w.model, runs.model)
    from w join l on l.id = w.run_id
    where runs.id = w.run_id and runs.state = any(w.was)
        and (w.fence is null or (runs.fence = w.fence and runs.write_no = w.write_no))
    returning runs.id, runs.fence, runs.state, runs.task_id, runs.parent_run_id, runs.detached, runs.principal_id,
        runs.model, l.ready as was_ready, l.state as was
), t as (
    update tasks set consecutive_failures = 0 from r
    where tasks.id = r.task_id and r.state = 'completed' and tasks.consecutive_failures > 0
    returning tasks.id as task_id
), hu as (
    update heads set open_runs = heads.open_runs - 1,
        active_run_id = case when heads.active_run_id = r.id then null else heads.active_run_id end,
        state = case when heads.open_runs = 1 then 'idle'
            when heads.active_run_id = r.id or (r.was = 'waiting' and r.was_ready) then 'queued' else heads.state end,
        message_seq = heads.message_seq + w.n_messages, event_seq = heads.event_seq + w.n_events,
        requests = heads.requests + w.requests, input_tokens = heads.input_tokens + w.input_tokens,
        output_tokens = heads.output_tokens + w.output_tokens, cost_usd = heads.cost_usd + w.cost_usd,
        updated_at = now()
    from r join w on w.run_id = r.id where heads.conversation_id = w.conversation_id
    returning heads.conversation_id, heads.workspace_id, heads.open_runs, r.id as run_id, r.fence,
        heads.message_seq - w.n_messages as m0, heads.event_seq - w.n_events as e0
)"""
    + ADD_ROWS
    + """
select r.id, hu.conversation_id, hu.m0, hu.e0, hu.open_runs, hu.workspace_id, now() as at, r.was_ready, r.was, r.task_id, r.detached, r.principal_id,
    r.model,
    exists (select from inputs i where i.run_id = r.id and i.kind = 'steer' and i.consumed_seq is null) as has_steers,
    r.id in (select min(o.id::text)::uuid from r o join t using (task_id) where o.state = 'completed' group by task_id)
        as recovered,
    exists (select from task_dependencies d where d.depends_on_id = r.task_id) as has_dependents
from hu join r on r.id = hu.run_id
"""
)


@dataclass(frozen=True)
class Ended:
    """The row of a run that has just become terminal."""

    run_id: UUID
    conversation_id: UUID
    workspace_id: UUID
    events: list[StoredEvent]
    open_runs: int
    was_ready: bool
    was_waiting: bool
    has_steers: bool
    has_dependents: bool
    recovered: bool
    detached: bool
    task_id: UUID | None
    principal_id: UUID | None
    model: str | None


@dataclass(frozen=True)
class Ending:
    """A run that shall end.

    Attributes:
        who: The executor that ends its own run; None for cancel, expiry, deadline and crash cap.
        state: The terminal state.
        write: Its last messages, calls and events; the terminal event is the last of them.
        result: The result's text.
        output: The structured output.
        error: The error, for failed and cancelled runs.
        unchanged: Whether it found nothing new.
    """

    run_id: UUID
    conversation_id: UUID
    who: Fenced | None
    state: RunState
    write: Write
    result: str | None
    output: Any
    error: Json | None
    unchanged: bool = False

    @property
    def fenced(self) -> Fenced:
        """Who writes, as far as that is known."""
        return self.who or Fenced(self.run_id, self.conversation_id, 0, 0)


async def end(connection: Connection, endings: Sequence[Ending]) -> dict[UUID, Ended]:
    """Make runs terminal, with their last messages and events, and start their tasks' counts of failures anew.

    Needs an `engine_tx()` that holds the locks of the conversations' heads.

    Args:
        connection: Of that transaction.
        endings: Of runs of different conversations.

    Returns:
        By run; those that were terminal already, or are held by another claim, are left out.
    """
    heads, *rest = parameters([(each.fenced, each.write) for each in endings])
    records = [{**head, **_outcome(each)} for head, each in zip(heads, endings, strict=True)]
    rows = await connection.fetch(END, records, *rest)
    events = {each.run_id: each.write.events for each in endings}
    return {row["id"]: _ended(row, events[row["id"]]) for row in rows}


def _outcome(ending: Ending) -> Json:
    return {
        "state": str(ending.state),
        "was": ["running"] if ending.who else sources(ending.state),
        "result": ending.result,
        "output": ending.output,
        "error": ending.error,
        "unchanged": ending.unchanged,
        **({} if ending.who else {"fence": None}),
    }


def _ended(row: Row, events: list[NewEvent]) -> Ended:
    run_id, conversation_id = row["id"], row["conversation_id"]
    return Ended(
        run_id=run_id,
        conversation_id=conversation_id,
        workspace_id=row["workspace_id"],
        events=stored(events, run_id=run_id, conversation_id=conversation_id, first=row["e0"] + 1, at=row["at"]),
        open_runs=row["open_runs"],
        was_ready=row["was_ready"],
        was_waiting=row["was"] == "waiting",
        has_steers=row["has_steers"],
        has_dependents=row["has_dependents"],
        recovered=row["recovered"],
        detached=row["detached"],
        task_id=row["task_id"],
        principal_id=row["principal_id"],
        model=row["model"],
    )
