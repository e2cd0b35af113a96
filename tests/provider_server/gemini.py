"""Google generateContent."""

import json
from collections.abc import Iterator
from typing import Any

from tests.provider_server.scripts import Answer, Ask, Failure, fold
from tests.provider_server.wire import Cut, Event, spoken

STATUSES = {
    "context": "INVALID_ARGUMENT",
    "request": "INVALID_ARGUMENT",
    "quota": "RESOURCE_EXHAUSTED",
    "auth": "UNAUTHENTICATED",
    "model": "NOT_FOUND",
    "rate": "RESOURCE_EXHAUSTED",
    "overloaded": "UNAVAILABLE",
}


def read(body: dict[str, Any], key: str, model: str, stream: bool) -> Ask:
    prompt, results = fold(_marks(body["contents"]))
    declared = [one for tool in body.get("tools", []) for one in tool.get("functionDeclarations", [])]
    tools = {one["name"]: one.get("parameters_json_schema", {}) for one in declared}
    return Ask("gemini", model, stream, prompt, results, tools, key)


def failure(fault: Failure) -> dict[str, Any]:
    message = fault.message
    if fault.kind == "context":
        message = "The input token count (1500000) exceeds the maximum number of tokens allowed (1048576)."
    return {"error": {"code": fault.status, "message": message, "status": STATUSES.get(fault.kind, "INTERNAL")}}


def whole(ask: Ask, answer: Answer) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"text": answer.thinking, "thought": True}] if answer.thinking else []
    parts += [{"text": answer.text}] if answer.text else []
    return _piece(ask, parts + _calls(answer), answer)


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    if answer.thinking:
        yield None, _piece(ask, [{"text": answer.thinking, "thought": True}], None)
    for word in spoken(answer):
        yield None, _piece(ask, [{"text": word}], None)
    if answer.cut:
        raise Cut
    if answer.stream_error:
        yield None, failure(Failure(503, "overloaded", "The model is overloaded."))
        return
    yield None, _piece(ask, _calls(answer), answer)


def _marks(contents: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for content in contents:
        if content.get("role") == "model":
            continue
        for part in content["parts"]:
            if "functionResponse" in part:
                yield "result", json.dumps(part["functionResponse"]["response"])
            elif "text" in part:
                yield "prompt", part["text"]


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [{"functionCall": {"id": use.id, "name": use.name, "args": use.arguments}} for use in answer.calls]


def _piece(ask: Ask, parts: list[dict[str, Any]], last: Answer | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    piece: dict[str, Any] = {"candidates": [candidate], "modelVersion": ask.model, "responseId": "resp-loop"}
    if last:
        candidate["finishReason"] = "STOP"
        piece["usageMetadata"] = {
            "promptTokenCount": last.input_tokens,
            "candidatesTokenCount": last.output_tokens,
            "totalTokenCount": last.input_tokens + last.output_tokens,
        }
    return piece
