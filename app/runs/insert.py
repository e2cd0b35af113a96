"""A new run and its input, inserted under the conversation's locked head."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import Connection
from app.events import EventType, NewEvent, StoredEvent, rows_of, stored
from app.messages import FORMAT, Json
from app.models import new_id
from app.queue import LANE
from app.runs.breakers import Breaker, waiting_for


@dataclass(frozen=True)
class NewInput:
    """An accepted message: what was said, and the message body the run will write.

    Attributes:
        body: `{"role", "text", "message"}`; `message` is the stored body.
        kind: prompt, answer or event.
        source: Where it came from, with `source_id` unique in it, so that a repeated mail or click counts once.
    """

    body: Json
    kind: str = "prompt"
    source: str | None = None
    source_id: str | None = None


@dataclass(frozen=True)
class NewRun:
    """A run about to be accepted; its ids are made by the caller, so that a try can be repeated.

    Attributes:
        waits: How many tasks it depends on: with any, it is born waiting.
        notification: Who is told of it instead of whom its task names: `config`, and the `thread` that is answered.
    """

    conversation_id: UUID
    workspace_id: UUID
    principal_id: UUID | None
    input: NewInput | None = None
    id: UUID = field(default_factory=new_id)
    task_id: UUID | None = None
    fire_id: UUID | None = None
    retry_of: UUID | None = None
    priority: int = 0
    run_at: datetime | None = None
    queue_timeout_seconds: float | None = None
    deadline_at: datetime | None = None
    timeout_seconds: float | None = None
    retry: Json | None = None
    output_schema: Json | None = None
    pins: Json | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    waits: int = 0
    notification: Json | None = None
    agent_version: int | None = None
    detached: bool = False
    lane: str = LANE
    shut: tuple[Breaker, ...] = ()


@dataclass(frozen=True)
class Inline:
    """The claim with which an inline turn is born: it runs in the process that took the message."""

    owner: str
    lease_seconds: float


@dataclass(frozen=True)
class InsertedRun:
    """What was inserted."""

    ready: bool
    running: bool
    events: list[StoredEvent]


# Invariant: ready is decided from the head this statement's transaction holds locked (1 open run after the raise
# means ready), never from `runs`. An inline run's message is written here: it is next in line by then.
INSERT = """
with head as (
    update heads set open_runs = open_runs + 1, run_no = run_no + 1, event_seq = event_seq + $3,
        message_seq = message_seq + $4, updated_at = now(),
        state = case when $5 then 'running' when state <> 'idle' then state
            when $11::json->>'waits' <> '0' then 'waiting' else 'queued' end,
        active_run_id = case when $5 then $2 else active_run_id end
    where conversation_id = $1
    returning workspace_id, run_no, open_runs = 1 as ready, event_seq - $3 as e0, message_seq - $4 as m0
), input as (
    insert into inputs (id, workspace_id, conversation_id, run_id, kind, body, principal_id, source, source_id,
        consumed_seq)
    select i.id, head.workspace_id, $1, $2, i.kind, i.body, $6, i.source, i.source_id,
        case when $5 then head.m0 + 1 end
    from head, json_to_recordset($7::json) as i(id uuid, kind text, body json, source text, source_id text)
    returning body
), message as (
    insert into messages (conversation_id, seq, workspace_id, run_id, fence, role, text, body, format)
    select $1, head.m0 + 1, head.workspace_id, $2, 1, input.body->>'role', input.body->>'text',
        input.body->'message', $8
    from head, input where $5
), served as (
    select coalesce(c.agent_version, a.published_version) as version
    from conversations c join agents a on a.id = c.agent_id where c.id = $1 and $5
), run as (
    insert into runs (id, workspace_id, conversation_id, number, root_run_id, retry_of, task_id, fire_id, state, ready,
        waits, notification, lane, priority, run_at, queue_deadline, deadline_at, timeout_seconds, retry, output_schema,
        pins, agent_version, principal_id, detached, concurrency_key, concurrency_limit, breakers,
        fence, owner, lease_until, claimed_at, started_at)
    select $2, head.workspace_id, $1, head.run_no, $2, x.retry_of, x.task_id, x.fire_id,
        case when $5 then 'running' when x.waits > 0 then 'waiting' else 'queued' end, head.ready,
        x.waits, x.notification, x.lane, x.priority,
        coalesce(x.run_at, now() + case when x.breakers is null then interval '0' else interval '1 hour' end),
        now() + make_interval(secs => x.queue_timeout_seconds), x.deadline_at, x.timeout_seconds, x.retry,
        x.output_schema, x.pins, coalesce(x.agent_version, served.version), $6, x.detached,
        x.concurrency_key, x.concurrency_limit, x.breakers,
        case when $5 then 1 else 0 end, case when $5 then $9 end,
        case when $5 then now() + make_interval(secs => $10) end, case when $5 then now() end,
        case when $5 then now() end
    from head, json_to_record($11::json) as x(retry_of uuid, task_id uuid, fire_id uuid, waits bigint, notification json,
        lane text, priority bigint,
        run_at timestamptz, queue_timeout_seconds float, deadline_at timestamptz, timeout_seconds float, retry json,
        output_schema json, pins json, agent_version bigint, detached bool,
        concurrency_key text, concurrency_limit bigint, breakers text[])
    left join served on true
), event as (
    insert into events (conversation_id, seq, workspace_id, run_id, type, ref, payload)
    select $1, head.e0 + e.i, head.workspace_id, $2, e.type, head.m0 + e.m, e.payload
    from head, json_to_recordset($12::json) as e(i int, type text, m int, payload json)
)
select ready, e0, m0, now() as at from head
"""


async def insert(connection: Connection, run: NewRun, *, inline: Inline | None = None, behind: int = 0) -> InsertedRun:
    """Insert a run with its input and first events.

    Needs an `engine_tx()` that holds the lock of the conversation's head.

    Args:
        connection: Of that transaction.
        run: The run.
        inline: Makes it running at once, claimed by this process; only for a run that is next in line.
        behind: Open runs before it, for the event.
    """
    events = first_events(run, inline, behind)
    row = await connection.fetchrow(
        INSERT,
        run.conversation_id,
        run.id,
        len(events),
        1 if inline and run.input else 0,
        inline is not None,
        run.principal_id,
        _inputs(run),
        FORMAT,
        inline.owner if inline else None,
        inline.lease_seconds if inline else 0.0,
        columns_of(run),
        [{**event, "m": 1 if event["m"] is not None else None} for event in rows_of(events)],
    )
    assert row is not None, "the head exists and is locked"
    for event in events:
        if event.message is not None:
            event.shown["message_seq"] = row["m0"] + 1
    first = row["e0"] + 1
    return InsertedRun(
        ready=row["ready"],
        running=inline is not None,
        events=stored(events, run_id=run.id, conversation_id=run.conversation_id, first=first, at=row["at"]),
    )


def first_events(run: NewRun, inline: Inline | None, behind: int) -> list[NewEvent]:
    """What a run's log begins with."""
    said = {"role": run.input.body["role"], "text": run.input.body["text"]} if run.input else {}
    if inline:
        started = NewEvent(EventType.RUN_STARTED, {"attempt": 1, "fence": 1})
        return [started, *([NewEvent(EventType.MESSAGE_CREATED, message=0, shown=said)] if run.input else [])]
    why = waiting_for(run.shut) if run.shut else {"run_at": run.run_at.isoformat()} if run.run_at else {}
    queued = (
        NewEvent(EventType.RUN_WAITING, {"waiting_for": ["dependency"]})
        if run.waits
        else NewEvent(EventType.RUN_QUEUED, why)
    )
    waiting = run.input is not None and behind > 0
    return [*([NewEvent(EventType.MESSAGE_QUEUED, {**said, "behind": behind})] if waiting else []), queued]


def _inputs(run: NewRun) -> list[Json]:
    if run.input is None:
        return []
    new = run.input
    return [{"id": str(new_id()), "kind": new.kind, "body": new.body, "source": new.source, "source_id": new.source_id}]


def columns_of(run: NewRun) -> dict[str, Any]:
    """What the caller says about a run, as a record of the inserting statement."""
    return {
        "retry_of": run.retry_of,
        "task_id": run.task_id,
        "fire_id": run.fire_id,
        "waits": run.waits,
        "notification": run.notification,
        "lane": run.lane,
        "priority": run.priority,
        "run_at": run.run_at,
        "queue_timeout_seconds": run.queue_timeout_seconds,
        "deadline_at": run.deadline_at,
        "timeout_seconds": run.timeout_seconds,
        "retry": run.retry,
        "output_schema": run.output_schema,
        "pins": run.pins,
        "agent_version": run.agent_version,
        "detached": run.detached,
        "concurrency_key": run.concurrency_key,
        "concurrency_limit": run.concurrency_limit,
        "breakers": [each.key for each in run.shut] or None,
    }


STEER = """
insert into inputs (id, workspace_id, conversation_id, run_id, kind, body, principal_id, source, source_id)
values ($1, $2, $3, $4, 'steer', $5, $6, $7, $8)
"""


async def steer(connection: Connection, run: NewRun, run_id: UUID) -> None:
    """Leave an input for a run that is under way; it is injected at the next step boundary.

    The input takes the id its own run would have had.

    Needs an `engine_tx()` that holds the lock of the conversation's head.
    """
    assert run.input is not None
    await connection.execute(
        STEER,
        run.id,
        run.workspace_id,
        run.conversation_id,
        run_id,
        run.input.body,
        run.principal_id,
        run.input.source,
        run.input.source_id,
    )
