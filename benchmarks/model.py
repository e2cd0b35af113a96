"""The zero-latency model that every server under test answers with."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

TOKEN = "tok "
TOKENS = 20
ORDER = re.compile(r"(\d+) tokens(?: after (\d+) ms)?(?:, one each (\d+) ms)?")

# The three calls of a turn with tools, and what the two that have one answer must have said.
CALLS: Sequence[tuple[str, dict[str, Any]]] = (
    ("calculator", {"expression": "6 * 7"}),
    ("current_time", {"timezone": "Europe/Berlin"}),
    ("calculator", {"expression": "(2 + 3) * 4"}),
)
RESULTS = ("42", None, "20")
AT_ONCE = "Use three tools at once."
IN_A_ROW = "Use three tools in a row."

Call = tuple[str, dict[str, Any]]


def order(tokens: int = TOKENS, after_ms: int = 0, each_ms: int = 0) -> str:
    """The prompt that asks for so many tokens, the first of them after a while, at some pace."""
    return f"Say {tokens} tokens after {after_ms} ms, one each {each_ms} ms."


def answer(tokens: int = TOKENS) -> str:
    """What the model says to that, and after its tools."""
    return TOKEN * tokens


def zero_model() -> FunctionModel:
    """The model: it takes no time of its own unless the prompt says so."""
    return FunctionModel(_whole, stream_function=_streamed, model_name="zero")


async def _whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    if calls := _calls(messages):
        return ModelResponse(parts=[ToolCallPart(name, arguments) for name, arguments in calls], model_name="zero")
    tokens, wait, _ = _asked(messages)
    if wait:
        await asyncio.sleep(wait)
    return ModelResponse(parts=[TextPart(answer(tokens))], model_name="zero")


async def _streamed(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    if calls := _calls(messages):
        for index, (name, arguments) in enumerate(calls):
            yield {index: DeltaToolCall(name, json.dumps(arguments), tool_call_id=f"call-{len(messages)}-{index}")}
        return
    tokens, wait, each = _asked(messages)
    if wait:
        await asyncio.sleep(wait)
    for _ in range(tokens):
        yield TOKEN
        if each:
            await asyncio.sleep(each)


def _said(messages: list[ModelMessage]) -> str:
    """The last thing a person said."""
    prompts = (part for message in reversed(messages) for part in message.parts if isinstance(part, UserPromptPart))
    return str(next(prompts).content)


def _asked(messages: list[ModelMessage]) -> tuple[int, float, float]:
    """Tokens, seconds before the first of them, and seconds between them."""
    if found := ORDER.search(_said(messages)):
        return int(found[1]), int(found[2] or 0) / 1000, int(found[3] or 0) / 1000
    return TOKENS, 0.0, 0.0


def _calls(messages: list[ModelMessage]) -> Sequence[Call]:
    """The tools to call now; none when the prompt wants none, or all have answered."""
    said = _said(messages)
    if said not in (AT_ONCE, IN_A_ROW):
        return ()
    returns = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    for result, wanted in zip(returns, RESULTS, strict=False):
        assert wanted in (None, result.content), f"{result.tool_name} answered {result.content!r} and not {wanted!r}"
    return CALLS[len(returns) :] if said == AT_ONCE else CALLS[len(returns) : len(returns) + 1]
