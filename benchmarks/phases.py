"""The phases: each loads one server for a moment and answers its measures. Every run is checked to be done."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import asyncpg

from benchmarks.client import Client, Failed
from benchmarks.machine import cpu_ms
from benchmarks.model import TOKEN
from benchmarks.targets import Target

Sample = dict[str, float]
CAP_SECONDS = 8.0  # No new run begins in a phase after this.
DRAIN_SECONDS = 60.0
BARE_COMMITS = 30


@dataclass(frozen=True)
class Phase:
    """A measure: which servers it compares, and how much of what it does.

    Attributes:
        name: As it is printed and named by `--only`.
        targets: The servers; the first is the yardstick of the last.
        count: Runs per round; `--quick` does a third.
        clients: How many at once.
        measure: Does it.
    """

    name: str
    targets: tuple[str, ...]
    count: int
    clients: int
    measure: Callable[["Phase", Target, int], Awaitable[Sample]]


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def closed_loop(
    target: Target, clients: int, count: int, work: Callable[[Client], Awaitable[None]]
) -> tuple[int, float]:
    """Let clients work one thing after the other; how many were done, in how many seconds."""
    left, done = count, 0

    async def one(client: Client) -> None:
        nonlocal left, done
        while left > 0 and time.perf_counter() - began < CAP_SECONDS:
            left -= 1
            await work(client)
            done += 1

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(target.client(number)) for number in range(clients)]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for client in opened:
                tasks.create_task(one(client))
        return done, time.perf_counter() - began


# --- what is measured -----------------------------------------------------------------------------------


async def delegated(phase: Phase, target: Target, count: int) -> Sample:
    """Task handed in, executed by the worker, its end awaited."""
    posts: list[float] = []
    totals: list[float] = []
    ids: list[str] = []

    async def work(client: Client) -> None:
        began = time.perf_counter()
        run_id = await target.submit(client)
        posts.append(time.perf_counter() - began)
        ids.append(run_id)
        await target.wait(client, run_id)
        totals.append(time.perf_counter() - began)

    async with Costs(target) as costs:
        done, seconds = await closed_loop(target, phase.clients, count, work)
    starts = await starts_of(target, ids)
    return {
        "runs/s": done / seconds,
        **_spread("submit to finished ms", totals),
        **_spread("accept ms", posts),
        **_spread("accepted to started ms", starts),
        **await costs.per(done),
    }


async def accepted(phase: Phase, target: Target, count: int) -> Sample:
    """Tasks handed in as fast as they are taken; they are executed meanwhile and after."""
    posts: list[float] = []

    async def work(client: Client) -> None:
        began = time.perf_counter()
        await target.submit(client)
        posts.append(time.perf_counter() - began)

    async with Costs(target) as costs:
        done, seconds = await closed_loop(target, phase.clients, count, work)
        await drained(target)
    return {"tasks/s": done / seconds, **_spread("accept ms", posts), **await costs.per(done)}


async def chat(phase: Phase, target: Target, count: int) -> Sample:
    """Chat turns, each in a conversation of its own."""
    turns: list[float] = []

    async def work(client: Client) -> None:
        began = time.perf_counter()
        await target.chat(client)
        turns.append(time.perf_counter() - began)

    async with Costs(target) as costs:
        done, seconds = await closed_loop(target, phase.clients, count, work)
    return {"turns/s": done / seconds, **_spread("turn ms", turns), **await costs.per(done)}


async def first_event(phase: Phase, target: Target, count: int) -> Sample:
    """How much later than the model itself a streamed answer begins."""
    model_ms, over = 20, list[float]()

    async def work(client: Client) -> None:
        began = time.perf_counter()
        heard = await listen(target, client, 20, model_ms)
        over.append(heard.first_text - began - model_ms / 1000)

    async with Costs(target) as costs:
        done, _ = await closed_loop(target, phase.clients, count, work)
    return {**_spread("first text over the model's ms", over), **await costs.per(done)}


async def streams(phase: Phase, target: Target, count: int) -> Sample:
    """Many streams at once."""
    tokens, began = 100, time.perf_counter()
    heard: list[Heard] = []

    async def work(client: Client) -> None:
        heard.append(await listen(target, client, tokens, 0))

    async with Costs(target) as costs:
        began = time.perf_counter()
        done, seconds = await closed_loop(target, count, count, work)
    return {
        "tokens/s": done * tokens / seconds,
        "first event ms p50": median(each.first_event - began for each in heard) * 1000,
        "first text ms p50": median(each.first_text - began for each in heard) * 1000,
        "bytes/token": sum(each.body_bytes for each in heard) / (done * tokens),
        "events/stream": sum(each.events for each in heard) / done,
        **await costs.per(done),
    }


@dataclass
class Heard:
    """What one reader saw of a stream."""

    first_event: float = 0.0
    first_text: float = 0.0
    body_bytes: int = 0
    events: int = 0
    text: str = ""


async def listen(target: Target, client: Client, tokens: int, after_ms: int) -> Heard:
    """Read a streamed answer to its end.

    Raises:
        Failed: when its pieces do not make up the whole text.
    """
    heard = Heard()
    async for piece in target.stream(client, tokens, after_ms):
        heard.first_event = heard.first_event or piece.at
        if piece.text:
            heard.first_text = heard.first_text or piece.at
        heard.text += piece.text
        heard.body_bytes = piece.body_bytes
        heard.events += 1
    if heard.text != TOKEN * tokens:
        raise Failed(f"a stream of {tokens} tokens brought {len(heard.text)} characters")
    return heard


DELEGATED = ("floor", "parley")
INLINE = ("floor-inline", "parley")

PHASES = (
    Phase("delegated-1", DELEGATED, 40, 1, delegated),
    Phase("delegated-8", DELEGATED, 160, 8, delegated),
    Phase("delegated-32", DELEGATED, 400, 32, delegated),
    Phase("accept-16", DELEGATED, 320, 16, accepted),
    Phase("chat-1", INLINE, 100, 1, chat),
    Phase("chat-16", INLINE, 320, 16, chat),
    Phase("first-event", INLINE, 20, 1, first_event),
    Phase("streams-50", INLINE, 50, 50, streams),
)


# --- around a phase --------------------------------------------------------------------------------------


class Costs:
    """CPU time of the servers and of us over a block; afterwards every run in the database must be completed."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> "Costs":
        self._commit = await bare_commit_ms(self._target)
        self._before, self._own = cpu_ms(self._target.processes), _own_cpu_ms()
        return self

    async def __aexit__(self, *raised: object) -> None:
        after = cpu_ms(self._target.processes)
        self._spent = {name: after[name] - self._before[name] for name in after}
        self._own = _own_cpu_ms() - self._own

    async def per(self, done: int) -> Sample:
        """Milliseconds per run, by process."""
        await drained(self._target, seconds=5.0)
        parts = {f"cpu ms {name}": spent / done for name, spent in self._spent.items()}
        servers = sum(spent for name, spent in self._spent.items() if name in ("api", "worker"))
        return {
            "cpu ms servers": servers / done,
            "cpu ms with stores": sum(self._spent.values()) / done,
            **parts,
            "cpu ms client": self._own / done,
            "bare commit ms": self._commit,
        }


def _own_cpu_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1000


async def drained(target: Target, seconds: float = DRAIN_SECONDS) -> None:
    """Until every run of a server is completed.

    Raises:
        Failed: when one ended otherwise, or does not end.
    """
    query = f"select state, count(*) from {target.table} where state <> 'completed' group by state"
    async with connected(target.dsn) as connection:
        until = time.monotonic() + seconds
        while rows := await connection.fetch(query):
            open_runs = {row["state"]: row["count"] for row in rows}
            if time.monotonic() > until or open_runs.keys() & {"failed", "cancelled"}:
                raise Failed(f"{target.name}: not every run completed: {open_runs}")
            await asyncio.sleep(0.02)


async def starts_of(target: Target, ids: list[str]) -> list[float]:
    """Seconds from accepted to started, by PostgreSQL's clock."""
    query = f"""select extract(epoch from started_at - {target.accepted})::float as seconds from {target.table}
        where id = any($1::uuid[]) and state = 'completed'"""
    async with connected(target.dsn) as connection:
        rows = await connection.fetch(query, ids)
    if len(rows) != len(ids):
        raise Failed(f"{target.name}: {len(ids)} runs were accepted, {len(rows)} are completed")
    return [row["seconds"] for row in rows]


async def bare_commit_ms(target: Target) -> float:
    """The median time of a commit that does nothing but reach the disk."""
    async with connected(target.dsn) as connection:
        await connection.execute("set synchronous_commit = on")
        times: list[float] = []
        for number in range(BARE_COMMITS):
            began = time.perf_counter()
            await connection.execute("select pg_logical_emit_message(true, 'bare', $1)", str(number))
            times.append(time.perf_counter() - began)
    return median(times) * 1000


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection of our own."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def _spread(name: str, seconds: list[float]) -> Sample:
    return {f"{name} p50": percentile(seconds, 0.5) * 1000, f"{name} p99": percentile(seconds, 0.99) * 1000}
