"""CPU time per run by part of the servers, with the sampler in them. Nothing else is measured in these processes."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.client import Client, Failed
from benchmarks.machine import cpu_ms
from benchmarks.model import AT_ONCE
from benchmarks.phases import Phase, Sample, closed_loop, drained
from benchmarks.sampler import PARTS
from benchmarks.targets import Target

SECONDS = 5.0

Work = Callable[[Client], Awaitable[None]]


async def parts_of_delegated(phase: Phase, target: Target, count: int) -> Sample:
    """Delegated runs, as `delegated` measures them."""

    async def work(client: Client) -> None:
        await target.wait(client, await target.submit(client))

    return await _parts(phase, target, count, work)


async def parts_of_chat(phase: Phase, target: Target, count: int) -> Sample:
    """Chat turns of text."""
    return await _parts(phase, target, count, target.chat)


async def parts_of_chat_with_tools(phase: Phase, target: Target, count: int) -> Sample:
    """Chat turns with three tool calls at once."""
    return await _parts(phase, target, count, lambda client: target.chat(client, AT_ONCE))


async def _parts(phase: Phase, target: Target, count: int, work: Work) -> Sample:
    servers = {name: pids[0] for name, pids in target.processes.items() if name in ("api", "worker")}
    before, cpu = await _counts(target, servers), cpu_ms(target.processes)
    done, _ = await closed_loop(target, phase.clients, count, work)
    await drained(target)
    after = cpu_ms(target.processes)
    spent = {name: (after[name] - cpu[name]) / done for name in after}
    counted = {name: found - before[name] for name, found in (await _counts(target, servers)).items()}
    shares = {
        f"{server} {part} ms": spent[server] * found[part] / max(1, found.total())
        for server, found in counted.items()
        for part in PARTS
    }
    return {**shares, **{f"{name} ms": value for name, value in spent.items()}}


async def _counts(target: Target, servers: dict[str, int]) -> dict[str, Counter[str]]:
    """What each sampler has counted so far."""
    return {
        name: await _count(f"{target.environment['BENCHMARK_SAMPLES']}.{pid}", pid) for name, pid in servers.items()
    }


async def _count(path: str, pid: int) -> Counter[str]:
    file = Path(path)
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until = time.monotonic() + SECONDS
    while not file.exists():
        if time.monotonic() > until:
            raise Failed(f"process {pid} did not write its samples")
        await asyncio.sleep(0.01)
    return Counter(json.loads(file.read_bytes()))
