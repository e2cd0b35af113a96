"""The store seam: messages accepted below HTTP, at a fixed rate, by the function that POST uses.

`first` are first messages, each with its conversation, input, run and events; those that come together share a
statement. `reply` are messages in idle conversations, each in a transaction of its own. They come by the clock, not when
the one before is done; the time of each counts from when it was due. Nobody executes the runs: this is what persistence
alone costs.

    BENCHMARK_SETTINGS={...} python -m benchmarks.seam first|reply RATE SECONDS
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import uvloop

from app import agents, approvals, identity
from app.conversations import Beginning, Beginnings, NewConversation, Turn, find_agent, start
from app.db import DEFAULT_WORKSPACE, Database
from app.models import new_id
from app.patterns import PATTERNS
from app.settings import Settings
from benchmarks import leash
from benchmarks.client import Failed
from benchmarks.machine import cpu_ms
from benchmarks.model import order
from benchmarks.phases import Phase, Sample, bare_commit_ms, percentile
from benchmarks.targets import Target

RATE = 1000
AT_ONCE = 200  # More than that wait in this process; the wait counts.
MODULE = "benchmarks.seam"

Accept = Callable[[UUID], Awaitable[object]]


async def first(phase: Phase, target: Target, count: int) -> Sample:
    """Offer first messages for some seconds from a process of its own."""
    return await _seam("first", target, count)


async def reply(phase: Phase, target: Target, count: int) -> Sample:
    """Offer messages in idle conversations."""
    return await _seam("reply", target, count)


async def _seam(kind: str, target: Target, count: int) -> Sample:
    commit, before = await bare_commit_ms(target.dsn), cpu_ms(target.processes)
    arguments = [kind, str(RATE), str(count / RATE)]
    found = await _run(arguments, target.environment)
    after = cpu_ms(target.processes)
    spent = {f"cpu ms {name}": (after[name] - before[name]) / found["accepted"] for name in after}
    accepted = found.pop("accepted")
    return {**found, "messages": accepted, **spent, "bare commit ms": commit}


async def _run(arguments: list[str], environment: dict[str, str]) -> Any:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE, *arguments, env={**os.environ, **environment}, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    if process.returncode:
        raise Failed(f"{MODULE} ended with {process.returncode}: {error[-500:].decode()}")
    return json.loads(out.splitlines()[-1])


# --- in the process ----------------------------------------------------------------------------------------


async def offer(kind: str, rate: float, seconds: float) -> dict[str, float]:
    """Offer messages and answer how they were taken."""
    settings = Settings.of(**json.loads(os.environ["BENCHMARK_SETTINGS"]))
    database = await Database.open(settings, name="parley seam")
    try:
        await identity.seed(database)
        await agents.seed(database)
        count = int(rate * seconds) + 50
        if kind == "first":
            ids, accept = [new_id() for _ in range(count)], _beginning(database, settings)
        else:
            ids, accept = await _conversations(database, count), _replying(database, settings)
        await _at_rate(accept, ids[:50], rate / 10)  # warm
        return await _at_rate(accept, ids[50:], rate)
    finally:
        await database.close()


def _beginning(database: Database, settings: Settings) -> Accept:
    beginnings, chatbot = Beginnings(database, settings), PATTERNS["chatbot"]

    async def accept(conversation_id: UUID) -> None:
        turn = Turn(order(), run={"detached": True})
        new = Beginning(DEFAULT_WORKSPACE, chatbot, "assistant", turn, conversation_id=conversation_id)
        await beginnings.begin(new)

    return accept


def _replying(database: Database, settings: Settings) -> Accept:
    async def accept(conversation_id: UUID) -> None:
        async with database.engine_tx() as connection:
            turn = Turn(order(), run={"detached": True})
            await approvals.answer_or_reply(connection, settings, DEFAULT_WORKSPACE, conversation_id, turn)

    return accept


async def _conversations(database: Database, count: int) -> list[UUID]:
    """Idle conversations."""
    async with database.engine_tx() as connection:
        agent = await find_agent(connection, DEFAULT_WORKSPACE, "assistant")
        new = [NewConversation(DEFAULT_WORKSPACE, PATTERNS["chatbot"], agent, "api", title="x") for _ in range(count)]
        return [await start(connection, each) for each in new]


async def _at_rate(accept: Accept, ids: list[UUID], rate: float) -> dict[str, float]:
    slots, took = asyncio.Semaphore(AT_ONCE), list[float]()

    async def one(conversation_id: UUID, due: float) -> None:
        async with slots:
            await accept(conversation_id)
        took.append(time.perf_counter() - due)

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for number, conversation_id in enumerate(ids):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            tasks.create_task(one(conversation_id, due))
    seconds = time.perf_counter() - began
    return {
        "accepted": len(took),
        "offered/s": rate,
        "accepted/s": len(took) / seconds,
        "persisted ms p50": percentile(took, 0.5) * 1000,
        "persisted ms p99": percentile(took, 0.99) * 1000,
        "cpu ms process": (time.process_time() - cpu) * 1000 / len(took),
    }


if __name__ == "__main__":
    leash.hold()
    print(json.dumps(uvloop.run(offer(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))))
