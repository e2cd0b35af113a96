import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded.reaper import command_line
from tests.cluster import refuse_foreign_database

USER = """
import sys, time
from pathlib import Path
from tests.cluster import session_cluster
print(*session_cluster(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def start_user(root: Path) -> subprocess.Popen[str]:
    """A process that uses the cluster until it is killed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TEST_")}
    argv = [sys.executable, "-c", USER, str(root)]
    return subprocess.Popen(argv, cwd=Path(__file__).parents[1], env=env, stdout=subprocess.PIPE, text=True)


def addresses(user: subprocess.Popen[str]) -> list[str]:
    assert user.stdout
    with user.stdout:
        return user.stdout.readline().split()


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while command_line(pid):
        assert time.monotonic() < until, "still running"
        time.sleep(0.02)


async def server_pid(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int((await connection.fetchval("SELECT pg_read_file('postmaster.pid')")).split()[0])
    finally:
        await connection.close()


async def test_users_share_servers_that_end_with_the_last_of_them(tmp_path: Path) -> None:
    first, second = start_user(tmp_path), start_user(tmp_path)
    try:
        dsn, redis_url = addresses(first)
        assert addresses(second) == [dsn, redis_url]
        first.send_signal(signal.SIGKILL)
        first.wait()
        postgres = await server_pid(dsn)
        async with Redis.from_url(redis_url) as redis:
            assert await redis.ping()
            valkey = (await redis.info("server"))["process_id"]
    finally:
        for user in (first, second):
            user.kill()
            user.wait()
    wait_until_gone(postgres)
    wait_until_gone(valkey)


def test_a_database_not_made_for_tests_is_refused() -> None:
    with pytest.raises(RuntimeError, match="'production'"):
        refuse_foreign_database("postgresql://somebody@127.0.0.1/production")
    refuse_foreign_database("postgresql://somebody@127.0.0.1/parley_test")
