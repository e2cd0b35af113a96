"""What the sandbox's own care costs over the bare interpreter, in one interleaved run.

    python -m benchmarks.sandbox [CALLS]

Bare is the interpreter's own pool: a fresh session, the function defined and called. Ours adds the checks, the wall clock,
the account of its own, the converter of results. Quote the ratios.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from pydantic_monty import AsyncMonty

from app import sandbox
from app.tools.python import PythonSpec, define, execute

CODE = "async def reverse_string(text: str) -> str:\n    return text[::-1]"
CALL = "await reverse_string(**arguments)"
ARGUMENTS = {"text": "hello"}
CALLS = 500
COLD = 7


async def bare_call(pool: AsyncMonty) -> None:
    async with pool.checkout(limits={"max_feed_duration_secs": 5.0, "max_memory": 64 * 2**20}) as session:
        await session.feed_run(CODE)
        assert await session.feed_run(CALL, inputs={"arguments": ARGUMENTS}) == "olleh"


async def our_call() -> None:
    assert (await sandbox.run(CODE, ARGUMENTS)).result == "olleh"


async def bare_start() -> None:
    async with AsyncMonty(max_processes=4) as pool:
        await bare_call(pool)


async def milliseconds(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def cold() -> tuple[list[float], list[float]]:
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(COLD):
        bare.append(await milliseconds(bare_start))
        ours.append(await milliseconds(our_call))
        await sandbox.aclose()
    return bare, ours


async def warm(count: int) -> tuple[list[float], list[float], list[float]]:
    spec = PythonSpec.model_validate((await define("reverse_string", "Reverse a text", CODE)).spec)
    bare: list[float] = []
    ours: list[float] = []
    tools: list[float] = []

    async def tool_call() -> None:
        assert await execute(spec, ARGUMENTS) == "olleh"

    async with AsyncMonty(max_processes=4) as pool:
        for _ in range(count):
            bare.append(await milliseconds(lambda: bare_call(pool)))
            ours.append(await milliseconds(our_call))
            tools.append(await milliseconds(tool_call))
    await sandbox.aclose()
    return bare, ours, tools


async def measure(count: int) -> None:
    bare, ours = await cold()
    print(line("cold start and first call", "bare", bare, bare))
    print(line("cold start and first call", "sandbox", ours, bare))
    bare, ours, tools = await warm(count)
    print(line("warm call", "bare", bare, bare))
    print(line("warm call", "sandbox", ours, bare))
    print(line("warm call", "sandbox, arguments and result validated", tools, bare))


def line(what: str, whose: str, values: list[float], bare: list[float]) -> str:
    ratio = statistics.median(values) / statistics.median(bare)
    return f"{what}, {whose}: median {statistics.median(values):.2f} ms, least {min(values):.2f} ms, {ratio:.2f}x bare"


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else CALLS))
