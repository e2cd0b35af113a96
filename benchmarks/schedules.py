"""How late schedules fire, and what stored ones cost, in one interleaved run.

    python -m benchmarks.schedules [ROUNDS] [--quick]

One scheduler process and no worker: runs are queued and nobody executes them. Lateness is from the due instant to the
commit of its fire, both by PostgreSQL's clock (`track_commit_timestamp`).

- `spread`: 1,000 schedules that come due evenly over a minute; `burst`: the same 1,000 all at one instant.
- `flood`: 10,000 due at one instant, on a database that holds nothing else (`empty`) and beside 100,000 other schedules
  (`stored`), in turns. Quote the ratio of the two.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from app import agents, identity, tasks
from app.db import DEFAULT_WORKSPACE, Database
from app.settings import Settings
from app.tasks import TaskBody
from benchmarks import machine
from benchmarks.ground import MODULE, Ground, prepared
from benchmarks.machine import cpu_ms
from benchmarks.phases import bare_commit_ms
from benchmarks.processes import process

ROUNDS = 3
EACH_MINUTE, FLOOD, STORED = 1_000, 10_000, 100_000
OPTIONS = {"track_commit_timestamp": "on"}
READY = "select exists (select from workers where kind = 'scheduler' and seen_at > now() - interval '5 seconds')"
FILL = """
insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, agent_version, schedule_expression, overlap,
    next_fire_at)
select gen_random_uuid(), workspace_id, task_type, $2, prompt, agent_id, agent_version, schedule_expression, overlap,
    now() + interval '30 days' from tasks, generate_series(1, $3) where id = $1
"""
# Due from two seconds on, so many seconds after one another in all.
DUE = """
update tasks t set next_fire_at = date_trunc('second', now()) + interval '2 seconds' + (n.n - 1) * $2::float * interval '1 second'
from (select id, row_number() over (order by id) as n from tasks where title = 'due' order by id limit $1) n
where n.id = t.id returning t.next_fire_at
"""
LATENESS = """
select extract(epoch from pg_xact_commit_timestamp(xmin) - due_at)::float as late from fires
where outcome = 'run' and due_at between $1 and $2
"""


async def main(rounds: int, *, quick: bool) -> None:
    """Measure and print."""
    flood, stored = (FLOOD // 10, STORED // 10) if quick else (FLOOD, STORED)
    with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        async with prepared(Path(folder), OPTIONS) as ground:
            bases = [await _filled(ground, "empty", flood, 0), await _filled(ground, "stored", flood, stored)]
            print(json.dumps({**machine.environment(), "stored": stored, "due at once": flood}, default=str))
            print(f"bare commit {await bare_commit_ms(bases[0]):.2f} ms")
            async with _scheduler(ground, bases[0]) as (database, _):
                print("spread", *await _lateness(database, EACH_MINUTE, 60 / EACH_MINUTE))
                print("burst", *await _lateness(database, EACH_MINUTE, 0))
            ratios = [await _flood(ground, bases, number + 1, flood) for number in range(rounds)]
            print(f"flood: stored over empty, cpu of scheduler and postgres {statistics.median(ratios):.2f}x")


async def _flood(ground: Ground, bases: list[str], number: int, flood: int) -> float:
    """The same flood on both; the ratio of their CPU."""
    spent: list[float] = []
    for name, dsn in zip(("empty", "stored"), bases, strict=True):
        async with _scheduler(ground, dsn) as (database, pids):
            before = cpu_ms(pids)
            found = await _lateness(database, flood, 0)
            used = {role: (after - before[role]) / flood for role, after in cpu_ms(pids).items()}
            spent.append(used["scheduler"] + used["postgres"])
            print(f"flood {number} {name}", *found, *(f"{role} {ms:.2f} ms/fire" for role, ms in used.items()))
    return spent[1] / spent[0]


async def _lateness(database: Database, count: int, gap: float) -> list[str]:
    """Let so many come due, and wait for their fires."""
    due = [row["next_fire_at"] for row in await database.fetch(DUE, count, gap)]
    while len(late := [row["late"] for row in await database.fetch(LATENESS, min(due), max(due))]) < count:
        await asyncio.sleep(1)
    await database.execute("update tasks set next_fire_at = now() + interval '30 days' where title = 'due'")
    p50, p99 = statistics.median(late) * 1000, statistics.quantiles(late, n=100)[98] * 1000
    seconds = (max(due) - min(due)).total_seconds() + max(late)
    return [
        f"{count} fires, lateness p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {max(late) * 1000:.0f} ms,"
        f" {count / seconds:.0f} fires/s"
    ]


async def _filled(ground: Ground, name: str, flood: int, stored: int) -> str:
    """A database with schedules, none of them due."""
    dsn = await ground.database(name)
    settings = Settings.of(**ground.settings(dsn, ground.redis))
    database = await Database.open(settings, name="parley bench")
    await identity.seed(database)
    await agents.seed(database)
    async with database.engine_tx() as connection:
        values = {"task_type": "scheduled", "prompt": "Report {{ fire_time }}.", "schedule_expression": "0 9 * * *"}
        body = TaskBody.model_validate(values | {"timezone": "Europe/Berlin", "overlap": "allow"})
        first = await tasks.create(connection, settings, DEFAULT_WORKSPACE, body)
    await database.execute(FILL, first.id, "due", flood)
    if stored:
        await database.execute(FILL, first.id, "stored", stored)
    await database.execute("analyze tasks")
    await database.close()
    return dsn


@asynccontextmanager
async def _scheduler(ground: Ground, dsn: str) -> AsyncIterator[tuple[Database, dict[str, list[int]]]]:
    """A scheduler process on a database, once it looks."""
    chosen = ground.settings(dsn, ground.redis)
    database = await Database.open(Settings.of(**chosen), name="parley bench")
    await database.execute("delete from workers")
    variables = {"BENCHMARK_SETTINGS": json.dumps(chosen)}
    try:
        with process([*MODULE, "benchmarks.ours", "scheduler"], variables, ground.home / "scheduler.log") as pid:
            while not await database.fetchval(READY):
                await asyncio.sleep(0.1)
            yield database, {"scheduler": [pid], "postgres": ground.stores["postgres"]}
    finally:
        await database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description="Measure the scheduler.")
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="a tenth of the schedules")
    chosen_ = parser.parse_args()
    uvloop.run(main(chosen_.rounds, quick=chosen_.quick))
