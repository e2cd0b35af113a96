"""What the sandbox's own care costs over the bare interpreter, in one interleaved run.

    python -m benchmarks.sandbox [CALLS [STARTS]]

Bare is the interpreter's own pool: a fresh session, the function defined and called. Ours adds the checks, the wall clock,
the account of its own, the converter of results. Quote the ratios.
"""

import asyncio
import sys
from statistics import median
from types import SimpleNamespace
from typing import Any

from pydantic_monty import AsyncMonty

from app import sandbox
from app.db import DEFAULT_WORKSPACE
from app.tools.invoke import invoke
from app.tools.python import define, python_tool
from benchmarks.figure import Figure, milliseconds, tell

CODE = "async def reverse_string(text: str) -> str:\n    return text[::-1]"
CALL = "await reverse_string(**arguments)"
ARGUMENTS = {"text": "hello"}
CALLS = 500
STARTS = 7


async def bare_call(pool: AsyncMonty) -> None:
    async with pool.checkout(limits={"max_feed_duration_secs": 5.0, "max_memory": 64 * 2**20}) as session:
        await session.feed_run(CODE)
        assert await session.feed_run(CALL, inputs={"arguments": ARGUMENTS}) == "olleh"


async def our_call() -> None:
    assert (await sandbox.run(CODE, ARGUMENTS)).result == "olleh"


async def bare_start() -> None:
    async with AsyncMonty(max_processes=4) as pool:
        await bare_call(pool)


async def cold(starts: int) -> tuple[list[float], list[float]]:
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(starts):
        bare.append(await milliseconds(bare_start))
        ours.append(await milliseconds(our_call))
        await sandbox.aclose()
    return bare, ours


async def warm(count: int) -> tuple[list[float], list[float], list[float]]:
    tool = python_tool((await define("reverse_string", "Reverse a text", CODE)).spec)
    context: Any = SimpleNamespace(workspace_id=DEFAULT_WORKSPACE)
    bare: list[float] = []
    ours: list[float] = []
    tools: list[float] = []

    async def tool_call() -> None:
        assert await invoke(tool, context, ARGUMENTS) == "olleh"

    async with AsyncMonty(max_processes=4) as pool:
        for _ in range(count):
            bare.append(await milliseconds(lambda: bare_call(pool)))
            ours.append(await milliseconds(our_call))
            tools.append(await milliseconds(tool_call))
    await sandbox.aclose()
    return bare, ours, tools


async def measure(calls: int = CALLS, starts: int = STARTS) -> list[Figure]:
    bare_starts, our_starts = await cold(starts)
    bare, ours, tools = await warm(calls)
    return [
        Figure("sandbox: cold start and first call ms p50", median(our_starts), median(bare_starts)),
        Figure("sandbox: warm call ms p50", median(ours), median(bare)),
        Figure("sandbox: warm call of a tool, schemas checked, ms p50", median(tools), median(bare)),
    ]


if __name__ == "__main__":
    tell(asyncio.run(measure(*map(int, sys.argv[1:3]))))
