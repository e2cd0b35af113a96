"""The one statement that makes a run terminal. Only `app.settle` calls it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db import Connection
from app.errors import LeaseLost
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
        requests bigint, input_tokens bigint, output_tokens bigint, cost_usd numeric, cost_unknown bool, model text)
), l as materialized (
    select r.id, r.ready, r.state from runs r join w on w.run_id = r.id for no key update of r
), r as (
    update runs set state = $6, finished_at = now(), ready = false, owner = null, lease_until = null, reason = null,
        waits = 0, result = $7, output = $8, error = $9, write_no = runs.write_no + 1,
        ran_seconds = runs.ran_seconds
            + case when l.state = 'running' then extract(epoch from now() - runs.claimed_at) else 0 end,
        requests = runs.requests + w.requests, input_tokens = runs.input_tokens + w.input_tokens,
        output_tokens = runs.output_tokens + w.output_tokens, cost_usd = runs.cost_usd + w.cost_usd,
        cost_unknown = runs.cost_unknown or w.cost_unknown, model = coalesce(w.model, runs.model)
    from w join l on l.id = w.run_id
    where runs.id = w.run_id and runs.state = any($10::text[])
        and (w.fence is null or (runs.fence = w.fence and runs.write_no = w.write_no))
    returning runs.*, l.ready as was_ready, l.state as was
), hu as (
    update heads set open_runs = heads.open_runs - 1,
        active_run_id = case when heads.active_run_id = r.id then null else heads.active_run_id end,
        state = case when heads.open_runs = 1 then 'idle'
            when heads.active_run_id = r.id or r.was = 'waiting' then 'queued' else heads.state end,
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
select hu.m0, hu.e0, hu.open_runs, hu.workspace_id, now() as at, r.was_ready, r.was, r.task_id, r.parent_run_id, r.detached,
    r.principal_id, r.model,
    exists (select from inputs i where i.run_id = r.id and i.kind = 'steer' and i.consumed_seq is null) as has_steers
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
    detached: bool
    task_id: UUID | None
    principal_id: UUID | None
    model: str | None


async def end(
    connection: Connection,
    who: Fenced | None,
    run_id: UUID,
    conversation_id: UUID,
    state: RunState,
    write: Write,
    *,
    result: str | None,
    output: Any,
    error: Json | None,
) -> Ended | None:
    """Make a run terminal, with its last messages and events.

    Needs an `engine_tx()` that holds the lock of the conversation's head.

    Args:
        connection: Of that transaction.
        who: The executor that ends its own run; None for cancel, expiry, deadline and crash cap.
        run_id: The run.
        conversation_id: Its conversation.
        state: The terminal state.
        write: Its last messages, calls and events; the terminal event is the last of them.
        result: The result's text.
        output: The structured output.
        error: The error, for failed and cancelled runs.

    Returns:
        None when the run was terminal already.

    Raises:
        LeaseLost: when `who` does not hold the run any more.
    """
    fenced = who or Fenced(run_id, conversation_id, 0, 0)
    heads, *rest = parameters([(fenced, write)])
    if who is None:
        heads[0]["fence"] = None
    before = ["running"] if who else sources(state)
    row = await connection.fetchrow(END, heads, *rest, state, result, output, error, before)
    if row is None and who:
        raise LeaseLost
    return _ended(run_id, conversation_id, write.events, row) if row else None


def _ended(run_id: UUID, conversation_id: UUID, events: list[NewEvent], row: Any) -> Ended:
    return Ended(
        run_id=run_id,
        conversation_id=conversation_id,
        workspace_id=row["workspace_id"],
        events=stored(events, run_id=run_id, conversation_id=conversation_id, first=row["e0"] + 1, at=row["at"]),
        open_runs=row["open_runs"],
        was_ready=row["was_ready"],
        was_waiting=row["was"] == "waiting",
        has_steers=row["has_steers"],
        detached=row["detached"],
        task_id=row["task_id"],
        principal_id=row["principal_id"],
        model=row["model"],
    )
