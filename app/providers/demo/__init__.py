"""The offline `demo` model: rules, labelled as such, that really call the agent's tools.

It calls one tool per response, so that every step of a run can be seen, then explains the results. It fills
output schemas with plausible values and plays the parts of a research job. It says "slowly" slowly.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from typing import Any, cast

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.profiles import ModelProfile

from app.providers.demo.answers import LABEL, answer, body, explain, finding
from app.providers.demo.intents import plan
from app.providers.demo.research import lookup, topic_of
from app.providers.demo.shapes import fill
from app.providers.demo.turn import MAX_WISH, Call, Turn, read_turn
from app.providers.names import DEMO

__all__ = ["LABEL", "demo_model"]

# Seconds between words when a prompt asks for "slowly": time to watch, cancel or leave a stream.
SLOW_SECONDS = 0.1

# It reads text alone: of other files it is told in words.
READS = ModelProfile(
    supports_json_schema_output=True,
    supports_json_object_output=True,
    supports_image_input=False,
    supports_document_input=False,
)

_RESULT = re.compile(r"\b(?:result|outcome|answer|it|that|this)\b", re.IGNORECASE)
_WORDS = re.compile(r"\S+\s*|\s+")


@cache
def demo_model() -> FunctionModel:
    """The one demo model of the process; it keeps no state."""
    return FunctionModel(_respond, stream_function=_stream, model_name=DEMO, profile=READS)


def decide(turn: Turn, info: AgentInfo) -> Call | str:
    """The next tool to call, or the final answer."""
    return _next_call(turn, info) or _shaped(turn, info) or answer(turn)


async def _respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    decision = decide(read_turn(messages, info.function_tools), info)
    part = TextPart(decision) if isinstance(decision, str) else ToolCallPart(decision.tool, decision.arguments)
    return ModelResponse(parts=[part])


async def _stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    turn = read_turn(messages, info.function_tools)
    decision = decide(turn, info)
    if isinstance(decision, Call):
        yield {0: DeltaToolCall(decision.tool, json.dumps(decision.arguments, ensure_ascii=False))}
        return
    pause = SLOW_SECONDS if "slowly" in turn.wish.lower() else 0
    for word in _WORDS.findall(decision):
        yield word
        if pause:
            await asyncio.sleep(pause)


def _next_call(turn: Turn, info: AgentInfo) -> Call | None:
    """The next call not made yet; none while a plan of questions is asked for."""
    if "question" in json.dumps(_schema(info) or {}):
        return None
    if call := lookup(turn):
        return call
    wanted = plan(turn.wish, turn.tools)
    made = len(turn.results)
    return _with_text(wanted[made], turn) if made < len(wanted) else None


def _with_text(call: Call, turn: Turn) -> Call:
    """A notification without words of its own tells what was found so far; who is asked about the result is told it."""
    if call.tool == "chatbot" and turn.results and _RESULT.search(call.arguments.get("query", "")):
        query = f"{call.arguments['query'].rstrip(' .?!')}: {finding(turn.results[-1])}"
        return replace(call, arguments={"query": query})
    if call.tool != "notify" or call.arguments.get("text"):
        return call
    text = explain(turn.results) if turn.results else body(turn)
    return replace(call, arguments={**call.arguments, "text": f"{text} {LABEL}"})


def _shaped(turn: Turn, info: AgentInfo) -> Call | str | None:
    """The final answer in the shape that is asked for, or None when text will do."""
    schema = _schema(info)
    if schema is None:
        return None
    value = fill(schema, topic_of(turn.wish or turn.prompt[:MAX_WISH]), body(turn))
    if info.output_tools and not info.allow_text_output:
        return Call(info.output_tools[0].name, cast("dict[str, Any]", value))
    return json.dumps(value, ensure_ascii=False)


def _schema(info: AgentInfo) -> dict[str, Any] | None:
    if info.output_tools and not info.allow_text_output:
        return info.output_tools[0].parameters_json_schema
    wanted = info.model_request_parameters.output_object
    return wanted.json_schema if wanted else None
