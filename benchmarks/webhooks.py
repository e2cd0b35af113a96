"""How soon a webhook call is answered at 200 calls a second, beside a bare endpoint, in one interleaved run.

    python -m benchmarks.webhooks [ROUNDS]

Bare is FastAPI with one route that checks GitHub's signature and inserts one row, committed. Ours is the API of Parley: it
checks the same signature, reads task, filter, correlation and pace, and commits receipt, conversation, input, run and
events. No worker runs: it would measure how the cores are shared. Real processes on loopback, 6 kB of payload, calls by the
clock: a latency counts from when a call was due, so that a server that falls behind can't hide it. Quote the ratios.
"""

import asyncio
import hashlib
import hmac
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import orjson
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response

from benchmarks import leash
from benchmarks.client import Client, Failed
from benchmarks.ground import MODULE, Ground, parley_servers, prepared
from benchmarks.machine import cpu_ms, load
from benchmarks.phases import bare_commit_ms
from benchmarks.processes import free_port, process, ready
from benchmarks.targets import AGENT

RATE = 200
SECONDS = 6.0
ROUNDS = 5
CONNECTIONS = 64
TASKS = 40
SECRET = "a secret of the sender"
SCHEMA = "create table calls (id uuid primary key, delivery text not null unique, body json not null)"
INSERT = "insert into calls (id, delivery, body) values ($1, $2, $3) on conflict (delivery) do nothing"
FILLER = "A lamp that is too bright, said once more to fill a payload as long as they are. " * 70

# --- the bare server ----------------------------------------------------------------------------------


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    options = {"synchronous_commit": "on", "jit": "off"}
    dsn = os.environ["BARE_DSN"]
    async with asyncpg.create_pool(dsn, min_size=1, max_size=10, server_settings=options) as pool:
        app.state.pool = pool
        yield


api = FastAPI(lifespan=_lifespan)


@api.get("/readyz")
async def is_ready() -> dict[str, str]:
    return {"status": "ok"}


@api.post("/hook", status_code=202)
async def hook(request: Request) -> Response:
    body = await request.body()
    wanted = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted, request.headers.get("x-hub-signature-256", "")):
        return Response(status_code=401)
    orjson.loads(body)
    await api.state.pool.execute(INSERT, uuid4(), request.headers["x-github-delivery"], body.decode())
    return Response(b"{}", 202, media_type="application/json")


@asynccontextmanager
async def bare_server(ground: Ground) -> AsyncIterator["Target"]:
    dsn, port, log = await ground.database("bare", SCHEMA), free_port(), ground.home / "bare.log"
    with process([*MODULE, "benchmarks.webhooks", "bare", str(port)], {"BARE_DSN": dsn}, log) as pid:
        await ready(port, log)
        yield Target("bare", port, lambda number: "/hook", {"api": [pid]}, "select count(*) from calls", dsn)


# --- ours ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A server that hears calls.

    Attributes:
        path: Where the call of a number goes.
        counted: The statement that counts what it has taken.
    """

    name: str
    port: int
    path: Callable[[int], str]
    processes: dict[str, list[int]]
    counted: str
    dsn: str


@asynccontextmanager
async def our_server(ground: Ground) -> AsyncIterator[Target]:
    async with parley_servers(ground, "hooks", worker=False) as parley:
        async with parley.client(0) as client:
            hooks = [await _hook(client) for _ in range(TASKS)]

        def path(number: int) -> str:
            return f"/tasks/webhooks/{hooks[number % TASKS]}"

        counted = "select count(*) from receipts where outcome = 'run'"
        yield Target("Parley", parley.port, path, {"api": parley.processes["api"]}, counted, parley.dsn)


async def _hook(client: Client) -> str:
    config = {
        "verifier": "github",
        "secret": SECRET,
        "filter": {"path": "$.action", "equals": "opened"},
        "correlation": "$.issue.id",
        "runs_per_minute": 1000,
    }
    body = {"task_type": "triggered", "prompt": "Say it.", "agent": AGENT, "trigger_config": config}
    return (await client.json("POST", "/tasks", body))["id"]


# --- the calls ----------------------------------------------------------------------------------------


class Caller(Client):
    """A sender of signed calls, one connection."""

    async def call(self, path: str, body: bytes) -> None:
        """Send one.

        Raises:
            Failed: when it is not answered 202.
        """
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        self._writer.write(
            f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Hub-Signature-256: sha256={signature}\r\nX-GitHub-Delivery: {uuid4()}\r\n\r\n".encode()
            + body
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        said = b"".join([piece async for piece in self._sized(head)])
        if head.split(" ", 2)[1] != "202":
            raise Failed(f"{path} answered {head.splitlines()[0]}: {said[:300]!r}")


def payload(number: int) -> bytes:
    """An issue that nobody has opened before."""
    return orjson.dumps({"action": "opened", "number": number, "issue": {"id": str(uuid4()), "body": FILLER}})


@dataclass(frozen=True)
class Sample:
    """One round on one server, in milliseconds."""

    p50: float
    p99: float
    worst: float
    cpu: float


async def round_of(target: Target, calls: int) -> Sample:
    """So many calls by the clock; each counts from when it was due."""
    connection = await asyncpg.connect(target.dsn)
    before, cpu = await connection.fetchval(target.counted), cpu_ms(target.processes)["api"]
    free: asyncio.Queue[Caller] = asyncio.Queue()
    callers = [Caller(target.port) for _ in range(CONNECTIONS)]
    for caller in callers:
        free.put_nowait(await caller.__aenter__())
    began = time.perf_counter() + 0.05

    async def one(number: int) -> float:
        due, body = began + number / RATE, payload(number)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        caller = await free.get()
        await caller.call(target.path(number), body)
        free.put_nowait(caller)
        return (time.perf_counter() - due) * 1000

    try:
        took = sorted(await asyncio.gather(*map(one, range(calls))))
        after = await connection.fetchval(target.counted)
    finally:
        for caller in callers:
            await caller.__aexit__(None, None, None)
        await connection.close()
    if after - before != calls:
        raise Failed(f"{target.name}: of {calls} calls {after - before} were taken")
    cpu = (cpu_ms(target.processes)["api"] - cpu) / calls
    return Sample(statistics.median(took), took[int(len(took) * 0.99)], took[-1], cpu)


async def measure(rounds: int) -> None:
    found: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o711)  # the servers' account passes through when we are root
        async with prepared(home) as ground:
            print(f"load average {load()}; a bare commit takes {await bare_commit_ms(ground.blank):.2f} ms")
            for number in range(rounds + 1):
                for make in (bare_server, our_server):
                    async with make(ground) as target:
                        await round_of(target, RATE)  # Warm: the first calls of a process are not what is asked.
                        sample = await round_of(target, int(RATE * SECONDS))
                    if number:
                        found.setdefault(target.name, []).append(sample)
                        print(f"round {number}: {target.name}: {sample}", file=sys.stderr, flush=True)
    tell(found)
    print(f"load average at the end {load()}")


def tell(found: dict[str, list[Sample]]) -> None:
    """The medians of the rounds, and their ratios taken round by round."""
    for name, samples in found.items():
        parts: list[str] = []
        for what, unit in (("p50", "ms"), ("p99", "ms"), ("worst", "ms"), ("cpu", "ms of CPU a call")):
            values = [getattr(sample, what) for sample in samples]
            ratio = statistics.median(
                value / getattr(bare, what) for value, bare in zip(values, found["bare"], strict=True)
            )
            parts.append(f"{what} {statistics.median(values):.2f} {unit} ({ratio:.2f}x bare)")
        print(f"{name}: {', '.join(parts)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        leash.hold()
        uvicorn.run(api, port=int(sys.argv[2]), loop="uvloop", http="httptools", log_level="warning", access_log=False)
    else:
        uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
