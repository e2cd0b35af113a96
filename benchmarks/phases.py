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
from benchmarks.model import AT_ONCE, IN_A_ROW, TOKEN
from benchmarks.targets import Target

Sample = dict[str, float]
CAP_SECONDS = 8.0  # No new run begins in a phase after this.
DRAIN_SECONDS = 60.0
BARE_COMMITS = 30
PACE_MS = 10
SIDE_BY_SIDE = "side by side"


@dataclass(frozen=True)
class Phase:
    """A measure: which servers it compares, and how much of what it does.

    Attributes:
        name: As it is printed and named by `--only`.
        targets: The servers; the first is the yardstick of the last.
        count: Runs per round; `--quick` does a third.
        clients: How many at once.
        measure: Does it.
        stage: The servers it needs beside each other.
        rounds: No more rounds than this.
        least: No fewer runs than this in a round, with `--quick` too.
        warm: Whether a few runs go before that are not counted.
    """

    name: str
    targets: tuple[str, ...]
    count: int
    clients: int
    measure: Callable[["Phase", Any, int], Awaitable[Sample]]
    stage: str = SIDE_BY_SIDE
    rounds: int = 100
    least: int = 1
    warm: bool = True


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


async def posted(phase: Phase, target: Target, count: int) -> Sample:
    """Messages to idle conversations handed in as fast as they are taken; a worker answers meanwhile and after."""
    posts: list[float] = []
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(target.client(number)) for number in range(phase.clients)]
        shares = [len(range(number, count, phase.clients)) for number in range(phase.clients)]
        ids = [
            each
            for made in await asyncio.gather(*(_open(target, *pair) for pair in zip(opened, shares, strict=True)))
            for each in made
        ]

    async def work(client: Client) -> None:
        conversation_id = ids.pop()
        began = time.perf_counter()
        await target.post(client, conversation_id)
        posts.append(time.perf_counter() - began)

    async with Costs(target) as costs:
        done, seconds = await closed_loop(target, phase.clients, count, work)
        await drained(target)
    return {"messages/s": done / seconds, **_spread("accept ms", posts), **await costs.per(done)}


async def _open(target: Target, client: Client, count: int) -> list[str]:
    return [await target.open_conversation(client) for _ in range(count)]


async def chat(phase: Phase, target: Target, count: int) -> Sample:
    """Chat turns, each in a conversation of its own."""
    return await _turns(phase, target, count, "")


async def chat_with_tools(phase: Phase, target: Target, count: int) -> Sample:
    """Chat turns in which the model calls three tools at once, then answers: two model requests."""
    return await _turns(phase, target, count, AT_ONCE)


async def chat_with_steps(phase: Phase, target: Target, count: int) -> Sample:
    """Chat turns in which the model calls three tools one after the other, then answers: four model requests."""
    return await _turns(phase, target, count, IN_A_ROW)


async def _turns(phase: Phase, target: Target, count: int, prompt: str) -> Sample:
    turns: list[float] = []

    async def work(client: Client) -> None:
        began = time.perf_counter()
        await target.chat(client, prompt)
        turns.append(time.perf_counter() - began)

    async with Costs(target) as costs:
        done, seconds = await closed_loop(target, phase.clients, count, work)
    return {"turns/s": done / seconds, **_spread("turn ms", turns), **await costs.per(done)}


async def first_event(phase: Phase, target: Target, count: int) -> Sample:
    """How much later than the model itself a streamed answer begins."""
    model_ms, over = 20, list[float]()

    async def work(client: Client) -> None:
        heard = await listen(target, client, 20, model_ms)
        over.append(heard.first_text - heard.began - model_ms / 1000)

    async with Costs(target) as costs:
        done, _ = await closed_loop(target, phase.clients, count, work)
    return {**_spread("first text over the model's ms", over), **await costs.per(done)}


async def streams(phase: Phase, target: Target, count: int) -> Sample:
    """Many streams at once, of a model that takes no time."""
    return await _streams(target, count, tokens=100, each_ms=0)


async def paced_streams(phase: Phase, target: Target, count: int) -> Sample:
    """Many streams at once, of a model that speaks as fast as a quick one does: little is there to be put together."""
    return await _streams(target, count, tokens=100, each_ms=PACE_MS)


async def _streams(target: Target, count: int, *, tokens: int, each_ms: int) -> Sample:
    heard: list[Heard] = []

    async def work(client: Client) -> None:
        heard.append(await listen(target, client, tokens, 0, each_ms))

    async with Costs(target) as costs:
        done, seconds = await closed_loop(target, count, count, work)
    return {
        "tokens/s": done * tokens / seconds,
        "first event ms p50": median(each.first_event - each.began for each in heard) * 1000,
        "first text ms p50": median(each.first_text - each.began for each in heard) * 1000,
        "bytes/token": sum(each.body_bytes for each in heard) / (done * tokens),
        "tokens/delta": done * tokens / sum(each.texts for each in heard),
        "events/stream": sum(each.events for each in heard) / done,
        **await costs.per(done),
    }


@dataclass
class Heard:
    """What one reader saw of a stream.

    Attributes:
        began: When it sent the request.
        texts: Events that brought text.
    """

    began: float
    first_event: float = 0.0
    first_text: float = 0.0
    body_bytes: int = 0
    events: int = 0
    texts: int = 0
    text: str = ""


async def listen(target: Target, client: Client, tokens: int, after_ms: int, each_ms: int = 0) -> Heard:
    """Read a streamed answer to its end.

    Raises:
        Failed: when its pieces do not make up the whole text.
    """
    heard = Heard(time.perf_counter())
    async for piece in target.stream(client, tokens, after_ms, each_ms):
        heard.first_event = heard.first_event or piece.at
        if piece.text:
            heard.first_text = heard.first_text or piece.at
            heard.texts += 1
        heard.text += piece.text
        heard.body_bytes = piece.body_bytes
        heard.events += 1
    if heard.text != TOKEN * tokens:
        raise Failed(f"a stream of {tokens} tokens brought {len(heard.text)} characters")
    return heard


# --- around a phase --------------------------------------------------------------------------------------


class Costs:
    """CPU time of the servers and of us over a block; afterwards every run in the database must be completed."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> "Costs":
        self._commit = await bare_commit_ms(self._target.dsn)
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


async def bare_commit_ms(dsn: str) -> float:
    """The median time of a commit that does nothing but reach the disk."""
    async with connected(dsn) as connection:
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
