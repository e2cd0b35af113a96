"""Many idle readers of event streams on one API process: what each costs, and how soon all hear of an event.

Most read a conversation of their own; a sample reads one that they share. They are bare sockets on our side.
"""

import asyncio
import resource
import time
from typing import Any

from benchmarks.client import Failed
from benchmarks.machine import cpu_ms, pss_mb
from benchmarks.phases import Phase, Sample, connected, percentile
from benchmarks.targets import Parley

SHARED = 500
OPENING = 64
SPARE_FILES = 300  # Of the server and of us, for everything but readers.
SETTLE_SECONDS = 1.0  # A reader is answered before it has found its place in the stream.
IDLE_SECONDS = 5.0
OPEN_SECONDS = 150.0
HEARD_SECONDS = 20.0
MARKS = (b"event: run.queued", b"event: run.completed")


class Reader(asyncio.Protocol):
    """One open stream."""

    __slots__ = ("at", "opened", "transport", "waiting")

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.at: dict[bytes, float] = {}
        self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._open(data)
        elif data.strip(b": \r\n"):
            self.waiting = (self.waiting + data)[-4000:]
            now = time.perf_counter()
            self.at |= {mark: now for mark in MARKS if mark not in self.at and mark in self.waiting}

    def _open(self, data: bytes) -> None:
        self.waiting += data
        if b"\r\n\r\n" in self.waiting:
            status = self.waiting.split(b"\r\n", 1)[0]
            if b" 200 " in status:
                self.opened.set_result(None)
            else:
                self.opened.set_exception(Failed(f"a reader was answered {self.waiting[:300].decode('latin-1')}"))
            self.waiting = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(Failed("a reader was cut off"))


def room(wanted: int) -> int:
    """How many readers the limit of open files leaves; it is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fits = hard if hard == resource.RLIM_INFINITY else hard - SPARE_FILES
    return wanted if fits < 0 else min(wanted, fits)


async def readers(phase: Phase, target: Parley, count: int) -> Sample:
    """Open as many as go in the time there is, let them be, tell the sample something, close them."""
    ids, shared = await _conversations(target)
    api = {"api": target.processes["api"]}
    memory, cpu = pss_mb(target.processes), cpu_ms(api)
    opened: list[Reader] = []
    try:
        began = time.perf_counter()
        await _open_all(target, [*[shared] * SHARED, *ids], opened)
        connecting = time.perf_counter() - began
        await asyncio.sleep(SETTLE_SECONDS)
        opening_ms = cpu_ms(api)["api"] - cpu["api"]
        after = pss_mb(target.processes)
        idle = cpu_ms(api)
        await asyncio.sleep(IDLE_SECONDS)
        idle_ms = cpu_ms(api)["api"] - idle["api"]
        heard = await _tell(target, shared[0], opened[:SHARED])
    finally:
        for reader in opened:
            reader.transport.abort()
    return {
        "readers": len(opened),
        "memory kB per reader": (after["api"] - memory["api"]) * 1024 / len(opened),
        "valkey kB per reader": (after["valkey"] - memory["valkey"]) * 1024 / len(opened),
        "connects/s": len(opened) / connecting,
        "cpu ms api per connect": opening_ms / len(opened),
        "idle cpu % of a core": idle_ms / IDLE_SECONDS / 10,
        **heard,
    }


async def _conversations(target: Parley) -> tuple[list[tuple[str, int]], tuple[str, int]]:
    """Stored conversations with the number of their last event, and the one that is shared."""
    async with connected(target.dsn) as connection:
        rows = await connection.fetch("select conversation_id, event_seq from heads")
    async with target.client(0) as client:
        shared = await target.open_conversation(client)
    return [(str(row["conversation_id"]), row["event_seq"]) for row in rows], (shared, 0)


async def _open_all(target: Parley, places: list[tuple[str, int]], opened: list[Reader]) -> None:
    loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(OPENING)

    async def one(number: int, conversation_id: str, after: int) -> Reader:
        async with slots:
            transport, reader = await loop.create_connection(Reader, "127.0.0.1", target.port)
            transport.write(
                f"GET /conversations/{conversation_id}/events?after={after} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
                f"Authorization: Bearer {target.keys[number % len(target.keys)]}\r\n\r\n".encode()
            )
            await reader.opened
            return reader

    made = [asyncio.create_task(one(number, *place)) for number, place in enumerate(places)]
    done, late = await asyncio.wait(made, timeout=OPEN_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    opened += [task.result() for task in made if task in done]


async def _tell(target: Parley, conversation_id: str, sample: list[Reader]) -> Sample:
    """A message to the shared conversation: its first event comes from the API itself, its last from the worker."""
    async with target.client(0) as client:
        began = time.perf_counter()
        await target.post(client, conversation_id)
    until = began + HEARD_SECONDS
    while not all(len(reader.at) == len(MARKS) for reader in sample):
        if time.perf_counter() > until:
            raise Failed(f"{sum(len(reader.at) < len(MARKS) for reader in sample)} of {len(sample)} readers missed it")
        await asyncio.sleep(0.02)
    first, last = ([reader.at[mark] - began for reader in sample] for mark in MARKS)
    return {
        "first event to p50 of the sample ms": percentile(first, 0.5) * 1000,
        "first event to all of the sample ms": max(first) * 1000,
        "last event to all of the sample ms": max(last) * 1000,
    }
