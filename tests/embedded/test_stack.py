import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from app.embedded import Run, running
from app.embedded.reaper import command_line
from tests.embedded.stacks import Stack, pids, wait_for

Start = Callable[..., Stack]
ROLES = {"api", "worker", "scheduler", "postgres", "valkey"}


def everyone(run: Run) -> list[int]:
    return [pid for found in run.processes.values() for pid in found]


def seen(home: Path, role: str) -> dict[str, str]:
    """The settings a child was given."""
    path = home / f"seen-{role}.json"
    wait_for(path.exists)
    return json.loads(path.read_text())


def test_up_publishes_what_runs_and_withdraws_it_at_ctrl_c(home: Path, start: Start) -> None:
    stack = start(PARLEY_WORKERS="2")
    run = stack.wait_until_up()
    assert set(run.processes) == ROLES
    assert len(run.processes["worker"]) == 2
    assert all(command_line(pid) for pid in everyone(run))
    assert stat.S_IMODE((home / "run.json").stat().st_mode) == 0o600
    for expected in (run.url, f"{run.url}/docs", "demo (no provider key is set)", str(home / "outbox"), "auth   off"):
        assert expected in stack.said
    began = time.monotonic()
    assert stack.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 5
    assert not any(command_line(pid) for pid in everyone(run))
    assert not (home / "run.json").exists()
    assert "Traceback" not in stack.said


def test_children_are_given_the_stores_and_lasting_secrets(home: Path, start: Start) -> None:
    first = start()
    run = first.wait_until_up()
    given = seen(home, "worker")
    assert given["DATABASE_URL"] == run.database_url
    assert given["REDIS_URL"] == run.redis_url
    assert given["PARLEY_HOME"] == str(home)
    assert given["PARLEY_ENCRYPTION_KEYS"].startswith("k1:")
    assert "PARLEY_ADMIN_KEY" not in given
    assert seen(home, "migrate") == given
    first.end(signal.SIGTERM)
    (home / "seen-worker.json").unlink()
    start(PARLEY_AUTH="on").wait_until_up()
    again = seen(home, "worker")
    assert {name: again[name] for name in ("PARLEY_SECRET", "PARLEY_ENCRYPTION_KEYS")} == {
        name: given[name] for name in ("PARLEY_SECRET", "PARLEY_ENCRYPTION_KEYS")
    }


def test_an_admin_key_reaches_a_private_file_and_no_log(home: Path, start: Start) -> None:
    stack = start(PARLEY_AUTH="on")
    stack.wait_until_up()
    key = (home / "admin-key").read_text()
    assert seen(home, "serve")["PARLEY_ADMIN_KEY"] == key
    assert key not in stack.said
    assert stat.S_IMODE((home / "admin-key").stat().st_mode) == 0o600


def test_a_set_store_is_not_embedded(start: Start) -> None:
    run = start(REDIS_URL="redis://127.0.0.1:1/0").wait_until_up()
    assert run.redis_url == "redis://127.0.0.1:1/0"
    assert set(run.processes) == ROLES - {"valkey"}


def test_dead_children_and_servers_come_back_and_the_stores_keep_their_address(home: Path, start: Start) -> None:
    run = start().wait_until_up()
    before = pids(home)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not set(pids(home).values()) & set(before.values()))
    after = wait_for(lambda: running(home))
    assert (after.database_url, after.redis_url, after.url) == (run.database_url, run.redis_url, run.url)
    wait_for(lambda: all(listening(url) for url in (after.database_url, after.redis_url, after.url)))


def listening(url: str) -> bool:
    port = int(url.rpartition(":")[2].split("/")[0])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_killing_the_supervisor_leaves_nothing(home: Path, start: Start) -> None:
    stack = start()
    run = stack.wait_until_up()
    stack.popen.kill()
    wait_for(lambda: not any(command_line(pid) for pid in everyone(run)))
    wait_for(lambda: not (home / "run.json").exists())
    assert running(home) is None


def test_a_killed_reaper_is_replaced(home: Path, start: Start) -> None:
    stack = start()
    run = stack.wait_until_up()
    (killed,) = reapers_of(stack)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: reapers_of(stack) - {killed})
    stack.popen.kill()
    wait_for(lambda: not any(command_line(pid) for pid in everyone(run)))


def reapers_of(stack: Stack) -> set[int]:
    """The live reapers of a supervisor."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children = [int(pid) for pid, parent in map(str.split, found.splitlines()) if int(parent) == stack.popen.pid]
    return {pid for pid in children if "reaper.py" in command_line(pid)}


def test_the_same_home_twice_is_refused_with_the_address_and_does_no_harm(home: Path, start: Start) -> None:
    run = start().wait_until_up()
    second = start()
    assert second.ended() == 1
    assert f"already running here: {run.url}" in second.said
    assert running(home) == run


def test_two_ctrl_c_do_not_break_the_stop(home: Path, start: Start) -> None:
    stack = start()
    run = stack.wait_until_up()
    stack.popen.send_signal(signal.SIGINT)
    time.sleep(0.05)
    assert stack.end(signal.SIGINT) == 0
    assert not (home / "run.json").exists()
    assert not any(command_line(pid) for pid in everyone(run))


def test_a_stop_during_the_start_leaves_nothing(home: Path, start: Start) -> None:
    stack = start()
    wait_for((home / "pids" / "postgres.json").exists)
    assert stack.end(signal.SIGTERM) == 0
    assert "Stopped." in stack.said
    assert list((home / "pids").iterdir()) == []


def test_an_explicit_port_that_is_taken_is_an_error(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack = start(PARLEY_PORT=str(port))
        assert stack.ended() == 1
    assert f"port {port} of 127.0.0.1 is taken" in stack.said


def test_a_failing_migration_stops_the_start_and_shows_why(home: Path, start: Start) -> None:
    stack = start(FAIL_ROLE="migrate")
    assert stack.ended() == 1
    assert "migrate failed (exit code 1)" in stack.said
    assert "migrate can't start here" in stack.said
    assert list((home / "pids").iterdir()) == []


def test_a_cluster_that_is_up_to_date_is_not_migrated_again_unless_it_turns_out_behind(
    home: Path, start: Start
) -> None:
    first = start()
    first.wait_until_up()
    first.end(signal.SIGINT)
    migrated = home / "seen-migrate.json"
    migrated.unlink()
    again = start()
    again.wait_until_up()
    assert not migrated.exists()
    again.end(signal.SIGINT)
    start(READY_NEEDS=str(migrated)).wait_until_up()
    assert migrated.exists()


def test_an_api_that_keeps_dying_stops_the_start_and_shows_why(start: Start) -> None:
    stack = start(FAIL_ROLE="serve")
    assert stack.ended() == 1
    assert "serve can't start here" in stack.said


def test_authentication_off_for_everybody_is_refused(start: Start) -> None:
    stack = start(PARLEY_AUTH="off", PARLEY_HOST="0.0.0.0")
    assert stack.ended() == 1
    assert "PARLEY_AUTH=off is refused" in stack.said
