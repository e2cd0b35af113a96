import os
import sys
import time
from pathlib import Path

import pytest

from app.embedded import Child, Process, Servers, Supervisor
from app.embedded.ports import api_port, taken
from app.embedded.processes import FIRST_BACKOFF_SECONDS
from app.embedded.reaper import end
from tests.embedded.stacks import wait_for

FAIL = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def test_restarts_back_off(home: Path) -> None:
    with Servers(home, postgres=False, valkey=False) as servers:
        said: list[str] = []
        supervisor = Supervisor(servers, [Child("worker", FAIL)], say=said.append)
        supervisor.start()
        worker, began, restarts = supervisor.children[0], time.monotonic(), []
        while len(restarts) < 3:
            supervisor.tend()
            if worker.restarts > len(restarts):
                restarts.append(time.monotonic() - began)
            time.sleep(0.01)
        supervisor.stop()
    gaps = [later - earlier for earlier, later in zip([0.0, *restarts], restarts, strict=False)]
    assert gaps[0] >= FIRST_BACKOFF_SECONDS
    assert gaps[1] >= 2 * FIRST_BACKOFF_SECONDS
    assert gaps[2] >= 4 * FIRST_BACKOFF_SECONDS
    assert "worker ended (exit code 3) and was started again" in said[0]


def test_a_child_that_ignores_its_signal_is_killed(home: Path) -> None:
    with Servers(home, postgres=False, valkey=False) as servers:
        process = Process(Child("worker", [sys.executable, "-c", STUBBORN], signals=(15, 9)), servers.home)
        process.start()
        wait_for(lambda: "deaf" in process.tail())
        end([process.record()], grace_seconds=0.2)
        process.collect()
        assert process.pid == 0


def test_a_program_that_vanished_is_tried_again_later(home: Path) -> None:
    program = home / "program"
    program.write_text(f"#!{sys.executable}\nimport time; time.sleep(600)\n")
    program.chmod(0o755)
    with Servers(home, postgres=False, valkey=False) as servers:
        supervisor = Supervisor(servers, [Child("worker", [str(program)])])
        supervisor.start()
        program.rename(home / "away")
        first = supervisor.children[0].pid
        os.kill(first, 9)
        wait_for(lambda: supervisor.tend() or supervisor.children[0].restarts)
        (home / "away").rename(program)
        wait_for(lambda: supervisor.tend() or supervisor.children[0].pid != first)
        supervisor.stop()


def test_two_starts_at_once_get_two_ports() -> None:
    with api_port("127.0.0.1", None) as first, api_port("127.0.0.1", None) as second:
        assert first != second
        assert not taken("127.0.0.1", first)


def test_a_port_is_found_where_no_claim_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    with api_port("127.0.0.1", None) as port:
        assert not taken("127.0.0.1", port)
