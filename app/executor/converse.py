"""One turn of an agent: the library's run over the stored history, recorded as it goes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, capture_run_messages
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.output import StructuredDict
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RunUsage, UsageLimits

from app.agents import render_instructions
from app.db import dump_json
from app.events import EventType, NewEvent
from app.executor.load import Loaded
from app.executor.recorder import Checkpoint, Recorder, add
from app.executor.speech import Speech
from app.executor.toolbox import Toolbox
from app.messages import Json, clean_value
from app.patterns import NO_CHANGE
from app.runs import RunState, Write
from app.settle import Outcome
from app.tools.schema import misfit

# Models like to set a word off: **NO_CHANGE**, `NO_CHANGE`.
SAYS_NO_CHANGE = re.compile(rf"\W*{NO_CHANGE}\b")


@dataclass(frozen=True)
class Cast:
    """Who takes part in a run: its rows, model, recorder, tools and voice."""

    loaded: Loaded
    model: Model
    recorder: Recorder
    toolbox: Toolbox
    speech: Speech


async def converse(cast: Cast) -> Outcome:
    """Let the agent answer what the history ends with."""
    history = history_of(cast.loaded.history)
    finished = answered(history)
    if finished is not None:
        return completed(cast, finished, history)
    agent = agent_of(cast, cast.loaded.output_schema)
    output, messages = await ask(cast, agent, history)
    return completed(cast, output, messages)


class Parked(Exception):
    """The agent's calls wait for people; what else it asked for is done and recorded."""


async def ask(cast: Cast, agent: Agent[None, Any], history: Sequence[ModelMessage]) -> tuple[Any, list[ModelMessage]]:
    """Run the library over a history; the recorder sees its messages also when it is cut off.

    Raises:
        Parked: when a call waits for a person.
    """
    with capture_run_messages() as cast.recorder.heard:
        result = await agent.run(
            None,
            message_history=history,
            usage=usage_so_far(cast.recorder),
            usage_limits=limits_of(cast.loaded),
        )
    if isinstance(result.output, DeferredToolRequests):
        raise Parked
    return result.output, result.all_messages()


def history_of(bodies: Sequence[Json]) -> list[ModelMessage]:
    """Stored bodies as the library's messages."""
    return ModelMessagesTypeAdapter.validate_python(list(bodies))


def answered(history: Sequence[ModelMessage]) -> str | None:
    """The text of a history that ends with an answer: the run had finished and only its end was not recorded."""
    last = history[-1] if history else None
    if not isinstance(last, ModelResponse) or last.tool_calls or last.state == "interrupted":
        return None
    return last.text or ""


def agent_of(cast: Cast, output_schema: Json | None, *, tools: bool = True, extra: str = "") -> Agent[None, Any]:
    """The library's agent for this run; made each time, which costs a fraction of a millisecond."""
    loaded = cast.loaded
    agent: Agent[None, Any] = Agent(
        cast.model,
        instructions=instructions_of(loaded, extra) or None,
        output_type=[
            StructuredDict(output_schema, name="result") if output_schema else str,
            DeferredToolRequests,
        ],
        model_settings=model_settings_of(loaded),
        tools=cast.toolbox.library_tools() if tools else (),
        capabilities=[Checkpoint(cast.recorder)],
        retries=2,
    )
    if output_schema:
        agent.output_validator(_fitting(output_schema))
    return agent


def _fitting(schema: Json) -> Callable[[Any], Any]:
    """Asks the model again for an output that is not what its schema says: the library only makes it an object."""

    def fit(output: object) -> object:
        wrong = None if isinstance(output, str | DeferredToolRequests) else misfit(schema, output, "output")
        if wrong:
            raise ModelRetry(wrong)
        return output

    return fit


def model_settings_of(loaded: Loaded) -> ModelSettings | None:
    """The agent's model settings as the library takes them."""
    chosen = loaded.spec.model_settings.model_dump(exclude_none=True)
    return ModelSettings(**chosen) if chosen else None


def instructions_of(loaded: Loaded, extra: str = "") -> str:
    """The agent's instructions, filled in, then the pattern's."""
    context = {
        "user": loaded.user,
        "title": loaded.title,
        "context": loaded.context_data,
        "today": datetime.now(UTC).date().isoformat(),
    }
    own = render_instructions(loaded.spec.instructions, context)
    return "\n\n".join(part for part in (own, loaded.pattern.instructions, extra) if part)


def usage_so_far(recorder: Recorder) -> RunUsage:
    """What the run has used already, so that its limits hold over recoveries and phases."""
    used = recorder.used
    return RunUsage(
        requests=used.requests,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
    )


def limits_of(loaded: Loaded) -> UsageLimits:
    """The agent's limits as the library keeps them; the recorder keeps those on money and tool calls."""
    limits = loaded.spec.limits
    return UsageLimits(
        request_limit=limits.requests,
        total_tokens_limit=limits.tokens,
    )


def completed(cast: Cast, output: Any, messages: Sequence[ModelMessage]) -> Outcome:
    """The outcome of an answer, with what is left to store."""
    write = with_usage(cast.recorder, cast.recorder.last_write(messages))
    if isinstance(output, str):
        text = write.messages[0].text if write.messages else output
        return Outcome(RunState.COMPLETED, result=text, unchanged=_nothing_new(cast.loaded, text), write=write)
    value = clean_value(output)
    unchanged = _nothing_new(cast.loaded, value)
    return Outcome(RunState.COMPLETED, result=dump_json(value), output=value, unchanged=unchanged, write=write)


def _nothing_new(loaded: Loaded, output: str | Json) -> bool:
    """Whether the run of a schedule says that there is nothing to tell: in its text, or as a field of its output."""
    if loaded.fire_id is None or loaded.pattern.context != "fire":
        return False
    if isinstance(output, str):
        return SAYS_NO_CHANGE.match(output) is not None
    return output.get("no_change") is True


def with_usage(recorder: Recorder, write: Write) -> Write:
    """Add the event that sums a run up."""
    total = add(recorder.used, write.usage)
    payload = {
        "requests": total.requests,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "cost_usd": None if total.cost_usd is None else float(total.cost_usd),
    }
    write.events.append(NewEvent(EventType.USAGE, payload))
    return write
