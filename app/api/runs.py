"""Runs: starting one in a single call, reading, watching, explaining, cancelling, trying again."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app import conversations
from app.api.access import Caller, may
from app.api.answers import ANSWERS, Answer, Prefer, Usage, answer_to, made_before
from app.api.conversations import Attachments, attached
from app.api.idempotency import IdempotencyKey, Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.streams import STREAM_RESPONSES, Events, event_page, sse
from app.api.strict import resource
from app.conversations import Accepted, Beginning, Begun, Turn
from app.db import Connection
from app.errors import NotFound
from app.events import BOUNDS, Bounds
from app.executor import Engine
from app.messages import Json
from app.models import Agent, Conversation, Run, Task, ToolCall, new_id
from app.models import Message as MessageRow
from app.patterns import CHATBOT
from app.runs import TERMINAL_STATES, Why, detach, explain, reasons, why_new

router = resource("runs")

RunStateName = Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]


class ErrorOut(BaseModel):
    """Why a run failed or was cancelled."""

    code: str
    message: str
    retryable: bool


class RunOut(BaseModel):
    """A run as the API shows it."""

    id: UUID
    conversation_id: UUID
    number: int = Field(description="1.. in the conversation.")
    task_id: UUID | None
    parent_run_id: UUID | None
    retry_of: UUID | None
    state: RunStateName
    waiting_for: list[str]
    reason: str | None = Field(description="Why it is not moving, in plain words.")
    attempt: int
    agent: str
    agent_version: int | None
    model: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: str | None
    output: Any | None
    unchanged: bool = Field(False, description="The run of a schedule found nothing new; nobody was told.")
    error: ErrorOut | None
    usage: Usage


class NewRunBody(BaseModel):
    """A conversation and its first message in one call."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"agent": "assistant", "message": "What is 6*7?"}]}
    )

    agent: str = Field("assistant", min_length=1, max_length=200, description="Name or id.")
    message: str = Field(min_length=1, max_length=200_000)
    attachments: Attachments = Field(default_factory=list[UUID], description="Artifacts sent along, by id.")
    stream: bool = False
    background: bool = False


class RetryBody(BaseModel):
    """From where a run is tried again."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    origin: Literal["failed_step", "start", "fork"] = Field("failed_step", alias="from")
    input: str | None = Field(
        default=None, min_length=1, max_length=200_000, description="Said instead of the run's input."
    )


class CancelBody(BaseModel):
    """Why a run is cancelled."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(default=None, max_length=1000)


class StepOut(BaseModel):
    """One step of a run: a model response or a tool call."""

    seq: int
    kind: Literal["model", "tool", "child", "wait", "delivery"]
    name: str | None
    started_at: datetime | None
    duration_ms: float | None
    input: Any | None
    output: Any | None
    artifact_id: UUID | None = Field(
        default=None, description="The last file a call kept; the whole result where it was cut."
    )
    error: str | None
    usage: Usage | None
    cost_usd: float | None


# --- reading --------------------------------------------------------------------------------------

RunRow = Row[Run, str]


def selected() -> Select[Run, str]:
    """Runs with their agent's name."""
    return (
        select(Run, Agent.name)
        .join(Conversation, Conversation.id == Run.conversation_id)
        .join(Agent, Agent.id == Conversation.agent_id)
    )


def shown(run: Run, agent: str, why: Why | None) -> RunOut:
    """A run's row as the API shows it."""
    return RunOut(
        id=run.id,
        conversation_id=run.conversation_id,
        number=run.number,
        task_id=run.task_id,
        parent_run_id=run.parent_run_id,
        retry_of=run.retry_of,
        state=run.state,  # pyright: ignore[reportArgumentType]
        waiting_for=list(why.waiting_for) if why else [],
        reason=why.reason if why else None,
        attempt=run.attempt,
        agent=agent,
        agent_version=run.agent_version,
        model=run.model,
        queued_at=run.queued_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        result=run.result,
        output=run.output,
        unchanged=run.unchanged,
        error=ErrorOut.model_validate(run.error) if run.error and run.state in ("failed", "cancelled") else None,
        usage=Usage.of(run.requests, run.input_tokens, run.output_tokens, None if run.cost_unknown else run.cost_usd),
    )


def shown_new(task: Task, begun: Begun) -> RunOut:
    """A task's first run, just queued."""
    why = why_new(task.run_at, begun.at, begun.hold, workers=begun.workers)
    return RunOut(
        id=begun.accepted.run_id,
        conversation_id=begun.accepted.conversation_id,
        number=1,
        task_id=task.id,
        parent_run_id=None,
        retry_of=None,
        state="queued",
        waiting_for=list(why.waiting_for),
        reason=why.reason,
        attempt=1,
        agent=begun.agent,
        agent_version=begun.agent_version,
        model=None,
        queued_at=begun.at,
        started_at=None,
        finished_at=None,
        result=None,
        output=None,
        unchanged=False,
        error=None,
        usage=Usage.of(0, 0, 0, Decimal(0)),
    )


async def show_all(engine: Engine, rows: Sequence[RunRow]) -> list[RunOut]:
    """Runs with their reasons, which are decided by the clock and the other runs of now."""
    still = [run.id for run, _ in rows if run.state not in TERMINAL_STATES]
    why = await reasons(engine.database, still)
    return [shown(run, agent, why.get(run.id)) for run, agent in rows]


async def find(session: AsyncSession, workspace_id: UUID, run_id: UUID) -> RunRow:
    """The run of that id.

    Raises:
        NotFound: when the workspace has none.
    """
    query = selected().where(Run.workspace_id == workspace_id, Run.id == run_id)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"there is no run {run_id}")
    return row


async def _found(caller: Caller, run_id: UUID) -> RunRow:
    async with caller.transaction() as session:
        return await find(session, caller.workspace_id, run_id)


async def show(caller: Caller, run_id: UUID) -> RunOut:
    """The run of that id as the API shows it."""
    return (await show_all(caller.engine, [await _found(caller, run_id)]))[0]


# --- routes ---------------------------------------------------------------------------------------


Reader = Annotated[Caller, may("runs:read")]
Writer = Annotated[Caller, may("runs:write")]


@router.post("/runs", summary="Start a conversation with its first message", response_model=Answer, responses=ANSWERS)
async def start_run(
    body: NewRunBody,
    response: Response,
    caller: Annotated[Caller, may("conversations:write")],
    key: Idempotent,
    prefer: Prefer = None,
) -> Any:
    """Answers as a message does: 200 with the reply, 202 when it goes on in the background, or a stream."""
    turn = Turn(
        body.message,
        attachments=attached(caller, body.attachments),
        principal_id=caller.principal.id,
        run={"detached": body.background},
    )
    new = _first(caller, body, turn)
    apart = key.key or body.attachments
    accepted = await (_start_once(caller, new, key) if apart else caller.engine.beginnings.begin(new))
    caller.engine.welcome(accepted)
    return await answer_to(caller, response, accepted, stream=body.stream, background=body.background, prefer=prefer)


def _first(caller: Caller, body: NewRunBody, turn: Turn) -> Beginning:
    inline = None if body.background else caller.engine.inline
    who = caller.principal.id
    return Beginning(caller.workspace_id, CHATBOT, body.agent, turn, principal_id=who, inline=inline)


async def _start_once(caller: Caller, new: Beginning, key: IdempotencyKey) -> Accepted:
    async with caller.database.engine_tx("say") as connection:
        if repeat := await key.claim(connection, caller, "run", new.turn.run_id):
            return await made_before(connection, repeat)
        return await conversations.begin(connection, caller.settings, new)


@router.get("/runs", summary="List runs")
async def list_runs(
    caller: Reader,
    page: Annotated[PageOf, paged("runs")],
    state: Annotated[RunStateName | None, Query(description="In this state.")] = None,
    task_id: Annotated[UUID | None, Query(description="Of this task.")] = None,
    conversation_id: Annotated[UUID | None, Query(description="Of this conversation.")] = None,
) -> Page[RunOut]:
    """Newest first."""
    query = selected().where(Run.workspace_id == caller.workspace_id)
    for column, value in ((Run.state, state), (Run.task_id, task_id), (Run.conversation_id, conversation_id)):
        query = query.where(column == value) if value is not None else query
    query = query.where(Run.id < page.after) if page.after else query
    async with caller.transaction() as session:
        rows = (await session.execute(query.order_by(Run.id.desc()).limit(page.fetch))).all()
    return page.cut(await show_all(caller.engine, rows), lambda run: run)


@router.get("/runs/{run_id}", summary="A run")
async def get_run(run_id: UUID, caller: Reader) -> RunOut:
    """State, result, error, usage, and why it is not moving."""
    return await show(caller, run_id)


@router.get("/runs/{run_id}/events", summary="Watch a run", responses=STREAM_RESPONSES, response_model=None)
async def run_events(run_id: UUID, caller: Reader, wanted: Events) -> Any:
    """Its events from the first, or from a cursor; the stream ends after the terminal event."""
    # Asked by every watcher of every run: one statement of the engine's door.
    run = await caller.database.fetchrow(WATCHED, run_id, caller.workspace_id)
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    after, at = wanted.after, run["conversation_id"]
    if wanted.as_page:
        return await event_page(caller.engine, at, after=after, limit=wanted.limit, run_id=run_id)
    ended = run["state"] in TERMINAL_STATES and after is not None
    if ended and await caller.database.fetchval(ALL_READ, run_id, after):
        return Response(status_code=204)
    bounds = Bounds(run["event_seq"], run["before_run"])
    return sse(caller.engine, at, after=after, run_id=run_id, bounds=bounds)


WATCHED = f"""
select r.conversation_id, r.state, {BOUNDS} from runs r join heads h on h.conversation_id = r.conversation_id
where r.id = $1 and r.workspace_id = $2
"""
ALL_READ = """
select max(e.seq) <= $2 and $2 <= h.event_seq from events e join heads h using (conversation_id)
where e.run_id = $1 group by h.event_seq
"""


@router.get("/runs/{run_id}/steps", summary="The steps of a run")
async def run_steps(run_id: UUID, caller: Reader) -> Page[StepOut]:
    """Model responses and tool calls in the order they were made."""
    async with caller.transaction() as session:
        run, _ = await find(session, caller.workspace_id, run_id)
        # A fork's copies name the run too: only those of its own conversation are its steps.
        at = run.conversation_id
        own = (MessageRow.conversation_id == at, MessageRow.run_id == run_id, MessageRow.role == "assistant")
        messages = await session.scalars(select(MessageRow).where(*own))
        calls = await session.scalars(select(ToolCall).where(ToolCall.conversation_id == at, ToolCall.run_id == run_id))
        found = [(row.seq, -1, 0, _model_step(row)) for row in messages]
        found += [(row.message_seq or 0, row.call_index or 0, row.sub_index or 0, _tool_step(row)) for row in calls]
    steps = [step for *_, step in sorted(found, key=lambda each: each[:3])]
    for number, step in enumerate(steps, start=1):
        step.seq = number
    return Page(items=steps, next_cursor=None)


def _model_step(row: MessageRow) -> StepOut:
    return StepOut(
        seq=row.seq,
        kind="model",
        name=row.model,
        started_at=row.created_at,
        duration_ms=None,
        input=None,
        output=row.text,
        error="interrupted" if row.interrupted else None,
        usage=Usage.of(1, row.input_tokens, row.output_tokens, row.cost_usd),
        cost_usd=None if row.cost_usd is None else float(row.cost_usd),
    )


def _tool_step(row: ToolCall) -> StepOut:
    return StepOut(
        seq=row.message_seq or 0,
        kind="tool",
        name=row.tool,
        started_at=row.started_at,
        duration_ms=row.duration_ms,
        input=row.arguments,
        output=row.result,
        artifact_id=row.artifact_id,
        error=row.error,
        usage=None,
        cost_usd=None,
    )


@router.get("/runs/{run_id}/explain", summary="Why a run is where it is")
async def explain_run(run_id: UUID, caller: Reader) -> Json:
    """Reason, since when, lease, last event, and what to do next with its command."""
    await _found(caller, run_id)
    return await explain(caller.database, run_id)


@router.post("/runs/{run_id}/cancel", summary="Cancel a run")
async def cancel_run(run_id: UUID, caller: Writer, body: CancelBody | None = None) -> RunOut:
    """Idempotent: one that has ended stays as it is. A running one keeps its partial output."""
    run, _ = await _found(caller, run_id)
    reason = (body and body.reason) or f"cancelled by {caller.principal.name}"
    await caller.engine.cancel(caller.workspace_id, run_id, run.conversation_id, reason)
    return await show(caller, run_id)


@router.post("/runs/{run_id}/retry", summary="Try a run again", status_code=202)
async def retry_run(
    run_id: UUID, response: Response, caller: Writer, key: Idempotent, body: RetryBody | None = None
) -> RunOut:
    """A new run with `retry_of`: from the failed step, from the start, or as a fork."""
    asked = body or RetryBody.model_validate({})
    new = new_id()
    async with caller.database.engine_tx("retry") as connection:
        repeat = await key.claim(connection, caller, "run", new)
        accepted = await (made_before(connection, repeat) if repeat else _retry(connection, caller, run_id, asked, new))
    caller.engine.welcome(accepted)
    response.headers["Location"] = f"/runs/{accepted.run_id}"
    return await show(caller, accepted.run_id)


async def _retry(connection: Connection, caller: Caller, run_id: UUID, asked: RetryBody, new: UUID) -> Accepted:
    return await conversations.retry(
        connection,
        caller.settings,
        caller.workspace_id,
        run_id,
        origin=asked.origin,
        text=asked.input,
        principal_id=caller.principal.id,
        new_run_id=new,
    )


@router.post("/runs/{run_id}/background", summary="Send a run to the background")
async def background_run(run_id: UUID, caller: Writer) -> RunOut:
    """Readers may go; its end is notified. It runs on where it is."""
    run, _ = await _found(caller, run_id)
    async with caller.database.engine_tx("detach") as connection:
        await conversations.lock(connection, caller.workspace_id, run.conversation_id)
        events = await detach(connection, run.conversation_id, run_id)
    caller.engine.bus.publish(events)
    return await show(caller, run_id)
