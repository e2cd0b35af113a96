"""The servers under test: the floor and Parley, as real processes on one PostgreSQL and one Valkey."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from alembic import command
from alembic.config import Config

from app.embedded import Servers
from app.embedded.home import admin_key, encryption_keys, password
from benchmarks import floor
from benchmarks.client import Client, Event, Failed
from benchmarks.model import answer, order

ROOT = Path(__file__).parents[1]
CLIENTS = 50
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
AGENT = "zero"


@dataclass(frozen=True)
class Piece:
    """What a stream brought: its first event, or some text."""

    text: str
    at: float
    body_bytes: int


class Target(Protocol):
    """A server under test, spoken to in its own words. Every call checks that the work was really done."""

    name: str
    table: str
    accepted: str
    dsn: str
    processes: dict[str, list[int]]

    def client(self, number: int) -> Client:
        """A connection of a client of its own."""
        ...

    async def submit(self, client: Client) -> str:
        """Hand a task in; its run's id."""
        ...

    async def wait(self, client: Client, run_id: str) -> None:
        """Wait for a run's end."""
        ...

    async def chat(self, client: Client) -> None:
        """One chat turn, from message to reply."""
        ...

    def stream(self, client: Client, tokens: int, after_ms: int) -> AsyncIterator[Piece]:
        """One streamed chat turn."""
        ...


@dataclass
class Floor:
    """The floor, and with `inline` the same without ARQ."""

    name: str
    port: int
    dsn: str
    processes: dict[str, list[int]]
    table: str = "floor_runs"
    accepted: str = "created_at"

    def client(self, number: int) -> Client:
        return Client(self.port)

    async def submit(self, client: Client) -> str:
        return (await client.json("POST", "/tasks", {"prompt": order()}))["id"]

    async def wait(self, client: Client, run_id: str) -> None:
        _expect(answer(), (await client.json("GET", f"/tasks/{run_id}/wait"))["result"])

    async def chat(self, client: Client) -> None:
        _expect(answer(), (await client.json("POST", "/chat", {"prompt": order()}))["result"])

    async def stream(self, client: Client, tokens: int, after_ms: int) -> AsyncIterator[Piece]:
        async for event in client.events("POST", "/stream", {"prompt": order(tokens, after_ms)}):
            yield Piece(event.data.get("delta", ""), event.at, event.body_bytes)


@dataclass
class Parley:
    """Parley with everything on; every client has a key of its own."""

    port: int
    dsn: str
    processes: dict[str, list[int]]
    keys: list[str] = field(default_factory=list[str])
    name: str = "parley"
    table: str = "runs"
    accepted: str = "queued_at"

    def client(self, number: int) -> Client:
        return Client(self.port, self.keys[number % len(self.keys)])

    async def submit(self, client: Client) -> str:
        body = {"task_type": "delegation", "prompt": order(), "agent": AGENT}
        return (await client.json("POST", "/tasks", body))["latest_run"]["id"]

    async def wait(self, client: Client, run_id: str) -> None:
        last = [event async for event in client.events("GET", f"/runs/{run_id}/events")][-1]
        _expect(("run.completed", answer()), (last.name, last.data.get("result")))

    async def chat(self, client: Client) -> None:
        reply = await client.json("POST", "/runs", {"agent": AGENT, "message": order()})
        _expect(("completed", answer()), (reply["state"], reply["reply"]))

    async def stream(self, client: Client, tokens: int, after_ms: int) -> AsyncIterator[Piece]:
        body = {"agent": AGENT, "message": order(tokens, after_ms), "stream": True}
        last: Event | None = None
        said = 0
        async for last in client.events("POST", "/runs", body):
            text = _more(last, said)
            said += len(text)
            yield Piece(text, last.at, last.body_bytes)
        _expect(("run.completed", answer(tokens)), last and (last.name, last.data.get("result")))

    async def prepare(self, admin: str) -> None:
        """Make the agent and the clients' keys."""
        async with Client(self.port, admin) as client:
            await client.json("POST", "/agents", {"name": AGENT, "model": "scripted:zero"})
            for number in range(CLIENTS):
                body = {"name": f"client {number}", "scopes": ["*:read", "*:write"]}
                self.keys.append((await client.json("POST", "/keys", body))["key"])


def _more(event: Event, said: int) -> str:
    """What an event adds to a message of which so many characters were read: a reader may join late."""
    if event.name == "text.delta":
        return event.data["delta"]
    whole = event.name == "text.snapshot" or (event.name == "message.completed" and event.data["role"] == "assistant")
    return event.data["text"][said:] if whole else ""


@asynccontextmanager
async def started(home: Path) -> AsyncIterator[list[Target]]:
    """All servers under test, ready; stopped at the end."""
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(home))
        assert servers.postgres
        assert servers.valkey
        dsn, redis = servers.postgres.dsn, servers.valkey.url
        migrated = asyncio.to_thread(_migrate, dsn)
        own = _path(dsn, "/floor")
        await asyncio.gather(migrated, _make_floor_database(dsn, own))
        admin = admin_key()
        bare = _start_floor(stack, home, own, _path(redis, "/1"))
        parley = _start_parley(stack, home, dsn, redis, admin)
        for target in (bare, parley):
            target.processes |= {"postgres": [servers.postgres.pid], "valkey": [servers.valkey.pid]}
            await ready(target.port, home / f"{target.name}-api.log")
        await parley.prepare(admin)
        without_worker = {name: pids for name, pids in bare.processes.items() if name != "worker"}
        yield [bare, Floor("floor-inline", bare.port, own, without_worker), parley]


async def _make_floor_database(dsn: str, own: str) -> None:
    await _execute(dsn, "create database floor")
    await _execute(own, floor.SCHEMA)


def _start_floor(stack: ExitStack, home: Path, dsn: str, redis: str) -> Floor:
    port = free_port()
    environment = {"FLOOR_DSN": dsn, "FLOOR_REDIS": redis}
    module = [sys.executable, "-m", "benchmarks.floor"]
    api = stack.enter_context(process([*module, "api", str(port)], environment, home / "floor-api.log"))
    worker = stack.enter_context(process([*module, "worker"], environment, home / "floor-worker.log"))
    return Floor("floor", port, dsn, {"api": [api], "worker": [worker]})


def _start_parley(stack: ExitStack, home: Path, dsn: str, redis: str, admin: str) -> Parley:
    port = free_port()
    settings = {
        "database_url": dsn,
        "redis_url": redis,
        "parley_home": str(home),
        "parley_port": port,
        "parley_secret": password(),
        "parley_encryption_keys": encryption_keys(),
        "parley_auth": "on",
        "parley_admin_key": admin,
    }
    environment = {"BENCHMARK_SETTINGS": json.dumps(settings)}
    module = [sys.executable, "-m", "benchmarks.ours"]
    api = stack.enter_context(process([*module, "serve"], environment, home / "parley-api.log"))
    worker = stack.enter_context(process([*module, "worker"], environment, home / "parley-worker.log"))
    return Parley(port, dsn, {"api": [api], "worker": [worker]})


def _expect(wanted: Any, found: Any) -> None:
    if wanted != found:
        raise Failed(f"expected {wanted!r:.120}, got {found!r:.300}")


def _path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=path))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


def _migrate(dsn: str) -> None:
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["dsn"] = dsn
    command.upgrade(config, "head")


# --- processes ----------------------------------------------------------------------------------------


@contextmanager
def process(argv: list[str], environment: Mapping[str, str], log: Path, *, inherit: bool = True) -> Iterator[int]:
    """A process that is stopped at the end; its id."""
    variables = {**os.environ, **environment} if inherit else environment
    with log.open("wb") as output:
        started = subprocess.Popen(argv, cwd=ROOT, env=variables, stdout=output, stderr=output)
        try:
            yield started.pid
        finally:
            started.terminate()
            try:
                started.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


async def ready(port: int, log: Path, seconds: float = READY_SECONDS) -> None:
    """Until `/readyz` answers 200."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            async with Client(port) as client:
                await client.json("GET", "/readyz")
                return
        except (OSError, EOFError, Failed):
            await asyncio.sleep(0.02)
    raise Failed(f"no server became ready on port {port}:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
