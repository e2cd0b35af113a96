"""The recorder: what a run says and does becomes rows, in the order it happens.

`Checkpoint` is the library's capability that tells the recorder about each model request and response; the toolbox
tells it about tool calls. Every write is fenced by the claim and published after its commit.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID, uuid5

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
from app.executor.load import Loaded
from app.messages import Json, arguments_of, clean_text, clean_value, parts_of, role_of, text_of, tool_calls_of
from app.providers import cost_of
from app.runs import CallRecord, Checkpoints, Fenced, NewMessage, Usage, Write, Written
from app.tools import Risk, Tool

T = TypeVar("T")

MAX_NAME = 200  # Characters of a tool's name or a call's id, as a model gives them.

# Names a tool call for ever: conversation, number of the response that asked for it, index of the call in it.
EFFECTS = UUID("5b0c0f0e-6a53-5f0e-9d53-6a7e1c2b9f10")


@dataclass(frozen=True)
class Place:
    """Where a tool call stands: its effect key."""

    conversation_id: UUID
    message_seq: int
    call_index: int

    @property
    def subject(self) -> str:
        """How an approval names the call."""
        return f"{self.message_seq}:{self.call_index}"

    @property
    def effect_key(self) -> UUID:
        """The UUIDv5 that the tool receives."""
        return uuid5(EFFECTS, f"{self.conversation_id}:{self.message_seq}:{self.call_index}")


@dataclass
class Call:
    """A tool call of the last response, as the ledger has it."""

    place: Place
    record: CallRecord
    recovered: bool = False  # Whether an earlier claim had written the row.


class Recorder:
    """Writes one claimed run."""

    def __init__(
        self, checkpoints: Checkpoints, bus: Bus, loaded: Loaded, tools: dict[str, Tool], model: str, files: Files
    ) -> None:
        """Begin where the loaded rows end.

        Args:
            checkpoints: The seam to PostgreSQL.
            bus: Where committed events are told.
            loaded: The run and its rows.
            tools: By name; what a call's row says about risk and repetition.
            model: The run's model, for its row.
            files: What its model sees of files that messages name.
        """
        self._checkpoints = checkpoints
        self._bus = bus
        self._loaded = loaded
        self._tools = tools
        self._model: str | None = model
        self._files = files
        self._versions = {each["name"]: each["version"] for each in loaded.registered_tools}
        self._pins: Json | None = {"tools": self._versions} if self._versions and loaded.pins is None else None
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
        self.calls: dict[str, Call] = self._recovered_calls()
        self._asked: int = used["tool_calls"]  # Calls asked for so far, however they ended.

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

    def _check_calls(self) -> None:
        """Raises LimitReached when a response asks for more calls than are left; failed ones count like others."""
        limit = self._loaded.spec.limits.tool_calls
        if limit is not None and self._asked > limit:
            raise LimitReached(f"the run asks for its tool call {self._asked}; its agent's limit is {limit}")

    async def response_is_there(self, response: ModelResponse, output_tools: set[str]) -> None:
        """Store a response that asks for tools, before they run; keep any other for the end."""
        self._responses += 1
        self._tail_is_stored = False
        clean(response)
        if any(call.tool_name not in output_tools for call in response.tool_calls):
            write = Write()
            self._add_response(write, response)
            self._add_calls(write, response, output_tools)
            self._asked += len(write.calls)
            await self.write(write, "response")
            self._check_calls()
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
        self._close_calls(write, body)

    def _created(self, index: int, role: str, text: str) -> NewEvent:
        shown = {"message_seq": self.message_seq + index + 1, "role": role, "text": text}
        return NewEvent(EventType.MESSAGE_CREATED, message=index, shown=shown)

    # --- tool calls ----------------------------------------------------------------------------------

    def _recovered_calls(self) -> dict[str, Call]:
        last = next(
            (message for message in reversed(self._loaded.messages) if message["body"].get("kind") == "response"), None
        )
        if last is None:
            return {}
        rows = {(row["message_seq"], row["call_index"]): row for row in self._loaded.calls}
        found: dict[str, Call] = {}
        for index, part in enumerate(tool_calls_of(last["body"])):
            row = rows.get((last["seq"], index))
            if row is not None:
                place = Place(self._loaded.conversation_id, last["seq"], index)
                record = self._record(part["tool_call_id"], part["tool"], part["arguments"], index, row["state"])
                record = replace(record, message_seq=last["seq"], result=row["result"], error=row["error"])
                found[part["tool_call_id"]] = Call(place, record, recovered=True)
        return found

    def _add_calls(self, write: Write, response: ModelResponse, output_tools: set[str]) -> None:
        """Ledger rows of a response's calls; those that may be repeated start with it, in the same commit."""
        message = len(write.messages) - 1
        message_seq = self.message_seq + len(write.messages)
        self.calls = {}
        for index, part in enumerate(response.tool_calls):
            if part.tool_name in output_tools:
                continue
            tool = self._tools.get(part.tool_name)
            starts = tool is None or tool.idempotent
            arguments = clean_value(arguments_of(part.args))
            state = "started" if starts else "proposed"
            record = self._record(part.tool_call_id, part.tool_name, arguments, index, state)
            place = Place(self._loaded.conversation_id, message_seq, index)
            write.calls.append(replace(record, message=message))
            self.calls[part.tool_call_id] = Call(place, replace(record, message_seq=message_seq))
            if starts:
                write.events.append(
                    NewEvent(EventType.TOOL_STARTED, message=message, call_index=index, shown=started_fields(record))
                )

    def _record(self, call_id: str, name: str, arguments: Any, index: int, state: str) -> CallRecord:
        tool = self._tools.get(name)
        return CallRecord(
            tool_call_id=call_id,
            tool=name,
            arguments=arguments,
            args_sha256=sha256_of(arguments),
            state=state,
            idempotent=tool.idempotent if tool else True,
            risk=str(tool.risk if tool else Risk.READ),
            call_index=index,
            tool_version=self._versions.get(name),
        )

    async def start_call(self, call: Call) -> None:
        """Commit that a call which must not run twice begins."""
        call.record = replace(call.record, state="started")
        event = NewEvent(
            EventType.TOOL_STARTED,
            ref=call.place.message_seq,
            call_index=call.place.call_index,
            shown=started_fields(call.record),
        )
        await self.write(Write(calls=[call.record], events=[event]), "tool start")

    async def finish_call(self, call: Call, record: CallRecord, usage: Usage) -> None:
        """Commit how a call ended, with what it cost: done, failed or unknown."""
        call.record = record = replace(record, cost_usd=usage.cost_usd)
        await self.write(Write(calls=[record], events=[self.ended_event(call)], usage=usage), "tool result")

    def ended_event(self, call: Call) -> NewEvent:
        """The event that tells how a call ended."""
        record = call.record
        fields: Json = {"tool_call_id": record.tool_call_id, "tool": record.tool}
        done = record.state == "done"
        fields |= {"result": record.result, "duration_ms": record.duration_ms} if done else {"error": record.error}
        kind = EventType.TOOL_COMPLETED if done else EventType.TOOL_FAILED
        return NewEvent(kind, ref=call.place.message_seq, call_index=call.place.call_index, shown=fields)

    def _close_calls(self, write: Write, body: Json) -> None:
        """Calls that the library answered by itself (bad arguments, unknown tool) never ran: close their rows."""
        for part in parts_of(body):
            call = self.calls.get(part.get("tool_call_id") or "")
            if part["type"] == "tool_result" and call and call.record.state in ("proposed", "started"):
                said = part["result"] if isinstance(part["result"], str) else json.dumps(part["result"])
                call.record = replace(call.record, state="failed", error=clean_text(said, 2000))
                write.calls.append(call.record)
                write.events.append(self.ended_event(call))


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


def started_fields(record: CallRecord) -> Json:
    """What `tool.started` shows."""
    return {"tool_call_id": record.tool_call_id, "tool": record.tool, "arguments": record.arguments}


def sha256_of(value: Any) -> str:
    """The hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def add(one: Usage, other: Usage) -> Usage:
    """Usage together; unknown when one price is unknown."""
    cost = None if one.cost_usd is None or other.cost_usd is None else one.cost_usd + other.cost_usd
    return Usage(
        one.requests + other.requests,
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        cost,
    )
