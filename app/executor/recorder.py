"""The recorder: what a run says and does becomes rows, in the order it happens.

`Checkpoint` is the library's capability that tells the recorder about each model request and response; the toolbox
tells it about tool calls. Every write is fenced by the claim and published after its commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext

from app import failpoints
from app.errors import LimitReached
from app.events import Bus, EventType, NewEvent, stored
from app.executor.files import Files
from app.executor.ledger import Call, Ledger
from app.executor.load import Loaded
from app.messages import Json, clean_text, clean_value, role_of, text_of
from app.providers import cost_of
from app.runs import CallRecord, Checkpoints, Fenced, NewMessage, Usage, Write, Written
from app.tools import Tool

T = TypeVar("T")

MAX_NAME = 200  # Characters of a tool's name or a call's id, as a model gives them.


class Recorder:
    """Writes one claimed run."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        bus: Bus,
        loaded: Loaded,
        tools: dict[str, Tool],
        model: str,
        files: Files,
        on_progress: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Begin where the loaded rows end.

        Args:
            checkpoints: The seam to PostgreSQL.
            bus: Where committed events are told.
            loaded: The run and its rows.
            tools: By name; what a call's row says about risk and repetition.
            model: The run's model, for its row.
            files: What its model sees of files that messages name.
            on_progress: Told, when people want to hear of it, after which event's number there is progress.
        """
        self._checkpoints = checkpoints
        self._bus = bus
        self._loaded = loaded
        self._ledger = Ledger(loaded, tools)
        self._model: str | None = model
        self._files = files
        self._on_progress = on_progress
        # By content, so that another tool which gets the name meanwhile is not taken for it.
        pinned = {each["name"]: each["sha256"] for each in loaded.registered_tools}
        self._pins: Json | None = {"tools": pinned} if pinned and loaded.pins is None else None
        self._write_no = loaded.write_no
        self._turn = asyncio.Lock()
        self._pending: ModelResponse | None = None
        self._responses = 0
        # Whether the requests at the history's end are rows already.
        self._tail_is_stored = bool(loaded.messages) and loaded.messages[-1]["body"].get("kind") == "request"
        self.heard: list[ModelMessage] = []  # What the library has, also of a response that was cut off.
        self.message_seq = loaded.message_seq
        self.aside = False  # The run goes back to the queue before its next model request.
        used = loaded.used
        self.used = Usage(used["requests"], used["input_tokens"], used["output_tokens"], Decimal(used["cost_usd"]))

    @property
    def fenced(self) -> Fenced:
        """Who writes, as of now."""
        return Fenced(self._loaded.run_id, self._loaded.conversation_id, self._loaded.fence, self._write_no)

    async def write(self, write: Write, edge: str) -> Written:
        """Commit a write and tell everyone; one at a time, in order. Being cancelled does not cut it off.

        Args:
            write: What is added.
            edge: Names the commit, for failpoints.

        Raises:
            LeaseLost: when the claim does not hold any more.
            DatabaseUnavailable: when PostgreSQL stays away.
        """
        return await whole(self._write(write, edge))

    async def rest(self) -> None:
        """Wait for a write under way: what was recorded, and `fenced`, are known only after it."""
        async with self._turn:
            return

    async def _write(self, write: Write, edge: str) -> Written:
        async with self._turn:
            write.model, self._model = self._model, None
            write.pins, self._pins = self._pins, None
            failpoints.before(edge)
            written = await self._checkpoints.checkpoint(self.fenced, write)
            failpoints.after(edge)
            self._write_no += 1
            self.used = add(self.used, write.usage)
            self.message_seq = written.message_seq + len(write.messages)
        self._publish(write, written)
        if self._on_progress and any(event.type is EventType.RUN_PROGRESS for event in write.events):
            await self._on_progress(written.event_seq or 0)
        return written

    def _publish(self, write: Write, written: Written) -> None:
        if written.event_seq is not None:
            loaded = self._loaded
            self._bus.publish(
                stored(
                    write.events,
                    run_id=loaded.run_id,
                    conversation_id=loaded.conversation_id,
                    first=written.event_seq + 1,
                    at=written.at,
                )
            )

    # --- messages ------------------------------------------------------------------------------------

    async def request_is_ready(self, messages: Sequence[ModelMessage]) -> list[Json]:
        """Store what the model is about to be asked, before it is; answers steering inputs that came meanwhile."""
        self._check_limits()
        self._responses = sum(isinstance(message, ModelResponse) for message in messages)
        write = self._unstored(messages)
        self._pending, self._tail_is_stored = None, True
        return (await self.write(write, "request")).steers if write.messages else []

    def _check_limits(self) -> None:
        """What the run has used, its tools' own model requests too; an unknown price counts as nothing.

        Raises:
            LimitReached: when its agent may use no more.
        """
        limits, used = self._loaded.spec.limits, self.used
        tokens = used.input_tokens + used.output_tokens
        if used.requests >= limits.requests:
            raise LimitReached(
                f"the run has made {used.requests} model requests; its agent's limit is {limits.requests}"
            )
        if limits.tokens is not None and tokens >= limits.tokens:
            raise LimitReached(f"the run has used {tokens} tokens; its agent's limit is {limits.tokens}")
        if limits.cost_usd is not None and used.cost_usd is not None and used.cost_usd >= Decimal(str(limits.cost_usd)):
            raise LimitReached(f"the run has spent {used.cost_usd:.4f} USD; its agent's limit is {limits.cost_usd} USD")

    async def response_is_there(self, response: ModelResponse, output_tools: set[str]) -> None:
        """Store a response that asks for tools, before they run; keep any other for the end."""
        self._responses += 1
        self._tail_is_stored = False
        clean(response)
        if any(call.tool_name not in output_tools for call in response.tool_calls):
            write = Write()
            self._add_response(write, response)
            self._ledger.add(write, response, self.message_seq + len(write.messages), output_tools)
            await self.write(write, "response")
            self._ledger.check()
        else:
            self._pending = response

    async def consume_steers(self, steers: list[Json]) -> list[ModelRequest]:
        """Store steering inputs as messages; answers them for the model."""
        write = Write()
        for steer in steers:
            body = steer["body"]
            write.consumed[UUID(steer["id"])] = len(write.messages)
            write.events.append(self._created(len(write.messages), body["role"], body["text"]))
            write.messages.append(NewMessage(body["role"], body["text"], body["message"]))
        await self.write(write, "steer")
        bodies = await self._files.put_in([steer["body"]["message"] for steer in steers])
        return [message for message in ModelMessagesTypeAdapter.validate_python(bodies) if message.kind == "request"]

    async def next_turn(self, messages: Sequence[ModelMessage], prompt: Json, events: list[NewEvent]) -> ModelRequest:
        """Store what is left of a turn together with the prompt of the next one; answers the prompt for the model."""
        write = self.last_write(messages)
        self._pending, self._tail_is_stored = None, True
        write.messages.append(NewMessage("system", text_of(prompt), prompt))
        write.events.extend(events)
        await self.write(write, "request")
        (request,) = ModelMessagesTypeAdapter.validate_python([prompt])
        assert isinstance(request, ModelRequest)
        return request

    def edit_answer(self, edit: Callable[[str], str]) -> None:
        """Change the text of the answer that is not stored yet."""
        for part in self._pending.parts if self._pending else ():
            if isinstance(part, TextPart):
                part.content = edit(part.content)

    def last_write(self, messages: Sequence[ModelMessage]) -> Write:
        """What is left to store when the run has its answer."""
        write = self._unstored(messages)
        write.model = self._model
        return write

    def _unstored(self, messages: Sequence[ModelMessage]) -> Write:
        """The response that is kept back, and the requests after the last response."""
        write = Write()
        if self._pending is not None:
            self._add_response(write, self._pending)
        if not self._tail_is_stored:
            for request in after_last_response(messages):
                self._add_request(write, request)
        return write

    def interrupted_write(self, messages: Sequence[ModelMessage]) -> Write:
        """What is left to store when the run was cancelled: a finished response, or the partial one."""
        write = self.last_write(messages)
        responses = [message for message in messages if isinstance(message, ModelResponse)]
        if self._pending is None and len(responses) > self._responses:
            partial = responses[-1]
            clean(partial)
            if any(isinstance(part, TextPart | ThinkingPart) for part in partial.parts):
                self._add_response(write, partial, interrupted=True)
        return write

    def _add_response(self, write: Write, response: ModelResponse, *, interrupted: bool = False) -> None:
        body = body_of(response)
        text = text_of(body)
        usage = Usage(1, response.usage.input_tokens, response.usage.output_tokens, cost_of(response))
        index = len(write.messages)
        shown = {"message_seq": self.message_seq + index + 1, "role": "assistant", "text": text}
        shown["interrupted"] = interrupted
        write.messages.append(
            NewMessage("assistant", text, body, interrupted=interrupted, model=response.model_name, usage=usage)
        )
        write.events.append(NewEvent(EventType.MESSAGE_COMPLETED, message=index, shown=shown))
        write.usage = add(write.usage, usage)

    def _add_request(self, write: Write, request: ModelRequest) -> None:
        body = body_of(request)
        role, text = role_of(body), text_of(body)
        if role == "user":
            write.events.append(self._created(len(write.messages), role, text))
        write.messages.append(NewMessage(role, text, body))
        self._ledger.close(write, body)

    def _created(self, index: int, role: str, text: str) -> NewEvent:
        shown = {"message_seq": self.message_seq + index + 1, "role": role, "text": text}
        return NewEvent(EventType.MESSAGE_CREATED, message=index, shown=shown)

    # --- tool calls ----------------------------------------------------------------------------------

    @property
    def calls(self) -> dict[str, Call]:
        """The calls of the last response, by the model's ids."""
        return self._ledger.calls

    async def code_calls(self, parent: Call, name: str, arguments: Json) -> Call:
        """Commit that the code of a call makes one itself; answers the row it had, if it made it before a recovery.

        Raises:
            LimitReached: when the agent may make no more calls.
        """
        call, write = self._ledger.within(parent, name, arguments)
        if write is not None:
            await self.write(write, "code call")
        return call

    async def start_call(self, call: Call) -> None:
        """Commit that a call which must not run twice begins."""
        await self.write(self._ledger.start(call), "tool start")

    async def finish_call(self, call: Call, record: CallRecord, usage: Usage) -> None:
        """Commit how a call ended, with what it cost: done, failed, denied or unknown."""
        await self.write(self._ledger.finish(call, record, usage), "tool result")


class SteppedAside(Exception):
    """The run goes back to the queue between two steps; everything so far is stored."""


class Checkpoint(AbstractCapability[Any]):
    """Tells the recorder about every model request and response of a run."""

    def __init__(self, recorder: Recorder) -> None:
        """Write through this recorder."""
        self._recorder = recorder

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Store the request; inject messages that steer the run."""
        steers = await self._recorder.request_is_ready(request_context.messages)
        if self._recorder.aside:
            raise SteppedAside
        if steers:
            injected = await self._recorder.consume_steers(steers)
            request_context.messages = [*request_context.messages, *injected]  # what this request sees ...
            ctx.messages.extend(injected)  # ... and what the history keeps for the next ones
        return request_context

    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Store the response."""
        output_tools = {tool.name for tool in request_context.model_request_parameters.output_tools}
        await self._recorder.response_is_there(response, output_tools)
        return response


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Let work that has begun come to its end, also when whoever waits for it is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:  # Cancel scopes say it again and again.
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # Whoever waited is gone; the next write meets the same error.
    raise cancelled


def after_last_response(messages: Sequence[ModelMessage]) -> list[ModelRequest]:
    """The requests at the end of a history."""
    tail: list[ModelRequest] = []
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            break
        tail.append(message)
    return tail[::-1]


def body_of(message: ModelMessage) -> Json:
    """A message as its row keeps it: without what is written elsewhere on the row, or again with each request."""
    body: Json = ModelMessagesTypeAdapter.dump_python([message], mode="json", exclude_none=True)[0]
    for name in ("instructions", "run_id", "conversation_id"):
        body.pop(name, None)
    if "usage" in body:
        body["usage"] = {name: value for name, value in body["usage"].items() if value}
    return body


def clean(response: ModelResponse) -> None:
    """Make a model's output storable: no NUL, no lone surrogates, bounded, each tool call with an id of its own."""
    ids: set[str] = set()
    for part in response.parts:
        if isinstance(part, TextPart | ThinkingPart):
            part.content = clean_text(part.content)
        elif isinstance(part, ToolCallPart):
            part.args = clean_text(part.args) if isinstance(part.args, str) else clean_value(part.args)
            part.tool_name = clean_text(part.tool_name, MAX_NAME)  # pyright: ignore[reportAttributeAccessIssue]
            part.tool_call_id = _free_id(clean_text(part.tool_call_id, MAX_NAME), ids)


def _free_id(wanted: str, taken: set[str]) -> str:
    """The id, or where a server numbers all calls the same, one like it."""
    free = next(each for each in (wanted, *(f"{wanted}-{n}" for n in range(2, len(taken) + 3))) if each not in taken)
    taken.add(free)
    return free


def add(one: Usage, other: Usage) -> Usage:
    """Usage together; unknown when one price is unknown."""
    cost = None if one.cost_usd is None or other.cost_usd is None else one.cost_usd + other.cost_usd
    return Usage(
        one.requests + other.requests,
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        cost,
    )
