"""Three schedulers, one of them killed every few seconds: each due instant is accounted for once.

python -m tests.faults.schedulers --seconds 120 --seed 7      # `python3 dev.py schedulers` is the same
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from app import agents, identity
from app.db import Database
from app.embedded import Servers
from app.settings import Settings
from tests import databases
from tests.tasks.tasks import Desk

PROGRAM = """
import asyncio, sys
from app import telemetry
from app.settings import Settings
from workers.scheduler import main
settings = Settings.of(database_url=sys.argv[1], parley_pool_size=2)
telemetry.configure(settings)
asyncio.run(main(settings))
"""
COUNT = 3
EVERY = timedelta(seconds=1)
# How tasks differ that come due each second: a start beside the others, one at a time, every missed one made up for.
KINDS: tuple[dict[str, Any], ...] = (
    {"overlap": "allow"},
    {"overlap": "allow", "catch_up": "all"},
    {"overlap": "skip"},
    {"overlap": "interrupt"},
    {"overlap": "interrupt", "conversation": "same"},
)
ALIVE = "select count(*) from workers where kind = 'scheduler' and seen_at > $1"


async def rehearse(desk: Desk, *, seconds: float, gap: float, seed: int, tasks: int) -> dict[str, int]:
    """Let tasks come due each second while schedulers die and come back, then stop and count.

    Returns:
        How many were killed, how many instants were due, and what became of them.
    """
    rng = random.Random(seed)
    ids = [(await desk.create(**KINDS[number % len(KINDS)])).id for number in range(tasks)]
    company = [await _start(desk.settings) for _ in range(COUNT)]
    try:
        await _until_alive(desk, COUNT)
        await desk.database.execute("update tasks set interval_seconds = 1, next_fire_at = now()")
        killed = await _kill_some(desk, company, rng, seconds, gap)
        await _until_caught_up(desk)
    finally:
        await asyncio.gather(*(_kill(each) for each in company))
    outcomes = await desk.database.fetch("select outcome, sum(count)::int as instants from fires group by outcome")
    for task_id in ids:
        await check(desk, task_id)
    return {"killed": killed} | {row["outcome"]: row["instants"] for row in outcomes}


async def _kill_some(
    desk: Desk, company: list[asyncio.subprocess.Process], rng: random.Random, seconds: float, gap: float
) -> int:
    killed, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.sleep(rng.uniform(0.5, 1.5) * gap)
        number = rng.randrange(COUNT)
        await _kill(company[number])
        company[number] = await _start(desk.settings)
        killed += 1
    return killed


async def _until_alive(desk: Desk, count: int) -> None:
    began = await desk.database.fetchval("select now() - interval '1 minute'")
    async with asyncio.timeout(60):
        while await desk.database.fetchval(ALIVE, began) < count:
            await asyncio.sleep(0.05)


async def _until_caught_up(desk: Desk) -> None:
    """Whoever is left has looked at everything that was due a moment ago."""
    late = "select exists (select from tasks where next_fire_at < now() - interval '3 seconds')"
    async with asyncio.timeout(60):
        while await desk.database.fetchval(late):
            await asyncio.sleep(0.05)


async def _start(settings: Settings) -> asyncio.subprocess.Process:
    """A scheduler as `parley scheduler` starts it."""
    nowhere = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, settings.dsn(), stderr=nowhere)


async def _kill(started: asyncio.subprocess.Process) -> None:
    if started.returncode is None:
        started.kill()
    await started.wait()


async def check(desk: Desk, task_id: UUID) -> None:
    """Every instant from the first to the next has one row, and every run one fire."""
    fires, runs = await desk.fires(task_id), await desk.runs(task_id)
    expected = fires[0]["due_at"]
    for fire in fires:
        until = fire["due_until"] or fire["due_at"]
        assert fire["due_at"] == expected, f"{fire['due_at']} instead of {expected}"
        assert (until - fire["due_at"]) / EVERY + 1 == fire["count"]
        expected = until + EVERY
    assert (await desk.task(task_id))["next_fire_at"] == expected
    assert sorted(fire["run_id"] for fire in fires if fire["outcome"] == "run") == sorted(run["id"] for run in runs)
    assert {run["fire_id"] for run in runs} == {fire["id"] for fire in fires if fire["outcome"] == "run"}


def main(argv: Sequence[str] | None = None) -> int:
    """The long form, on servers of its own."""
    parser = argparse.ArgumentParser(prog="dev.py schedulers", description="Kill schedulers, and count the fires.")
    parser.add_argument("--seconds", type=float, default=120, help="how long (120)")
    parser.add_argument("--gap", type=float, default=3, help="seconds between kills, on average (3)")
    parser.add_argument("--seed", type=int, default=None, help="which are killed when; new each time when left out")
    chosen = parser.parse_args(argv)
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1_000_000)
    found = asyncio.run(_alone(chosen.seconds, chosen.gap, seed))
    print(f"seed {seed}: {found.pop('killed')} schedulers killed in {chosen.seconds:g} s; instants:", found)
    return 0


async def _alone(seconds: float, gap: float, seed: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory(prefix="parley-schedulers-") as folder:
        Path(folder).chmod(0o711)  # The servers' account passes through when we are root.
        with Servers(Path(folder)) as servers:
            assert servers.postgres
            settings = Settings.of(database_url=await databases.clone(servers.postgres.dsn, "schedulers_test"))
            database = await Database.open(settings, name="parley schedulers")
            try:
                await identity.seed(database)
                await agents.seed(database)
                return await rehearse(Desk(database, settings), seconds=seconds, gap=gap, seed=seed, tasks=20)
            finally:
                await database.close()


if __name__ == "__main__":
    sys.exit(main())
