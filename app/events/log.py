"""The permanent event log: its types, how entries are appended, and replay from a cursor.

Numbers come from the conversation's head row, taken under lock by the writing statement: commit order is
number order, and the numbers have no gaps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.db import Connection, Database, Row, dump_json
from app.messages import Json


class EventType(StrEnum):
    """Every durable event. The value is its SSE `event:` name."""

    RUN_QUEUED = "run.queued"
    RUN_STARTED = "run.started"
    MESSAGE_CREATED = "message.created"
    MESSAGE_QUEUED = "message.queued"
    MESSAGE_COMPLETED = "message.completed"
    TOOL_STARTED = "tool.started"
    TOOL_COMPLETED = "tool.completed"
    TOOL_FAILED = "tool.failed"
    ARTIFACT_CREATED = "artifact.created"
    STATE_PROPOSED = "state.proposed"
    RUN_PROGRESS = "run.progress"
    PLAN_UPDATED = "plan.updated"
    SOURCE_ADDED = "source.added"
    USAGE = "usage"
    APPROVAL_REQUIRED = "approval.required"
    APPROVAL_DECIDED = "approval.decided"
    RUN_WAITING = "run.waiting"
    RUN_RETRYING = "run.retrying"
    RUN_RECOVERED = "run.recovered"
    RUN_DETACHED = "run.detached"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    TASK_AUTO_PAUSED = "task.auto_paused"


TERMINAL = frozenset({EventType.RUN_COMPLETED, EventType.RUN_FAILED, EventType.RUN_CANCELLED})

# Never stored: sent without an id, so that a reader's cursor stays on the last durable event.
EPHEMERAL = frozenset({"text.delta", "thinking.delta", "text.snapshot", "tool.progress", "stream.reset"})


@dataclass(frozen=True)
class NewEvent:
    """An event about to be appended.

    Attributes:
        type: What happened.
        payload: Its own fields, without those that are joined on replay.
        message: Index, within the same write, of the message the event refers to; its number comes with the write.
        ref: Number of an older message it refers to.
        call_index: Index of the tool call in that message.
        shown: Fields for live readers that replay takes from the referenced row.
    """

    type: EventType
    payload: Json = field(default_factory=dict[str, Any])
    message: int | None = None
    ref: int | None = None
    call_index: int | None = None
    shown: Json = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class StoredEvent:
    """An event of the log, whole: as live readers and replay both see it."""

    seq: int
    type: EventType
    run_id: UUID
    conversation_id: UUID
    at: datetime
    fields: Json

    @property
    def data(self) -> Json:
        """The event's `data:` object."""
        return {
            "seq": self.seq,
            "run_id": str(self.run_id),
            "conversation_id": str(self.conversation_id),
            "at": self.at.isoformat().replace("+00:00", "Z"),
            **self.fields,
        }

    @property
    def is_terminal(self) -> bool:
        """Whether its run ended with it."""
        return self.type in TERMINAL


def stored(
    events: Iterable[NewEvent], *, run_id: UUID, conversation_id: UUID, first: int, at: datetime
) -> list[StoredEvent]:
    """What a write that numbered its events from `first` has stored, for publishing after the commit."""
    return [
        StoredEvent(first + index, event.type, run_id, conversation_id, at, {**event.payload, **event.shown})
        for index, event in enumerate(events)
    ]


def rows_of(events: Iterable[NewEvent]) -> list[Json]:
    """Events as the records that the writing statements read by `json_to_recordset`."""
    return [
        {
            "i": index,
            "type": str(event.type),
            "payload": event.payload,
            "m": event.message,
            "ref": event.ref,
            "call_index": event.call_index,
        }
        for index, event in enumerate(events, start=1)
    ]


# The head is moved and the entries inserted in one statement: no gap, whatever commits beside it.
APPEND = """
with h as (
    update heads set event_seq = event_seq + $3 where conversation_id = $1
    returning workspace_id, event_seq - $3 as before
)
insert into events (conversation_id, seq, workspace_id, run_id, type, ref, call_index, payload)
select $1, h.before + x.i, h.workspace_id, $2, x.type, x.ref, x.call_index, x.payload
from h, json_to_recordset($4::json) as x(i int, type text, ref bigint, call_index bigint, payload json)
returning seq, at
"""


async def append(
    connection: Connection, conversation_id: UUID, run_id: UUID, events: list[NewEvent]
) -> list[StoredEvent]:
    """Append events to a conversation's log.

    Needs an `engine_tx()` that holds the head's lock already, or takes it here for the first time.
    """
    if not events:
        return []
    rows = await connection.fetch(APPEND, conversation_id, run_id, len(events), rows_of(events))
    first = min(row["seq"] for row in rows)
    return stored(events, run_id=run_id, conversation_id=conversation_id, first=first, at=rows[0]["at"])


# Message, tool and result texts live once, in their own rows; replay joins them.
REPLAY = """
select e.seq, e.type, e.run_id, e.conversation_id, e.at, e.payload, e.ref,
    m.role, m.text, m.interrupted,
    t.tool_call_id, t.tool, t.arguments, t.result as tool_result, t.error as tool_error, t.duration_ms,
    r.result, r.output
from events e
left join messages m on m.conversation_id = e.conversation_id and m.seq = e.ref and e.type like 'message.%'
left join tool_calls t on t.conversation_id = e.conversation_id and t.message_seq = e.ref
    and t.call_index = e.call_index and t.sub_index = coalesce((e.payload->>'sub_index')::bigint, 0)
    and e.type like 'tool.%'
left join runs r on r.id = e.run_id and e.type = 'run.completed'
where e.conversation_id = $1 and e.seq > $2
order by e.seq limit $3
"""

REPLAY_RUN = REPLAY.replace("order by", "and e.run_id = $4 order by")


async def replay(
    database: Database, conversation_id: UUID, after: int, *, limit: int = 500, run_id: UUID | None = None
) -> list[StoredEvent]:
    """The next events after a number, oldest first; at most `limit`, of one run alone when it is named."""
    if run_id is None:
        rows = await database.fetch(REPLAY, conversation_id, after, limit)
    else:
        rows = await database.fetch(REPLAY_RUN, conversation_id, after, limit, run_id)
    return [read(row) for row in rows]


def read(row: Row) -> StoredEvent:
    """A replayed row as the event it is."""
    kind = EventType(row["type"])
    fields = {**row["payload"], **_joined(kind, row)}
    return StoredEvent(row["seq"], kind, row["run_id"], row["conversation_id"], row["at"], fields)


def _joined(kind: EventType, row: Row) -> Json:
    match kind:
        case EventType.MESSAGE_CREATED:
            return {"message_seq": row["ref"], "role": row["role"], "text": row["text"]}
        case EventType.MESSAGE_COMPLETED:
            return {
                "message_seq": row["ref"],
                "role": row["role"],
                "text": row["text"],
                "interrupted": row["interrupted"],
            }
        case EventType.TOOL_STARTED:
            return _call(row) | {"arguments": row["arguments"]}
        case EventType.TOOL_COMPLETED:
            return _call(row) | {"result": row["tool_result"], "duration_ms": row["duration_ms"]}
        case EventType.TOOL_FAILED:
            return _call(row) | {"error": row["tool_error"]}
        case EventType.RUN_COMPLETED:
            return {"result": row["result"], "output": row["output"]}
        case _:
            return {}


def _call(row: Row) -> Json:
    return {"tool_call_id": row["tool_call_id"], "tool": row["tool"]}


def encode(event: StoredEvent) -> Json:
    """An event as it travels to live readers."""
    return {
        "seq": event.seq,
        "type": str(event.type),
        "run_id": str(event.run_id),
        "conversation_id": str(event.conversation_id),
        "at": event.at.isoformat(),
        "fields": event.fields,
    }


def decode(record: Json) -> StoredEvent:
    """The event of a travelled record."""
    return StoredEvent(
        seq=record["seq"],
        type=EventType(record["type"]),
        run_id=UUID(record["run_id"]),
        conversation_id=UUID(record["conversation_id"]),
        at=datetime.fromisoformat(record["at"]),
        fields=record["fields"],
    )


def dump_data(data: Json) -> str:
    """An event's data on one line."""
    return dump_json(data)
