"""Whole stacks in processes of their own, and what tests ask about them."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.embedded import Home, Run, running

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(Path(__file__).with_name("program.py"))]
UP = """
import sys
from app.embedded import up
from app.settings import Settings
sys.exit(up(Settings.load(parley_home=sys.argv[1]), program=sys.argv[2:]))
"""


class Stack:
    """`parley up` in a process of its own, with the stand-in program."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.said = ""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", UP, str(home), *PROGRAM],
            env={**kept, "PYTHONPATH": str(ROOT), "PARLEY_PORT": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=home,
        )

    def wait_until_up(self) -> Run:
        """Read what it says up to the end of the summary."""
        assert self.popen.stdout
        for line in self.popen.stdout:
            self.said += line
            if "Ctrl-C" in line:
                break
        run = running(self.home)
        assert run, self.said
        return run

    def ended(self) -> int:
        """Its exit code, with all it said read."""
        assert self.popen.stdout
        self.said += self.popen.stdout.read()
        return self.popen.wait(timeout=20)

    def end(self, number: int) -> int:
        """Signal the supervisor; its exit code."""
        self.popen.send_signal(number)
        return self.ended()

    def discard(self) -> None:
        """End it the hard way if a test left it."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        assert self.popen.stdout
        self.popen.stdout.close()


def held(home: Path) -> bool:
    """Whether a supervisor or its reaper still holds the home."""
    if not (home / "lock").exists():
        return False
    with (home / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_for(check: Callable[[], Any], seconds: float = 15) -> Any:
    """The first true answer of `check`."""
    until = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return answer


def pids(home: Path) -> dict[str, int]:
    """The first process id of each role."""
    run = Home(home).read_run()
    assert run
    return {role: found[0] for role, found in run.processes.items()}
