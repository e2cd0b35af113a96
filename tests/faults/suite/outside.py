"""The world outside: one HTTP server that is a Slack webhook, an OpenAI-compatible model and a page to fetch.

Everything it was asked is in the journal. Now and then it refuses, as such servers do.
"""

import asyncio
import itertools
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from tests.faults.suite.journal import Journal
from tests.faults.suite.words import SAYING

RUN = re.compile(r"/runs/([0-9a-f-]{36})")


@dataclass
class Outside:
    """Listens on loopback."""

    journal: Journal
    port: int = 0
    public_port: int = 0  # Where the processes reach it: the proxy's.
    _posts: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                await self._answer(head.split()[1], body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/services/"):
            await self._slack(body.decode(), writer)
        elif path.endswith("/chat/completions"):
            await self._model(json.loads(body), writer)
        else:
            self.journal.note("fetch", path=path)
            await _send(writer, 200, f"The page {path}.", "text/plain")

    async def _slack(self, body: str, writer: asyncio.StreamWriter) -> None:
        number, found = next(self._posts), RUN.search(body)
        assert found, body
        status = 500 if number % 23 == 0 else 429 if number % 37 == 0 else 200
        if status == 200:
            self.journal.note("slack", run=found[1], text=json.loads(body)["text"])
        await asyncio.sleep(0.03)  # So that senders die between sending and saying so.
        await _send(writer, status, "ok" if status == 200 else "try again", "text/plain", "Retry-After: 1\r\n")

    # --- the model -----------------------------------------------------------------------------------

    async def _model(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        name, tools, words, given = _understood(asked["messages"])
        nonce = secrets.token_hex(3)
        self.journal.note("remote ask", name=name, n=given, nonce=nonce)
        if given < len(tools):
            arguments = json.dumps({"url": f"http://127.0.0.1:{self.public_port}/page/{name}/{given}"})
            function = {"name": tools[given], "arguments": arguments}
            call = {"index": 0, "id": f"call-{given}", "type": "function", "function": function}
            pieces: list[dict[str, Any]] = [{"tool_calls": [call]}]
        else:
            said = [name, *(f" {nonce}{n}" for n in range(words))]
            pieces = [{"content": word} for word in said]
        if asked.get("stream"):
            await _stream(writer, pieces)
        else:
            await _send(writer, 200, json.dumps(_completion(_merged(pieces), "message")), "application/json")


def _understood(messages: list[dict[str, Any]]) -> tuple[str, list[str], int, int]:
    """What the last prompt asks for, and how many responses came since."""
    given = 0
    for message in reversed(messages):
        if message["role"] == "assistant":
            given += 1
        elif message["role"] == "user" and (found := list(SAYING.finditer(json.dumps(message["content"])))):
            said = found[-1]
            return said[1], said[2].split(",") if said[2] else [], int(said[3]), given
    raise ValueError("the history holds no prompt")


def _merged(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    text = "".join(piece.get("content", "") for piece in pieces)
    calls = [call for piece in pieces for call in piece.get("tool_calls", ())]
    return {"role": "assistant", "content": text or None, **({"tool_calls": calls} if calls else {})}


def _completion(piece: dict[str, Any], where: str, reason: str | None = None) -> dict[str, Any]:
    ended = reason or ("tool_calls" if "tool_calls" in piece else "stop")
    choice = {"index": 0, where: piece, "finish_reason": ended if where == "message" or reason else None}
    kind = "chat.completion" if where == "message" else "chat.completion.chunk"
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "x", "object": kind, "created": 1, "model": "suite", "choices": [choice], "usage": usage}


async def _stream(writer: asyncio.StreamWriter, pieces: list[dict[str, Any]]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    reason = "tool_calls" if "tool_calls" in pieces[0] else "stop"
    for piece in pieces:
        _chunk(writer, json.dumps(_completion({"role": "assistant", **piece}, "delta")))
        await writer.drain()
        await asyncio.sleep(0.02)
    _chunk(writer, json.dumps(_completion({}, "delta", reason)))
    _chunk(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _chunk(writer: asyncio.StreamWriter, data: str) -> None:
    event = f"data: {data}\n\n".encode()
    writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


async def _send(writer: asyncio.StreamWriter, status: int, body: str, kind: str, more: str = "") -> None:
    head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n{more}\r\n"
    writer.write(head.encode() + body.encode())
    await writer.drain()
