"""The fenced write: messages, tool calls, events and usage of a running run, in one statement.

A per-process coalescer (`Checkpoints`) puts the writes of many runs that come together into one statement and
one commit; every row is still fenced by itself, and a batch that fails is replayed one by one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from app.coalesce import Coalescer
from app.db import Database, Row
from app.errors import DatabaseUnavailable, LeaseLost
from app.events import NewEvent, rows_of
from app.messages import FORMAT, Json
from app.models import new_id

T = TypeVar("T")

RETRY_SECONDS = (0.1, 0.3, 1.0, 2.0, 3.0)  # A write whose commit is unknown is tried again for about a lease.


@dataclass(frozen=True)
class Usage:
    """What a model response cost; `cost_usd` is None when the price is unknown."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = Decimal(0)

    @property
    def cost_unknown(self) -> bool:
        """Whether the price is unknown."""
        return self.cost_usd is None


@dataclass(frozen=True)
class NewMessage:
    """A message about to be appended."""

    role: str
    text: str
    body: Json
    interrupted: bool = False
    model: str | None = None
    usage: Usage = Usage()


@dataclass(frozen=True)
class CallRecord:
    """The ledger row of a tool call, inserted or moved on.

    Attributes:
        message: Index, within the same write, of the response that asked for it; None when `message_seq` is given.
        message_seq: Number of the response that asked for it.
        call_index: Index of the call in that response.
        sub_index: 0, or from 1 on the number of a call that the code of that call made.
        artifact_id: The last file it kept; where its result was cut for the history, the whole of it.
        cost_usd: What it cost, once it has ended; None while that is not known.
    """

    tool_call_id: str
    tool: str
    arguments: Any
    args_sha256: str
    state: str
    idempotent: bool
    risk: str
    call_index: int
    message: int | None = None
    message_seq: int | None = None
    tool_version: int | None = None
    sub_index: int = 0
    result: Any = None
    artifact_id: UUID | None = None
    error: str | None = None
    duration_ms: float | None = None
    cost_usd: Decimal | None = None


@dataclass
class Write:
    """What one commit adds to a run.

    Attributes:
        messages: Appended in order.
        calls: Ledger rows inserted or moved on.
        events: Appended in order; `NewEvent.message` counts `messages`.
        usage: Added to the run's and the conversation's totals.
        consumed: Input id -> index of the message that holds it.
        model: The model that answers this run.
        pins: The versions that this run keeps to from now on, unless it has some.
    """

    messages: list[NewMessage] = field(default_factory=list[NewMessage])
    calls: list[CallRecord] = field(default_factory=list[CallRecord])
    events: list[NewEvent] = field(default_factory=list[NewEvent])
    usage: Usage = Usage()
    consumed: dict[UUID, int] = field(default_factory=dict[UUID, int])
    model: str | None = None
    pins: Json | None = None


@dataclass(frozen=True)
class Fenced:
    """Who writes: the run, the claim that speaks, and the number its next write has."""

    run_id: UUID
    conversation_id: UUID
    fence: int
    write_no: int


@dataclass(frozen=True)
class Written:
    """What a write was given: the numbers before its first message and event, and the time of its commit.

    `event_seq` is None when an earlier try had landed: its events are in the log, but their numbers are not known here.
    """

    message_seq: int
    event_seq: int | None
    at: datetime
    steers: list[Json]


# Invariant (G3): heads are locked first, then runs, both in id order; the fence is tested on the locked run row,
# and the head is advanced only where it held. Whoever lost the lease matches nothing and writes nothing.
LOCK_AND_TEST = """
with w as materialized (
    select * from json_to_recordset($1::json) as w(
        run_id uuid, conversation_id uuid, fence bigint, write_no bigint, n_messages int, n_events int,
        requests bigint, input_tokens bigint, output_tokens bigint, cost_usd numeric, cost_unknown bool, model text,
        pins json)
), h as materialized (
    select h.conversation_id from heads h join w on w.conversation_id = h.conversation_id
    order by h.conversation_id for no key update of h
), l as materialized (
    select r.id, r.ready, r.state from runs r join w on w.run_id = r.id
    where (select count(*) from h) > 0
    order by r.id for no key update of r
)"""

# What the statement adds, for every run `hu` names: `m0` and `e0` are the numbers before its first message and event.
ADD_ROWS = """, m as (
    insert into messages (conversation_id, seq, workspace_id, run_id, fence, role, text, body, format, interrupted,
        model, input_tokens, output_tokens, cost_usd)
    select hu.conversation_id, hu.m0 + x.i, hu.workspace_id, hu.run_id, hu.fence, x.role, x.text, x.body, x.format,
        x.interrupted, x.model, x.input_tokens, x.output_tokens, x.cost_usd
    from json_to_recordset($2::json) as x(run_id uuid, i int, role text, text text, body json, format int,
        interrupted bool, model text, input_tokens bigint, output_tokens bigint, cost_usd numeric)
    join hu on hu.run_id = x.run_id
), c as (
    insert into tool_calls (id, workspace_id, conversation_id, message_seq, call_index, sub_index, run_id, tool_call_id,
        tool, tool_version, arguments, args_sha256, state, idempotent, risk, fence, result, artifact_id, error,
        duration_ms, cost_usd, started_at, finished_at)
    select x.id, hu.workspace_id, hu.conversation_id, coalesce(hu.m0 + x.m, x.message_seq), x.call_index, x.sub_index,
        hu.run_id, x.tool_call_id, x.tool, x.tool_version, x.arguments, x.args_sha256, x.state, x.idempotent, x.risk,
        hu.fence, x.result, x.artifact_id, x.error, x.duration_ms, x.cost_usd,
        case when x.state <> 'proposed' then now() end,
        case when x.state not in ('proposed', 'started') then now() end
    from json_to_recordset($3::json) as x(run_id uuid, id uuid, m int, message_seq bigint, call_index bigint,
        sub_index bigint, tool_call_id text, tool text, tool_version bigint, arguments json, args_sha256 text,
        state text, idempotent bool, risk text, result json, artifact_id uuid, error text, duration_ms float,
        cost_usd numeric)
    join hu on hu.run_id = x.run_id
    on conflict (conversation_id, message_seq, call_index, sub_index) do update set
        state = excluded.state, arguments = excluded.arguments, args_sha256 = excluded.args_sha256, fence = excluded.fence, run_id = excluded.run_id, result = excluded.result,
        artifact_id = excluded.artifact_id, error = excluded.error, duration_ms = excluded.duration_ms,
        cost_usd = excluded.cost_usd,
        started_at = coalesce(tool_calls.started_at, excluded.started_at), finished_at = excluded.finished_at
    where tool_calls.state in ('proposed', 'started', 'unknown')
), e as (
    insert into events (conversation_id, seq, workspace_id, run_id, type, ref, call_index, payload)
    select hu.conversation_id, hu.e0 + x.i, hu.workspace_id, hu.run_id, x.type, coalesce(hu.m0 + x.m, x.ref),
        x.call_index, x.payload
    from json_to_recordset($4::json) as x(run_id uuid, i int, type text, payload json, m int, ref bigint,
        call_index bigint)
    join hu on hu.run_id = x.run_id
), n as (
    update inputs set consumed_seq = hu.m0 + x.m
    from json_to_recordset($5::json) as x(run_id uuid, id uuid, m int) join hu on hu.run_id = x.run_id
    where inputs.id = x.id
)"""

CHECKPOINT = (
    LOCK_AND_TEST
    + """, r as (
    update runs set write_no = runs.write_no + 1, requests = runs.requests + w.requests,
        input_tokens = runs.input_tokens + w.input_tokens, output_tokens = runs.output_tokens + w.output_tokens,
        cost_usd = runs.cost_usd + w.cost_usd, cost_unknown = runs.cost_unknown or w.cost_unknown,
        model = coalesce(w.model, runs.model), pins = coalesce(runs.pins, w.pins)
    from w
    where runs.id = w.run_id and (select count(*) from l) > 0
        and runs.fence = w.fence and runs.write_no = w.write_no and runs.state = 'running'
    returning runs.id
), hu as (
    update heads set message_seq = heads.message_seq + w.n_messages, event_seq = heads.event_seq + w.n_events,
        requests = heads.requests + w.requests, input_tokens = heads.input_tokens + w.input_tokens,
        output_tokens = heads.output_tokens + w.output_tokens, cost_usd = heads.cost_usd + w.cost_usd,
        updated_at = now()
    from r join w on w.run_id = r.id where heads.conversation_id = w.conversation_id
    returning heads.conversation_id, heads.workspace_id, r.id as run_id, w.fence,
        heads.message_seq - w.n_messages as m0, heads.event_seq - w.n_events as e0
)"""
    + ADD_ROWS
    + """
select hu.run_id, hu.m0, hu.e0, now() as at,
    (select json_agg(json_build_object('id', i.id, 'body', i.body) order by i.id) from inputs i
     where i.run_id = hu.run_id and i.kind = 'steer' and i.consumed_seq is null) as steers
from hu join r on r.id = hu.run_id
"""
)


def parameters(writes: Sequence[tuple[Fenced, Write]]) -> tuple[list[Json], ...]:
    """The five record lists of a fenced statement."""
    heads: list[Json] = []
    messages: list[Json] = []
    calls: list[Json] = []
    events: list[Json] = []
    inputs: list[Json] = []
    for who, write in writes:
        run_id = str(who.run_id)
        heads.append(_head(who, write))
        messages += [{"run_id": run_id, "i": i, **_message(new)} for i, new in enumerate(write.messages, start=1)]
        calls += [{"run_id": run_id, **_call(call)} for call in write.calls]
        events += [{"run_id": run_id, **row, "m": _one_based(row["m"])} for row in rows_of(write.events)]
        inputs += [{"run_id": run_id, "id": str(key), "m": index + 1} for key, index in write.consumed.items()]
    return heads, messages, calls, events, inputs


def _head(who: Fenced, write: Write) -> Json:
    return {
        "run_id": str(who.run_id),
        "conversation_id": str(who.conversation_id),
        "fence": who.fence,
        "write_no": who.write_no,
        "n_messages": len(write.messages),
        "n_events": len(write.events),
        "requests": write.usage.requests,
        "input_tokens": write.usage.input_tokens,
        "output_tokens": write.usage.output_tokens,
        "cost_usd": str(write.usage.cost_usd or 0),
        "cost_unknown": write.usage.cost_unknown,
        "model": write.model,
        "pins": write.pins,
    }


def _message(new: NewMessage) -> Json:
    return {
        "role": new.role,
        "text": new.text,
        "body": new.body,
        "format": FORMAT,
        "interrupted": new.interrupted,
        "model": new.model,
        "input_tokens": new.usage.input_tokens,
        "output_tokens": new.usage.output_tokens,
        "cost_usd": None if new.usage.cost_usd is None else str(new.usage.cost_usd),
    }


def _call(call: CallRecord) -> Json:
    return {
        "id": str(new_id()),
        "m": _one_based(call.message),
        "message_seq": call.message_seq,
        "call_index": call.call_index,
        "sub_index": call.sub_index,
        "tool_call_id": call.tool_call_id,
        "tool": call.tool,
        "tool_version": call.tool_version,
        "arguments": call.arguments,
        "args_sha256": call.args_sha256,
        "state": call.state,
        "idempotent": call.idempotent,
        "risk": call.risk,
        "result": call.result,
        "artifact_id": str(call.artifact_id) if call.artifact_id else None,
        "error": call.error,
        "duration_ms": call.duration_ms,
        "cost_usd": None if call.cost_usd is None else str(call.cost_usd),
    }


def _one_based(index: int | None) -> int | None:
    return None if index is None else index + 1


def written(row: Row) -> Written:
    """The answer of a fenced statement."""
    return Written(row["m0"], row["e0"], row["at"], row["steers"] or [])


class Checkpoints:
    """The seam behind which the writes of this process's runs are put together."""

    def __init__(self, database: Database) -> None:
        """Write through this database's engine pool."""
        self._database = database
        # At most one write of a run at a time: a frozen process may hold a stale claim beside the fresh one.
        self._seam = Coalescer(self._together, self._alone, key=lambda each: each[0].run_id)

    async def checkpoint(self, who: Fenced, write: Write) -> Written:
        """Commit a write of a running run; returns when it is on disk.

        Raises:
            LeaseLost: when another claim has taken the run over, or it has ended.
            DatabaseUnavailable: when PostgreSQL stays away; whether the write landed is then unknown.
        """
        return await self._seam.do((who, write))

    async def _together(self, writes: list[tuple[Fenced, Write]]) -> dict[Hashable, Written]:
        async with self._database.connection("checkpoint") as connection:
            rows = await connection.fetch(CHECKPOINT, *parameters(writes))
        return {row["run_id"]: written(row) for row in rows}

    async def _alone(self, each: tuple[Fenced, Write]) -> Written:
        return await commit(self._database, *each)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Try work again while PostgreSQL is away, for about a lease; it must recognise a first try that had landed."""
    for pause in (*RETRY_SECONDS, None):
        try:
            return await work()
        except DatabaseUnavailable:
            if pause is None:
                raise
            await asyncio.sleep(pause)
    raise AssertionError  # The last pause is None.


async def commit(database: Database, who: Fenced, write: Write) -> Written:
    """Commit one write; a broken connection leaves its outcome unknown, so it is asked for and tried again."""
    return await patiently(lambda: _commit_once(database, who, write))


async def _commit_once(database: Database, who: Fenced, write: Write) -> Written:
    async with database.connection("checkpoint") as connection:
        row = await connection.fetchrow(CHECKPOINT, *parameters([(who, write)]))
        if row is None:
            row = await connection.fetchrow(LANDED, who.run_id, who.fence, who.write_no, len(write.messages))
    if row is None:
        raise LeaseLost
    return written(row)


# An unknown commit: under the same fence `write_no` is already one higher, so the first try had landed.
LANDED = """
select r.id as run_id, h.message_seq - $4 as m0, null::bigint as e0, now() as at, null::json as steers
from runs r join heads h on h.conversation_id = r.conversation_id
where r.id = $1 and r.fence = $2 and r.write_no = $3 + 1 and r.state = 'running'
"""
