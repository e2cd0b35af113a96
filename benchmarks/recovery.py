"""`kill -9` of a worker in the middle of its runs: how soon another has them, and whether any is lost or doubled."""

import asyncio
import os
import signal
import time

from benchmarks.client import Client, Failed
from benchmarks.ground import parley_worker
from benchmarks.model import answer, order
from benchmarks.phases import Phase, Sample, connected, drained
from benchmarks.targets import AGENT, Parley

THINKING_MS = 5000  # Longer than it takes to find them all running.
SECONDS = 40.0
RUNNING = "select count(*) from runs where state = 'running'"
BUSIEST = """
select w.pid from runs r join workers w on w.id = r.owner where r.state = 'running' and w.pid = any($1::int[])
group by w.pid order by count(*) desc limit 1
"""
WORKERS = "select count(*) from workers where kind = 'worker'"
RECOVERED = "select extract(epoch from max(claimed_at) - $1)::float from runs where crash_count = 1 and fence = 2"
# Per run: how many ends its log holds, and how many answers its conversation.
ENDS = """
select count(*) filter (where ends = 0 or answers = 0) as lost, count(*) filter (where ends > 1 or answers > 1) as twice
from (select r.id, (select count(*) from events e where e.run_id = r.id and e.type = 'run.completed') as ends,
    (select count(*) from messages m where m.run_id = r.id and m.role = 'assistant' and m.text = $1) as answers
    from runs r) as each_run
"""


async def recovery(phase: Phase, target: Parley, count: int) -> Sample:
    """Kill the worker that executes most of the runs, with another beside it."""
    with parley_worker(target.home / "second-worker.log", target.environment) as second:
        await _until(target, WORKERS, 2)
        async with target.client(0) as client:
            for _ in range(count):
                await _submit(client)
        await _until(target, RUNNING, count)
        async with connected(target.dsn) as connection:
            busiest = await connection.fetchval(BUSIEST, [*target.processes["worker"], second])
            killed_at = await connection.fetchval("select clock_timestamp()")
        os.kill(busiest, signal.SIGKILL)
        await drained(target, SECONDS)
    async with connected(target.dsn) as connection:
        seconds = await connection.fetchval(RECOVERED, killed_at)
        found = await connection.fetchrow(ENDS, answer())
    if seconds is None:
        raise Failed("no run was taken over: all had ended before the kill")
    return {"kill to restart s": seconds, "runs": count, "lost": found["lost"], "doubled": found["twice"]}


async def _submit(client: Client) -> None:
    body = {"task_type": "delegation", "prompt": order(after_ms=THINKING_MS), "agent": AGENT}
    await client.json("POST", "/tasks", body)


async def _until(target: Parley, query: str, wanted: int) -> None:
    until = time.monotonic() + SECONDS
    async with connected(target.dsn) as connection:
        while await connection.fetchval(query) < wanted:
            if time.monotonic() > until:
                raise Failed(f"waited in vain for {wanted} of: {query}")
            await asyncio.sleep(0.02)
