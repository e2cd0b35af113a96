"""The zero-latency model that every server under test answers with."""

import asyncio
import re
from collections.abc import AsyncIterator

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

TOKEN = "tok "
TOKENS = 20
ORDER = re.compile(r"(\d+) tokens(?: after (\d+) ms)?")


def order(tokens: int = TOKENS, after_ms: int = 0) -> str:
    """The prompt that asks for so many tokens, the first of them after a while."""
    return f"Say {tokens} tokens after {after_ms} ms."


def answer(tokens: int = TOKENS) -> str:
    """What the model says to that."""
    return TOKEN * tokens


def zero_model() -> FunctionModel:
    """The model: it takes no time of its own unless the prompt says so."""
    return FunctionModel(_whole, stream_function=_streamed, model_name="zero")


async def _whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    tokens, wait = _asked(messages)
    if wait:
        await asyncio.sleep(wait)
    return ModelResponse(parts=[TextPart(answer(tokens))], model_name="zero")


async def _streamed(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
    tokens, wait = _asked(messages)
    if wait:
        await asyncio.sleep(wait)
    for _ in range(tokens):
        yield TOKEN


def _asked(messages: list[ModelMessage]) -> tuple[int, float]:
    """Tokens, and seconds before the first of them."""
    for part in reversed(messages[-1].parts):
        if isinstance(part, UserPromptPart) and (found := ORDER.search(str(part.content))):
            return int(found[1]), int(found[2] or 0) / 1000
    return TOKENS, 0.0
