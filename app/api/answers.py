"""The answer to a message: the reply when it is there, 202 when it is not yet, or a stream."""

import asyncio
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Caller
from app.api.idempotency import Repeat
from app.api.streams import STREAM, sse
from app.conversations import Accepted
from app.db import Connection, Row
from app.errors import InvalidRequest, NotFound
from app.events import Bounds, follow
from app.executor import Engine
from app.messages import Json, parts_of
from app.runs import TERMINAL_STATES, RunState, Why, reasons

PARKED = frozenset({"run.waiting", "run.retrying"})
WAIT_SECONDS = 60.0

Prefer = Annotated[
    str | None, Header(description="`wait=N`: seconds to wait for the reply, 60 when left out.", examples=["wait=10"])
]


class Usage(BaseModel):
    """What model requests used; the cost is null when a price is unknown."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None

    @classmethod
    def of(cls, requests: int, input_tokens: int, output_tokens: int, cost: Decimal | None) -> "Usage":
        """Usage of a row's columns."""
        cost_usd = None if cost is None else float(cost)
        return cls(requests=requests, input_tokens=input_tokens, output_tokens=output_tokens, cost_usd=cost_usd)


class MessageOut(BaseModel):
    """A message as the API shows it."""

    id: str = Field(description="`<conversation>:<seq>`.")
    seq: int
    role: str = Field(description="user, assistant, tool or system.")
    text: str
    parts: list[Json]
    run_id: UUID
    created_at: Any

    @classmethod
    def of(cls, row: Any, conversation_id: UUID) -> "MessageOut":
        """A message of a row's columns."""
        return cls(
            id=f"{conversation_id}:{row['seq']}",
            seq=row["seq"],
            role=row["role"],
            text=row["text"],
            parts=parts_of(row["body"]),
            run_id=row["run_id"],
            created_at=row["created_at"],
        )


class Answer(BaseModel):
    """What a message that was not streamed is answered with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"state": "completed", "reply": "Paris."}]})

    conversation_id: UUID
    run_id: UUID
    state: str
    reply: str | None = Field(description="The reply's text, once there is one.")
    output: Any | None = Field(description="The structured output, where one was asked for.")
    message: MessageOut | None = Field(description="The reply as a message.")
    error: Json | None
    reason: str | None = Field(description="Why there is no reply yet, where the run is not moving.")
    usage: Usage


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The reply; with `stream` a stream of the run's events, as `/runs/{id}/events` gives it.",
        "content": {"text/event-stream": STREAM},
    },
    202: {"model": Answer, "description": "Accepted and not answered yet; `Location` is the run."},
}

ANSWER = """
select r.state, r.result, r.output, r.error, r.requests, r.input_tokens, r.output_tokens, r.cost_usd, r.cost_unknown,
    r.run_at, m.seq, m.role, m.text, m.body, m.run_id, m.created_at
from runs r left join lateral (
    select * from messages where conversation_id = r.conversation_id and run_id = r.id and role = 'assistant'
    order by seq desc limit 1) m on true
where r.id = $1 and r.workspace_id = $2
"""


async def answer_to(
    caller: Caller, response: Response, accepted: Accepted, *, stream: bool, background: bool, prefer: str | None
) -> Any:
    """Answer an accepted message.

    Args:
        caller: Whose message.
        response: Its status and headers are set.
        accepted: What was committed.
        stream: A stream of the run's events instead.
        background: Answer at once.
        prefer: The `Prefer` header: how long to wait for the end.
    """
    if stream:
        bounds = _bounds(accepted)
        return sse(caller.engine, accepted.conversation_id, after=None, run_id=accepted.run_id, bounds=bounds)
    seconds = 0.0 if background or accepted.waits else wait_of(prefer)
    if seconds:
        await _wait(caller.engine, accepted, seconds)
    row = await caller.database.fetchrow(ANSWER, accepted.run_id, caller.workspace_id)
    assert row is not None, "the run was committed"
    why = None
    if row["state"] not in TERMINAL_STATES:
        response.status_code = 202
        response.headers["Location"] = f"/runs/{accepted.run_id}"
        if not background or accepted.waits:
            why = (await reasons(caller.database, [accepted.run_id])).get(accepted.run_id)
    return _answer(accepted, row, why)


def _bounds(accepted: Accepted) -> Bounds | None:
    """Where the run's log begins, when it has just begun."""
    numbers = [event.seq for event in accepted.events if event.run_id == accepted.run_id]
    return Bounds(numbers[-1], numbers[0] - 1) if numbers else None


def wait_of(prefer: str | None) -> float:
    """Seconds of a `Prefer: wait=N`.

    Raises:
        InvalidRequest: when N is no number of seconds.
    """
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait":
            if not (value.isascii() and value.isdigit() and len(value) < 6):
                raise InvalidRequest("Prefer: wait=N takes a number of seconds", field="Prefer")
            return min(float(value), 600.0)
    return WAIT_SECONDS


MADE_BEFORE = """
select conversation_id, id as run_id from runs where id = $1
union all select conversation_id, run_id from inputs where id = $1 limit 1
"""


async def made_before(connection: Connection, repeat: Repeat) -> Accepted:
    """What the first request of an Idempotency-Key was accepted as (a steering message: the run it steered)."""
    row = await connection.fetchrow(MADE_BEFORE, repeat.uuid)
    if row is None:
        raise NotFound("what this Idempotency-Key made was deleted")
    return Accepted(row["conversation_id"], row["run_id"], None, ready=False, events=[])


def _answer(accepted: Accepted, row: Row, why: Why | None) -> Answer:
    return Answer(
        conversation_id=accepted.conversation_id,
        run_id=accepted.run_id,
        state=row["state"],
        reply=row["result"],
        output=row["output"],
        message=MessageOut.of(row, accepted.conversation_id) if row["seq"] else None,
        error=row["error"] if row["state"] in ("failed", "cancelled") else None,
        reason=why.reason if why else None,
        usage=Usage.of(
            row["requests"], row["input_tokens"], row["output_tokens"], None if row["cost_unknown"] else row["cost_usd"]
        ),
    )


async def _wait(engine: Engine, accepted: Accepted, seconds: float) -> None:
    """Until the run has ended or parked, or the time is over; a run of this process is waited for directly."""
    execution = engine.running.get(accepted.run_id)
    try:
        async with asyncio.timeout(seconds):
            if execution is not None and execution.task is not None:
                await asyncio.wait({execution.task})
            else:
                await _follow_to_end(engine, accepted)
    except TimeoutError:
        pass


# How the run stands and the number of its conversation's last event, as of one moment.
STANDS = """
select r.state, h.event_seq from runs r join heads h on h.conversation_id = r.conversation_id where r.id = $1
"""


async def _follow_to_end(engine: Engine, accepted: Accepted) -> None:
    # The run may have parked before: only what comes after this moment says how it goes on.
    row = await engine.database.fetchrow(STANDS, accepted.run_id)
    if row is None or row["state"] in (*TERMINAL_STATES, RunState.WAITING):
        return
    after = row["event_seq"]
    events = follow(engine.bus, engine.database, accepted.conversation_id, after=after, run_id=accepted.run_id)
    async for event in events:
        if event.event in PARKED or (event.event == "run.queued" and "next_probe_at" in event.data):
            return
