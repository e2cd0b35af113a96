"""The scheduler process: on time, alone or in company, killed or cut off."""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.db import Database
from app.errors import DatabaseUnavailable
from app.settings import Settings
from tests.faults.schedulers import PROGRAM, check, rehearse
from tests.tasks.tasks import Desk
from workers.scheduler import Scheduler


@pytest.fixture
def desk(database: Database, settings: Settings) -> Desk:
    return Desk(database, settings)


@pytest.fixture
async def scheduler(database: Database, settings: Settings) -> AsyncIterator[Scheduler]:
    opened = Scheduler(settings, database)
    await opened.start()
    yield opened
    await opened.stop()


async def until(desk: Desk, query: str, *args: Any, seconds: float = 10) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await desk.database.fetchval(query, *args)):
            await asyncio.sleep(0.01)
    return found


async def due_in(desk: Desk, task_id: UUID, seconds: float) -> datetime:
    return await desk.database.fetchval(
        "update tasks set next_fire_at = now() + $2::interval where id = $1 returning next_fire_at",
        task_id,
        timedelta(seconds=seconds),
    )


FIRED = "select created_at from fires where task_id = $1 and due_at = $2"


def test_it_needs_no_agent_library() -> None:
    check = "import sys, workers.scheduler; print([name for name in sys.modules if name.startswith('pydantic_ai')])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


async def test_the_timer_is_on_time(desk: Desk, settings: Settings) -> None:
    task_id = (await desk.create()).id
    due = await due_in(desk, task_id, 0.6)
    scheduler = Scheduler(settings, desk.database)
    await scheduler.start()
    try:
        fired = await until(desk, FIRED, task_id, due)
        # The net falls at 0.0, 1.0, ... seconds: only the timer can be this near.
        assert fired - due < timedelta(seconds=0.3)
    finally:
        await scheduler.stop()


async def test_a_task_stored_meanwhile_is_seen_within_the_net(scheduler: Scheduler, desk: Desk) -> None:
    del scheduler
    await asyncio.sleep(0.1)
    task_id = (await desk.create()).id
    due = await due_in(desk, task_id, 0)
    assert await until(desk, FIRED, task_id, due) - due < timedelta(seconds=1.5)


async def test_it_is_on_the_list_of_processes_while_it_lives(desk: Desk, settings: Settings) -> None:
    scheduler = Scheduler(settings, desk.database)
    await scheduler.start()
    await until(desk, "select pid from workers where kind = 'scheduler' and id = $1", scheduler.owner)
    await scheduler.stop()
    assert await desk.database.fetchval("select count(*) from workers") == 0


async def test_one_that_can_not_look_is_not_there(
    desk: Desk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what came due meanwhile would not count as late: see `watched_since`."""
    scheduler = Scheduler(settings, desk.database)

    async def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("PostgreSQL is not available")

    with monkeypatch.context() as cut:
        cut.setattr("workers.scheduler.fire_due", away)
        await scheduler.tick()
        await scheduler._beat()
        assert await desk.database.fetchval("select count(*) from workers") == 0
    await scheduler.tick()
    await scheduler._beat()
    assert await desk.database.fetchval("select count(*) from workers") == 1


async def test_it_outlives_a_cut_connection(desk: Desk, settings: Settings) -> None:
    cut = Settings.of(database_url=settings.dsn(), parley_pool_size=2)
    other = await Database.open(cut, name="to be cut")
    scheduler = Scheduler(cut, other)
    await scheduler.start()
    try:
        await desk.database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'to be cut'"
        )
        task_id = (await desk.create()).id
        due = await due_in(desk, task_id, 0)
        assert await until(desk, FIRED, task_id, due)
    finally:
        await scheduler.stop()
        await other.close()


async def test_many_due_at_once_are_all_fired(scheduler: Scheduler, desk: Desk) -> None:
    del scheduler
    first = (await desk.create()).id
    await desk.database.execute(
        "insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, agent_version, interval_seconds,"
        " next_fire_at) select gen_random_uuid(), workspace_id, task_type, title, prompt, agent_id, agent_version,"
        " interval_seconds, now() - interval '1 second' from tasks, generate_series(1, 120) where id = $1",
        first,
    )
    await until(desk, "select count(*) = 120 from runs where state = 'queued'")


# --- real processes ------------------------------------------------------------------------------------


@asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, settings.dsn(), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def test_three_processes_one_of_them_killed_each_second_leave_no_gap_and_no_double(desk: Desk) -> None:
    """`python3 dev.py schedulers` does so for two minutes."""
    found = await rehearse(desk, seconds=4, gap=1, seed=random.randrange(1000), tasks=5)
    assert found["killed"] >= 3
    assert found["run"] >= 10
    task_id = await desk.database.fetchval("select task_id from fires limit 1")
    second = "select id from fires where task_id = $1 order by due_at offset 1 limit 1"
    await desk.database.execute(f"delete from fires where id = ({second})", task_id)
    with pytest.raises(AssertionError):
        await check(desk, task_id)  # It would see a gap.


async def test_it_waits_for_a_database_that_is_not_there_yet_and_can_be_stopped() -> None:
    nowhere = Settings.of(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    async with process(nowhere) as started:
        assert started.stderr
        async with asyncio.timeout(30):
            for _ in range(2):
                await started.stderr.readuntil(b"scheduler.database_away")
        started.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(started.wait(), 10) == 0
