"""OpenAI Responses."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.provider_server import chat
from tests.provider_server.scripts import Answer, Ask, Failure, ToolUse, fold
from tests.provider_server.wire import Cut, Event, spoken

failure = chat.failure


def read(body: dict[str, Any], key: str) -> Ask:
    given = body["input"]
    prompt, results = (given, ()) if isinstance(given, str) else fold(_marks(given))
    tools = {tool["name"]: tool.get("parameters", {}) for tool in body.get("tools", []) if tool["type"] == "function"}
    return Ask("responses", body["model"], bool(body.get("stream")), prompt, results, tools, key)


def whole(ask: Ask, answer: Answer) -> dict[str, Any]:
    return _response(ask, "completed", [item for item, _ in _items(answer)], answer)


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    numbers = count()

    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, "sequence_number": next(numbers), **fields}

    yield event("response.created", response=_response(ask, "in_progress", [], None))
    for index, (item, deltas) in enumerate(_items(answer)):
        where = {"item_id": item["id"], "output_index": index}
        yield event("response.output_item.added", output_index=index, item=_begun(item))
        yield from (event(kind, **where, **fields) for kind, fields in deltas)
        if answer.cut:
            raise Cut
        if answer.stream_error:
            yield event("error", code="server_error", message="The server is overloaded.", param=None)
            return
        yield event("response.output_item.done", output_index=index, item=item)
    done = _response(ask, "completed", [item for item, _ in _items(answer)], answer)
    yield event("response.completed", response=done)


def _marks(items: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for item in items:
        if item.get("type") == "function_call_output":
            yield "result", chat.text_of(item["output"])
        elif item.get("role") == "user":
            yield "prompt", chat.text_of(item["content"])


Deltas = list[tuple[str, dict[str, Any]]]


def _items(answer: Answer) -> list[tuple[dict[str, Any], Deltas]]:
    items: list[tuple[dict[str, Any], Deltas]] = []
    if answer.thinking:
        items.append(_reasoning(answer.thinking))
    if answer.text:
        items.append(_message(answer))
    return items + [_call(use) for use in answer.calls]


def _reasoning(text: str) -> tuple[dict[str, Any], Deltas]:
    part = {"type": "summary_text", "text": text}
    item = {"id": "rs_loop", "type": "reasoning", "summary": [part]}
    deltas: Deltas = [
        ("response.reasoning_summary_part.added", {"summary_index": 0, "part": part | {"text": ""}}),
        ("response.reasoning_summary_text.delta", {"summary_index": 0, "delta": text}),
        ("response.reasoning_summary_text.done", {"summary_index": 0, "text": text}),
        ("response.reasoning_summary_part.done", {"summary_index": 0, "part": part}),
    ]
    return item, deltas


def _message(answer: Answer) -> tuple[dict[str, Any], Deltas]:
    part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    item = {"id": "msg_loop", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    deltas: Deltas = [("response.content_part.added", {"content_index": 0, "part": part | {"text": ""}})]
    for word in spoken(answer):
        deltas.append(("response.output_text.delta", {"content_index": 0, "delta": word, "logprobs": []}))
    if not (answer.cut or answer.stream_error):
        deltas.append(("response.output_text.done", {"content_index": 0, "text": answer.text, "logprobs": []}))
        deltas.append(("response.content_part.done", {"content_index": 0, "part": part}))
    return item, deltas


def _call(use: ToolUse) -> tuple[dict[str, Any], Deltas]:
    arguments = json.dumps(use.arguments)
    item = {
        "id": f"fc_{use.id}",
        "type": "function_call",
        "status": "completed",
        "call_id": use.id,
        "name": use.name,
        "arguments": arguments,
    }
    deltas: Deltas = [
        ("response.function_call_arguments.delta", {"delta": arguments}),
        ("response.function_call_arguments.done", {"arguments": arguments, "name": use.name}),
    ]
    return item, deltas


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is announced: nothing in it yet."""
    empty = {"message": {"content": []}, "function_call": {"arguments": ""}, "reasoning": {"summary": []}}
    return item | {"status": "in_progress"} | empty[item["type"]]


def _response(ask: Ask, status: str, output: list[dict[str, Any]], answer: Answer | None) -> dict[str, Any]:
    return {
        "id": "resp_loop",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "usage": _usage(answer) if answer else None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


__all__ = ["Failure", "events", "failure", "read", "whole"]
