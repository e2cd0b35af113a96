"""OpenAI Chat Completions."""

import json
from collections.abc import Iterator
from typing import Any

from tests.provider_server.scripts import Answer, Ask, Failure, fold
from tests.provider_server.wire import Cut, Event, spoken

CODES = {
    "context": ("invalid_request_error", "context_length_exceeded"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "auth": ("invalid_request_error", "invalid_api_key"),
    "model": ("invalid_request_error", "model_not_found"),
    "rate": ("requests", "rate_limit_exceeded"),
}


def read(body: dict[str, Any], key: str) -> Ask:
    prompt, results = fold(_marks(body["messages"]))
    functions = [tool["function"] for tool in body.get("tools", [])]
    tools = {function["name"]: function.get("parameters", {}) for function in functions}
    return Ask("chat", body["model"], bool(body.get("stream")), prompt, results, tools, key)


def failure(fault: Failure) -> dict[str, Any]:
    kind, code = CODES.get(fault.kind, ("server_error", None))
    return {"error": {"message": fault.message, "type": kind, "param": None, "code": code}}


def whole(ask: Ask, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [_call(use, index, whole=True) for index, use in enumerate(answer.calls)]
    choice = {"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}
    return _envelope(ask, "chat.completion", [choice]) | {"usage": _usage(answer)}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return None, _envelope(ask, "chat.completion.chunk", [choice])

    yield chunk({"role": "assistant", "content": ""})
    if answer.thinking:
        yield chunk({"reasoning_content": answer.thinking})
    for word in spoken(answer):
        yield chunk({"content": word})
    if answer.cut:
        raise Cut
    if answer.stream_error:
        yield None, failure(Failure(503, "overloaded", "The server is overloaded."))
        return
    for index, use in enumerate(answer.calls):
        yield chunk({"tool_calls": [_call(use, index, whole=False)]})
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": json.dumps(use.arguments)}}]})
    yield chunk({}, _finish(answer))
    yield None, _envelope(ask, "chat.completion.chunk", []) | {"usage": _usage(answer)}
    yield None, "[DONE]"


def _marks(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in messages:
        if message["role"] == "user":
            yield "prompt", text_of(message["content"])
        elif message["role"] == "tool":
            yield "result", text_of(message["content"])


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or [])


def _call(use: Any, index: int, *, whole: bool) -> dict[str, Any]:
    arguments = json.dumps(use.arguments) if whole else ""
    call = {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": arguments}}
    return call if whole else call | {"index": index}


def _envelope(ask: Ask, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-loop", "object": kind, "created": 1_700_000_000, "model": ask.model, "choices": choices}


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.input_tokens + answer.output_tokens
    return {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens, "total_tokens": total}
