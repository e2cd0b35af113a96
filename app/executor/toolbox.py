"""The toolbox: the tools a run may call, each call under the ledger.

A call that finished is never made again: its recorded result is reused. One whose outcome is unknown after a crash is
repeated only when its tool says so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

import structlog
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import CallDeferred, ModelRetry
from pydantic_ai.exceptions import ToolFailed as Failed
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import Model
from pydantic_ai.tools import RunContext
from pydantic_ai.tools import Tool as LibraryTool

from app.approvals import NewApproval
from app.credentials import Credentials
from app.egress import Egress
from app.errors import (
    DatabaseUnavailable,
    EffectUnknown,
    InvalidArguments,
    InvalidRequest,
    LeaseLost,
    ParleyError,
    RunFailed,
    ToolError,
)
from app.events import EventType, NewEvent
from app.executor.ledger import Call, sha256_of
from app.executor.load import Loaded
from app.executor.recorder import Recorder, add
from app.knowledge.library import Library
from app.knowledge.memories import Memories
from app.messages import Json, clean_result, clean_text
from app.providers import cost_of
from app.redaction import without_known
from app.runs import Usage, Write
from app.settings import Settings
from app.tasks.say import check_prompt
from app.tools import Park, ParkKind, Risk, Tool
from app.tools.approval import ApprovalRule, first_rule, never, rules_of, stricter, with_defaults
from app.tools.clock import CallClock
from app.tools.invoke import invoke, kept, said_of_timeout
from app.tools.mcp_sessions import Sessions
from app.tools.registry import offered
from app.tools.schema import fitting
from app.tools.stored import registered_tool

log = structlog.stdlib.get_logger(__name__)

# Where nobody of the workspace is behind the text, anything but these is asked for first.
UNTRUSTED_RISKS = frozenset({Risk.READ, Risk.CODE})
AUTO = ApprovalRule(policy="auto")
ASK = ApprovalRule(policy="ask")


def tools_of(settings: Settings, loaded: Loaded) -> dict[str, Tool]:
    """The tools of the agent version that this conversation may use."""
    at_hand = offered(settings) | {record["name"]: registered_tool(record) for record in loaded.registered_tools}
    names = [*loaded.spec.tools, *loaded.pattern.tools]
    chosen = {name: at_hand[name] for name in names if name in at_hand}
    return {name: tool for name, tool in chosen.items() if not _never(loaded, tool)}


def _never(loaded: Loaded, tool: Tool) -> bool:
    return any(
        never(rules, loaded.occasion) for rules in (tool.approval, rules_of(loaded.spec.approval.get(tool.name)))
    )


def rule_of(loaded: Loaded, tool: Tool, arguments: dict[str, Any]) -> ApprovalRule:
    """What holds for a call: the stricter of the tool's own rule and the agent's.

    Where the agent says nothing of the call, what the tool and its conversation's origin ask for stand in the agent's place.
    """
    whole = with_defaults(tool.parameters, arguments)
    own = first_rule(tool.approval, loaded.occasion, whole)
    agents = first_rule(rules_of(loaded.spec.approval.get(tool.name)), loaded.occasion, whole)
    usual = AUTO if not tool.asks and (loaded.trusted or tool.risk in UNTRUSTED_RISKS) else ASK
    return stricter(agents or usual, own or AUTO)


Notify = Callable[["CallContext", str, str | None], Awaitable[str]]
Keep = Callable[["CallContext", str, str, bytes], Awaitable[dict[str, Any]]]
Schedule = Callable[["CallContext", str, str, str], Awaitable[str]]
CodeCalls = Callable[[str, dict[str, Any]], Awaitable[Any]]


@dataclass(frozen=True)
class Doors:
    """What tools may reach beyond themselves, handed in by the engine."""

    settings: Settings
    egress: Egress
    credentials: Credentials
    sessions: Sessions
    model: Model
    notify: Notify
    schedule: Schedule
    keep: Keep
    memories: Callable[["CallContext"], Memories]
    documents: Callable[["CallContext"], Library]


@dataclass
class CallContext:
    """The `ToolContext` of one call."""

    loaded: Loaded
    doors: Doors
    recorder: Recorder
    effect_key: UUID
    tools: Mapping[str, Tool]
    code_calls: CodeCalls
    clock: CallClock
    usage: Usage = field(default_factory=Usage)
    artifact_id: UUID | None = None  # Of the last file it kept.

    @property
    def workspace_id(self) -> UUID:
        """The run's workspace."""
        return self.loaded.workspace_id

    @property
    def conversation_id(self) -> UUID | None:
        """The run's conversation."""
        return self.loaded.conversation_id

    @property
    def run_id(self) -> UUID | None:
        """The run."""
        return self.loaded.run_id

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.doors.settings

    @property
    def egress(self) -> Egress:
        """The guarded HTTP client."""
        return self.doors.egress

    @property
    def credentials(self) -> Credentials:
        """The credentials, opened at the moment of a call."""
        return self.doors.credentials

    @property
    def sessions(self) -> Sessions:
        """The process's sessions with MCP servers."""
        return self.doors.sessions

    @property
    def documents(self) -> Library:
        """The documents of the run's workspace."""
        return self.doors.documents(self)

    @property
    def memories(self) -> Memories:
        """What is remembered about the run's agent, task and person."""
        return self.doors.memories(self)

    async def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Append `run.progress`."""
        payload = {"text": clean_text(text, 2000), "done": done, "total": total}
        await self.recorder.write(Write(events=[NewEvent(EventType.RUN_PROGRESS, payload)]), "progress")

    async def propose(self, patch: dict[str, Any]) -> None:
        """Append `state.proposed`."""
        proposed = NewEvent(EventType.STATE_PROPOSED, {"patch": clean_result(patch)})
        await self.recorder.write(Write(events=[proposed]), "progress")

    async def keep(self, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        """Keep a file as an artifact of this conversation."""
        kept = await self.doors.keep(self, name, media_type, content)
        self.artifact_id = UUID(kept["artifact_id"])
        return kept

    @property
    def model_name(self) -> str:
        """The run's model."""
        return self.doors.model.model_name

    async def complete(self, prompt: str) -> str:
        """Ask the run's model once; its usage is the run's."""
        response = await model_request(self.doors.model, [ModelRequest.user_text_prompt(prompt)])
        used = response.usage
        self.usage = add(self.usage, Usage(1, used.input_tokens, used.output_tokens, cost_of(response)))
        return "".join(part.content for part in response.parts if part.part_kind == "text")

    def spend(self, cost_usd: Decimal) -> None:
        """What the call cost beside its model requests; it is the run's."""
        self.usage = add(self.usage, Usage(cost_usd=cost_usd))

    async def notify(self, text: str, channel: str | None) -> str:
        """Plan a delivery to whoever follows this conversation."""
        return await self.doors.notify(self, text, channel)

    async def schedule_task(self, prompt: str, schedule_expression: str, timezone: str) -> str:
        """Store a scheduled task."""
        return await self.doors.schedule(self, prompt, schedule_expression, timezone)

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call another tool from this call's code; the clock of this call stands still, as the other has its own."""
        with self.clock.standing_still():
            return await self.code_calls(name, arguments)


class Toolbox:
    """The run's tools as the library calls them."""

    def __init__(self, tools: dict[str, Tool], loaded: Loaded, doors: Doors, recorder: Recorder) -> None:
        """Hold the tools for one claimed run."""
        self._tools = tools
        self._loaded = loaded
        self._doors = doors
        self._recorder = recorder
        self.parked: list[NewApproval] = []

    def library_tools(self) -> list[LibraryTool[Any]]:
        """Each tool with its schema; the call goes through the ledger."""
        return [
            LibraryTool.from_schema(
                self._function(tool),
                name=tool.name,
                description=tool.description,
                json_schema=tool.parameters,
                takes_ctx=True,
            )
            for tool in self._tools.values()
        ]

    def _function(self, tool: Tool) -> Callable[..., Awaitable[Any]]:
        async def call(ctx: RunContext[Any], **arguments: Any) -> Any:
            return await self._call(tool, self._recorder.calls[ctx.tool_call_id or ""], arguments)

        return call

    async def _call(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> Any:
        if call.recovered and call.record.state == "done":
            return call.record.result
        if call.recovered and call.record.state in ("failed", "denied"):
            raise _as_told(call.record.error or "the tool failed", retry=call.record.result == {"retry": True})
        arguments = await self._permitted(tool, call, arguments)
        if call.recovered and call.record.state != "proposed" and not tool.idempotent:
            return await self._after_unknown(tool, call, arguments)
        return await self._start(tool, call, arguments)

    async def _start(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> Any:
        if tool.credential:  # Before the call counts as begun: a run whose credential is unreadable tries again.
            await self._doors.credentials.check(self._loaded.workspace_id, tool.credential)
        if not tool.idempotent:
            await self._recorder.start_call(call)
        return await self._run(tool, call, arguments)

    async def _code_calls(self, parent: Call, name: str, arguments: dict[str, Any]) -> Any:
        """A call that the code of another makes; what stands against it stops the code, its failure is told to it.

        Raises:
            ToolError: when the call failed or was refused.
        """
        call = await self._recorder.code_calls(parent, name, arguments)
        try:
            return await self._call(self._tools[name], call, arguments)
        except (ModelRetry, Failed) as error:
            raise ToolError(str(error)) from error

    # --- people decide ---------------------------------------------------------------------------

    def _decision(self, call: Call, kind: ParkKind) -> Json | None:
        """What was decided of this call; the last word counts."""
        found = [
            each
            for each in self._loaded.decisions
            if each["kind"] == kind and each["subject"] == call.place.subject and each["state"] != "cancelled"
        ]
        return found[-1] if found else None

    async def _permitted(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with which the call may go ahead: the model's, or those a person has put in their place."""
        rule = rule_of(self._loaded, tool, arguments)
        if rule.policy == "auto":
            return arguments
        if rule.policy == "deny":
            await self._refused(call, f"the policy denies this call of {tool.name}")
        decision = self._decision(call, "tool")
        if decision is None or decision["args_sha256"] != call.record.args_sha256:
            await self._fit(tool, call, arguments)  # Nobody is asked about a call that can't be made.
            raise self._parked("tool", call, rule, call.record.arguments)
        if decision["state"] != "approved":
            await self._refused(call, _refusal(decision, f"the call of {tool.name}"))
        edited = _said(decision)
        if edited is None:
            return arguments
        call.record = replace(call.record, arguments=edited, args_sha256=sha256_of(edited))
        if rule_of(self._loaded, tool, edited).policy == "deny":
            await self._refused(call, f"the policy denies the call of {tool.name} that a person has edited")
        return edited

    async def _fit(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> None:
        """Tell the model of arguments that do not fit."""
        try:
            fitting(tool.parameters, arguments)
            if tool.check:
                tool.check(arguments)
            if tool.name == "schedule_task":
                _check_prompt(arguments["prompt"])  # A template of tasks, which tools know nothing of.
        except InvalidArguments as error:
            said = clean_text(error.detail, 2000)
            record = replace(call.record, state="failed", error=said, result={"retry": True})
            await self._recorder.finish_call(call, record, Usage())
            raise _as_told(said, retry=True) from error

    async def _after_unknown(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> Any:
        """The call was under way when its process died: only a person can say whether it happened.

        Raises:
            EffectUnknown: nobody could say, or the answer is to fail.
        """
        # A call that was asked about is `unknown`; one that began again since then is another question.
        decision = self._decision(call, "effect") if call.record.state == "unknown" else None
        if decision is None:
            raise self._parked("effect", call, ASK, call.record.arguments)
        said = _said(decision) or {}
        if decision["state"] == "approved" and said.get("outcome") == "happened":
            result = clean_result(said.get("result"))
            await self._recorder.finish_call(call, replace(call.record, state="done", result=result), Usage())
            return result
        if decision["state"] == "approved" and said.get("outcome") == "repeat":
            return await self._start(tool, call, arguments)
        told = f"the tool {tool.name!r} was interrupted and must not run twice; whether it took effect is unknown"
        await self._recorder.finish_call(call, replace(call.record, state="unknown", error=told), Usage())
        raise EffectUnknown(told)

    async def _answered(self, tool: Tool, call: Call, park: Park) -> Any:
        """The answer to the question a tool asks, once there is one."""
        decision = self._decision(call, park.kind)
        if decision is None:
            raise self._parked(park.kind, call, ASK, park.payload)
        if decision["state"] != "approved":
            await self._refused(call, _refusal(decision, "the question"))
        return (_said(decision) or {}).get("answer")

    def _parked(self, kind: ParkKind, call: Call, rule: ApprovalRule, shown: Any) -> CallDeferred:
        tool = self._tools[call.record.tool]
        self.parked.append(
            NewApproval(
                kind=kind,
                subject=call.place.subject,
                tool=call.record.tool,
                arguments=shown,
                args_sha256=call.record.args_sha256,
                risk=str(tool.risk),
                expires_seconds=rule.expires_seconds,
                on_expiry=rule.on_expiry,
            )
        )
        return CallDeferred()

    async def _refused(self, call: Call, said: str) -> NoReturn:
        record = replace(call.record, state="denied", error=said)
        await self._recorder.finish_call(call, record, Usage())
        raise _as_told(said, retry=False)

    # --- calling -----------------------------------------------------------------------------------

    async def _run(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> Any:
        clock = CallClock(tool.timeout_seconds)
        context = self._context(tool, call, clock)
        began = time.monotonic()
        try:
            async with clock:
                result = await kept(tool, context, await invoke(tool, context, arguments))
        except Park as park:
            result = await self._answered(tool, call, park)
        except (RunFailed, CallDeferred, LeaseLost, DatabaseUnavailable, asyncio.CancelledError):
            raise  # The end of the run, or of its code's calls, and no outcome of this one.
        except Exception as error:
            if clock.expired and not tool.idempotent:  # It may be at work over there still: only a person can say.
                raise self._parked("effect", call, ASK, call.record.arguments) from error
            said = _told(error, tool, self._loaded.workspace_id, timed_out=clock.expired)
            await self._failed(call, context, said, began, retry=isinstance(error, InvalidArguments))
            raise _as_told(said, retry=isinstance(error, InvalidArguments)) from error
        duration = (time.monotonic() - began) * 1000
        context.spend(tool.cost_usd)
        done = replace(call.record, state="done", result=result, artifact_id=context.artifact_id)
        await self._recorder.finish_call(call, replace(done, duration_ms=round(duration, 2)), context.usage)
        return result

    def _context(self, tool: Tool, call: Call, clock: CallClock) -> CallContext:
        # One level: what code calls has no tools itself, so that every call has a number of its own.
        others = {} if call.parent else {name: each for name, each in self._tools.items() if name != tool.name}
        code_calls = partial(self._code_calls, call)
        return CallContext(self._loaded, self._doors, self._recorder, call.place.effect_key, others, code_calls, clock)

    async def _failed(self, call: Call, context: CallContext, said: str, began: float, *, retry: bool) -> None:
        duration = (time.monotonic() - began) * 1000
        result = {"retry": True} if retry else None
        record = replace(call.record, state="failed", error=said, result=result, artifact_id=context.artifact_id)
        await self._recorder.finish_call(call, replace(record, duration_ms=round(duration, 2)), context.usage)


def _told(error: Exception, tool: Tool, workspace_id: UUID, *, timed_out: bool) -> str:
    """What the model is told; the words of an unexpected error stay in the log."""
    if timed_out:
        return said_of_timeout(tool)
    if isinstance(error, ToolError | ParleyError):
        return clean_text(without_known(error.detail, workspace_id), 2000)
    log.error("tool.broke", tool=tool.name, exc_info=error)
    return f"{tool.name} failed on an unexpected error ({type(error).__name__})"


def _said(decision: Json) -> Json | None:
    """The arguments that came with a decision."""
    body: Json = decision["decision"] or {}
    return body.get("arguments")


def _refusal(decision: Json, what: str) -> str:
    """What the model is told of a decision that was no yes."""
    if decision["state"] == "expired":
        return f"{what} was not decided in time: it expired. It was not denied."
    reason = f": {decision['reason']}" if decision["reason"] else ""
    return f"{what} was denied by a person{reason}"


def _as_told(said: str, *, retry: bool) -> Exception:
    return ModelRetry(said) if retry else Failed(said)


def _check_prompt(prompt: str) -> None:
    try:
        check_prompt(prompt)
    except InvalidRequest as error:
        raise InvalidArguments(f"prompt: {error.detail}") from error
