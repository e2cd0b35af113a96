"""Anthropic Messages."""

import json
from collections.abc import Iterator
from typing import Any

from tests.provider_server.chat import text_of
from tests.provider_server.scripts import Answer, Ask, Failure, fold
from tests.provider_server.wire import Cut, Event, spoken

KINDS = {
    "context": "invalid_request_error",
    "request": "invalid_request_error",
    "quota": "billing_error",
    "auth": "authentication_error",
    "model": "not_found_error",
    "rate": "rate_limit_error",
    "overloaded": "overloaded_error",
}


def read(body: dict[str, Any], key: str) -> Ask:
    prompt, results = fold(_marks(body["messages"]))
    tools = {tool["name"]: tool.get("input_schema", {}) for tool in body.get("tools", [])}
    return Ask("messages", body["model"], bool(body.get("stream")), prompt, results, tools, key)


def failure(fault: Failure) -> dict[str, Any]:
    return {"type": "error", "error": {"type": KINDS.get(fault.kind, "api_error"), "message": fault.message}}


def whole(ask: Ask, answer: Answer) -> dict[str, Any]:
    content = [begun | {key: value for key, value in full.items()} for begun, full, _ in _blocks(answer)]
    return _message(ask, answer, content, _stop(answer))


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, **fields}

    yield event("message_start", message=_message(ask, answer, [], None))
    for index, (begun, _, deltas) in enumerate(_blocks(answer)):
        yield event("content_block_start", index=index, content_block=begun)
        yield from (event("content_block_delta", index=index, delta=delta) for delta in deltas)
        if answer.cut:
            raise Cut
        if answer.stream_error:
            yield "error", failure(Failure(529, "overloaded", "Overloaded"))
            return
        yield event("content_block_stop", index=index)
    delta = {"stop_reason": _stop(answer), "stop_sequence": None}
    yield event("message_delta", delta=delta, usage={"output_tokens": answer.output_tokens})
    yield event("message_stop")


def _marks(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in messages:
        if message["role"] != "user":
            continue
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said = [block["text"] for block in blocks if block["type"] == "text"]
        if said:
            yield "prompt", "\n".join(said)
        for block in blocks:
            if block["type"] == "tool_result":
                yield "result", text_of(block.get("content"))


Block = tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]


def _blocks(answer: Answer) -> list[Block]:
    """Each content block: as it begins, what it ends as, and the deltas between."""
    blocks: list[Block] = []
    if answer.thinking:
        full = {"thinking": answer.thinking, "signature": "loop-signature"}
        deltas = [{"type": "thinking_delta", "thinking": answer.thinking}]
        deltas.append({"type": "signature_delta", "signature": "loop-signature"})
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, full, deltas))
    if answer.text:
        words = [{"type": "text_delta", "text": word} for word in spoken(answer)]
        blocks.append(({"type": "text", "text": ""}, {"text": answer.text}, words))
    for use in answer.calls:
        begun = {"type": "tool_use", "id": use.id, "name": use.name, "input": {}}
        text = json.dumps(use.arguments)
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in (text[:4], text[4:])]
        blocks.append((begun, {"input": use.arguments}, pieces))
    return blocks


def _message(ask: Ask, answer: Answer, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
    return {
        "id": "msg_loop",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens if stop else 1},
    }


def _stop(answer: Answer) -> str:
    return "tool_use" if answer.calls else "end_turn"
