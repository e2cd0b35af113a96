import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Home, Servers, running
from app.embedded.account import dropped, server_account
from app.embedded.reaper import Record, command_line, write_record
from app.errors import ConfigurationError
from tests.embedded.stacks import held, wait_for


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_both_servers_answer_only_with_their_password_and_stop(home: Path) -> None:
    with Servers(home) as servers:
        assert servers.postgres
        assert servers.valkey
        dsn, url = servers.postgres.dsn, servers.valkey.url
        assert await ask(dsn, "SELECT current_database() || upper('\u00e9')") == "parley\u00c9"
        assert await ask(
            dsn,
            "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings "
            "WHERE name IN ('fsync', 'max_connections', 'unix_socket_directories')",
        ) == ("fsync=on max_connections=200 unix_socket_directories=")
        async with Redis.from_url(url) as redis:
            policy = await redis.config_get("appendonly", "appendfsync", "maxmemory-policy")
        assert policy == {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(dsn.replace(dsn.split(":")[2].split("@")[0], "guess"), "SELECT 1")
        pids = [servers.postgres.pid, servers.valkey.pid]
    assert [command_line(pid) for pid in pids] == ["", ""]
    assert list((home / "pids").iterdir()) == []


async def test_data_and_password_outlive_a_restart_and_a_kill(home: Path) -> None:
    with Servers(home) as servers:
        assert servers.postgres
        assert servers.valkey
        await ask(servers.postgres.dsn, "CREATE TABLE kept (x int)")
        async with Redis.from_url(servers.valkey.url) as redis:
            await redis.set("kept", "yes")
        os.kill(servers.postgres.pid, signal.SIGKILL)
        os.kill(servers.valkey.pid, signal.SIGKILL)
    with Servers(home) as servers:
        assert servers.postgres
        assert servers.valkey
        assert await ask(servers.postgres.dsn, "SELECT count(*) FROM kept") == 0
        async with Redis.from_url(servers.valkey.url) as redis:
            assert await redis.get("kept") == b"yes"


async def test_a_lost_secret_file_locks_nobody_out(home: Path) -> None:
    with Servers(home, valkey=False):
        pass
    (home / "secret.json").unlink()
    with Servers(home, valkey=False) as servers:
        assert servers.postgres
        assert await ask(servers.postgres.dsn, "SELECT 1") == 1
    assert stat.S_IMODE((home / "secret.json").stat().st_mode) == 0o600


def test_an_interrupted_first_start_leaves_no_half_cluster(home: Path) -> None:
    (home / "pg.tmp").mkdir()
    (home / "pg.tmp" / "PG_VERSION").write_text("half")
    with Servers(home, valkey=False) as servers:
        assert servers.postgres
    assert not (home / "pg.tmp").exists()


def test_a_cluster_of_another_version_is_left_alone_with_a_plain_message(home: Path) -> None:
    (home / "pg").mkdir()
    (home / "pg" / "PG_VERSION").write_text("14\n")
    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 14.*PARLEY_PG_BIN"), Servers(home, valkey=False):
        pass
    assert (home / "pg" / "PG_VERSION").read_text() == "14\n"


def test_a_pid_file_naming_a_stranger_does_not_stop_a_start(home: Path) -> None:
    with Servers(home, valkey=False):
        pass
    # PostgreSQL looks past processes of other users, so the stranger is one of its own account.
    stranger = subprocess.Popen(["sleep", "60"], **dropped(server_account(home / "pg")))
    try:
        (home / "pg" / "postmaster.pid").write_text(f"{stranger.pid}\n{home / 'pg'}\n")
        write_record(home / "pids" / "postgres.json", Record(stranger.pid, 2, (2, 9), f"-D {home / 'pg'} "))
        with Servers(home, valkey=False) as servers:
            assert servers.postgres
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


HOLD = """
import sys, time
from pathlib import Path
from app.embedded import Servers
with Servers(Path(sys.argv[1])) as servers:
    print(servers.reaper.pid, servers.postgres.pid, servers.valkey.pid, flush=True)
    time.sleep(60)
"""


def holder(home: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that holds both servers; the pids of its reaper, PostgreSQL and Valkey."""
    popen = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True)
    assert popen.stdout
    with popen.stdout:
        return popen, [int(word) for word in popen.stdout.readline().split()]


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_killing_the_holder_leaves_no_server(home: Path) -> None:
    popen, pids = holder(home)
    kill(popen.pid)
    popen.wait()
    wait_for(lambda: not any(command_line(pid) for pid in pids))
    assert not (home / "pg" / "postmaster.pid").exists()


def test_orphans_of_a_killed_holder_and_reaper_are_ended_by_the_next_start(home: Path) -> None:
    popen, (reaper, *orphans) = holder(home)
    kill(reaper, popen.pid)
    popen.wait()
    assert all(command_line(pid) for pid in orphans)
    with Servers(home) as servers:
        assert not any(command_line(pid) for pid in orphans)
        assert servers.postgres


def test_everything_killed_at_once_starts_again(home: Path) -> None:
    popen, pids = holder(home)
    kill(popen.pid, *pids)
    popen.wait()
    with Servers(home) as servers:
        assert servers.postgres


def test_a_home_stays_locked_until_the_reaper_is_done(home: Path) -> None:
    popen, pids = holder(home)
    kill(popen.pid)
    popen.wait()
    wait_for(lambda: not held(home))
    assert not any(command_line(pid) for pid in pids[1:])
    with Servers(home) as servers:
        assert servers.postgres


def test_a_home_in_use_is_refused(home: Path) -> None:
    with (
        Servers(home, postgres=False, valkey=False),
        pytest.raises(ConfigurationError, match=f"process {os.getpid()} holds"),
        Servers(home),
    ):
        pass


def test_a_torn_run_file_or_a_dead_supervisor_is_nothing_running(home: Path) -> None:
    assert running(home) is None
    (home / "run.json").write_text("{")
    assert running(home) is None
    Home(home).write_run({"url": "http://127.0.0.1:1"})
    assert running(home)
    values = json.loads((home / "run.json").read_text())
    (home / "run.json").write_text(json.dumps({**values, "command": "somebody else"}))
    assert running(home) is None
