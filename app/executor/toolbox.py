"""The toolbox: the tools a run may call, each call under the ledger.

A call that finished is never made again: its recorded result is reused. One whose outcome is unknown after a crash is
repeated only when its tool says so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import structlog
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.exceptions import ToolFailed as Failed
from pydantic_ai.messages import ModelRequest
from pydantic_ai.models import Model
from pydantic_ai.tools import RunContext
from pydantic_ai.tools import Tool as LibraryTool

from app.egress import Egress
from app.errors import EffectUnknown, InvalidArguments, ParleyError, RunFailed, ToolError
from app.events import EventType, NewEvent
from app.executor.load import Loaded
from app.executor.recorder import Call, Recorder, add
from app.messages import clean_result, clean_text
from app.providers import cost_of
from app.runs import Usage, Write
from app.settings import Settings
from app.tools import Risk, Tool, offered
from app.tools.python import python_tool

log = structlog.stdlib.get_logger(__name__)

# Where nobody of the workspace is behind the text, only reading is offered.
UNTRUSTED_RISKS = frozenset({Risk.READ, Risk.CODE})


def tools_of(settings: Settings, loaded: Loaded) -> dict[str, Tool]:
    """The tools of the agent version that this conversation may use."""
    at_hand = offered(settings) | {record["name"]: python_tool(record["spec"]) for record in loaded.registered_tools}
    names = [*loaded.spec.tools, *loaded.pattern.tools]
    chosen = {name: at_hand[name] for name in names if name in at_hand}
    denied = {name for name, policy in loaded.spec.approval.items() if policy == "deny"}
    return {
        name: tool
        for name, tool in chosen.items()
        if name not in denied and (loaded.trusted or tool.risk in UNTRUSTED_RISKS)
    }


Notify = Callable[["CallContext", str, str | None], Awaitable[str]]
Schedule = Callable[["CallContext", str, str, str], Awaitable[str]]


@dataclass(frozen=True)
class Doors:
    """What tools may reach beyond themselves, handed in by the engine."""

    settings: Settings
    egress: Egress
    model: Model
    notify: Notify
    schedule: Schedule


@dataclass
class CallContext:
    """The `ToolContext` of one call."""

    loaded: Loaded
    doors: Doors
    recorder: Recorder
    effect_key: UUID
    usage: Usage = field(default_factory=Usage)

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

    async def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Append `run.progress`."""
        payload = {"text": clean_text(text, 2000), "done": done, "total": total}
        await self.recorder.write(Write(events=[NewEvent(EventType.RUN_PROGRESS, payload)]))

    async def propose(self, patch: dict[str, Any]) -> None:
        """Append `state.proposed`."""
        await self.recorder.write(Write(events=[NewEvent(EventType.STATE_PROPOSED, {"patch": clean_result(patch)})]))

    async def complete(self, prompt: str) -> str:
        """Ask the run's model once; its usage is the run's."""
        response = await model_request(self.doors.model, [ModelRequest.user_text_prompt(prompt)])
        used = response.usage
        self.usage = add(self.usage, Usage(1, used.input_tokens, used.output_tokens, cost_of(response)))
        return "".join(part.content for part in response.parts if part.part_kind == "text")

    async def notify(self, text: str, channel: str | None) -> str:
        """Plan a delivery to whoever follows this conversation."""
        return await self.doors.notify(self, text, channel)

    async def schedule_task(self, prompt: str, schedule_expression: str, timezone: str) -> str:
        """Store a scheduled task."""
        return await self.doors.schedule(self, prompt, schedule_expression, timezone)


class Toolbox:
    """The run's tools as the library calls them."""

    def __init__(self, tools: dict[str, Tool], loaded: Loaded, doors: Doors, recorder: Recorder) -> None:
        """Hold the tools for one claimed run."""
        self._tools = tools
        self._loaded = loaded
        self._doors = doors
        self._recorder = recorder

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
            return await self._call(tool, ctx.tool_call_id or "", arguments)

        return call

    async def _call(self, tool: Tool, call_id: str, arguments: dict[str, Any]) -> Any:
        call = self._recorder.calls[call_id]
        if call.recovered and call.record.state != "proposed":
            await self._reuse(call, tool)
            if call.record.state == "done":
                return call.record.result
        if not tool.idempotent:
            await self._recorder.start_call(call)
        return await self._run(tool, call, arguments)

    async def _reuse(self, call: Call, tool: Tool) -> None:
        """What an earlier claim has recorded of this call decides.

        Raises:
            EffectUnknown: it was under way, and may have happened.
        """
        record = call.record
        if record.state == "failed":
            raise _as_told(record.error or "the tool failed", retry=record.result == {"retry": True})
        if record.state in ("started", "unknown") and not tool.idempotent:
            said = f"the tool {record.tool!r} was interrupted and must not run twice; whether it took effect is unknown"
            await self._recorder.finish_call(call, replace(record, state="unknown", error=said), Usage())
            raise EffectUnknown(said)

    async def _run(self, tool: Tool, call: Call, arguments: dict[str, Any]) -> Any:
        context = CallContext(self._loaded, self._doors, self._recorder, call.place.effect_key)
        began = time.monotonic()
        clock = asyncio.timeout(tool.timeout_seconds)
        try:
            async with clock:
                result = clean_result(await tool.call(context, arguments))
        except (RunFailed, asyncio.CancelledError):
            raise
        except Exception as error:
            said = _told(error, tool, timed_out=clock.expired())
            await self._failed(call, context, said, began, retry=isinstance(error, InvalidArguments))
            raise _as_told(said, retry=isinstance(error, InvalidArguments)) from error
        duration = (time.monotonic() - began) * 1000
        done = replace(call.record, state="done", result=result, duration_ms=round(duration, 2))
        await self._recorder.finish_call(call, done, context.usage)
        return result

    async def _failed(self, call: Call, context: CallContext, said: str, began: float, *, retry: bool) -> None:
        duration = (time.monotonic() - began) * 1000
        result = {"retry": True} if retry else None
        record = replace(call.record, state="failed", error=said, result=result, duration_ms=round(duration, 2))
        await self._recorder.finish_call(call, record, context.usage)


def _told(error: Exception, tool: Tool, *, timed_out: bool) -> str:
    """What the model is told; the words of an unexpected error stay in the log."""
    if timed_out:
        return f"{tool.name} timed out after {tool.timeout_seconds:g} seconds"
    if isinstance(error, ToolError | ParleyError):
        return clean_text(error.detail, 2000)
    log.error("tool.broke", tool=tool.name, exc_info=error)
    return f"{tool.name} failed on an unexpected error ({type(error).__name__})"


def _as_told(said: str, *, retry: bool) -> Exception:
    return ModelRetry(said) if retry else Failed(said)
