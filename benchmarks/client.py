"""A lean HTTP/1.1 client: one connection kept alive, JSON bodies, server-sent events. No load generator costs nothing;
this one costs little."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson

SECONDS = 60.0


class Failed(Exception):
    """A server under test did not do what was asked."""


@dataclass(frozen=True)
class Event:
    """A server-sent event, when its first byte was seen, and how many bytes of the body the events took so far."""

    name: str
    data: Any
    at: float
    body_bytes: int


class Client:
    """One connection to one server."""

    def __init__(self, port: int, key: str | None = None) -> None:
        self._port = port
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = f"Host: 127.0.0.1:{port}\r\n{authorization}"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """Ask, and read the JSON that a success answers."""
        async with asyncio.timeout(SECONDS):
            status, content = await self._ask(method, path, body)
            read = b"".join([piece async for piece in content])
        _expect_success(method, path, status, read)
        return orjson.loads(read) if read else None

    async def events(self, method: str, path: str, body: Any = None) -> AsyncIterator[Event]:
        """Ask, and read the answer's events to its end."""
        async with asyncio.timeout(SECONDS):
            status, content = await self._ask(method, path, body)
            waiting, size = b"", 0
            async for piece in content:
                at = time.perf_counter()
                size += len(piece)
                *blocks, waiting = (waiting + piece.replace(b"\r\n", b"\n")).split(b"\n\n")
                for block in blocks:
                    if block and not block.startswith(b":"):
                        yield _event(block, at, size)
        _expect_success(method, path, status, waiting)

    async def _ask(self, method: str, path: str, body: Any) -> tuple[int, AsyncIterator[bytes]]:
        content = b"" if body is None else orjson.dumps(body)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{kind}\r\n".encode() + content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        return status, self._chunks() if "transfer-encoding: chunked" in head else self._sized(head)

    async def _sized(self, head: str) -> AsyncIterator[bytes]:
        _, found, rest = head.partition("content-length:")
        if found and (size := int(rest.split("\r\n", 1)[0])):
            yield await self._reader.readexactly(size)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            chunk = await self._reader.readexactly(size + 2)
            yield chunk[:-2]
        await self._reader.readexactly(2)


def _event(block: bytes, at: float, size: int) -> Event:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
    return Event(fields.get(b"event", b"message").decode(), orjson.loads(fields[b"data"]), at, size)


def _expect_success(method: str, path: str, status: int, body: bytes) -> None:
    if status >= 300 or status == 204:
        raise Failed(f"{method} {path} answered {status}: {body[:300].decode(errors='replace')}")
