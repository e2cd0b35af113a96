import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.queue import LANE, Bell, queue_name
from app.settings import Settings
from workers import worker

ROOT = Path(__file__).parent.parent


async def started(home: Path, *module: str, **settings: str) -> asyncio.subprocess.Process:
    """A module run as a process of its own, with these settings in its environment."""
    surroundings = {"PARLEY_HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *module),
        cwd=home,
        env=surroundings | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_the_command_of_arq_runs_a_worker(settings: Settings, tmp_path: Path) -> None:
    """`arq workers.worker.WorkerSettings` with settings of the environment; in a burst it hears one ring and ends."""
    bell = Bell(settings.redis_dsn())
    bell.ring()
    await bell.close()
    async with Redis.from_url(settings.redis_dsn() or "") as redis:
        assert await redis.zcard(queue_name(LANE)) == 1
    given = {"DATABASE_URL": settings.dsn(), "REDIS_URL": settings.redis_dsn() or ""}
    process = await started(tmp_path, "arq", "workers.worker.WorkerSettings", "--burst", **given)
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, said.decode()
    async with Redis.from_url(settings.redis_dsn() or "") as redis:
        assert await redis.zcard(queue_name(LANE)) == 0


async def test_it_waits_for_a_database_that_is_not_there_yet_and_can_be_stopped(tmp_path: Path) -> None:
    process = await started(tmp_path, "app.cli", "worker", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert process.stdout
    async with asyncio.timeout(30):
        for _ in range(2):
            await process.stdout.readuntil(b"worker.database_away")
    process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0


def test_the_module_has_nothing_else_to_ask_for() -> None:
    with pytest.raises(AttributeError):
        _ = worker.Nothing
