"""Started processes: spawning with a record, restarting with backoff, and the reaper's handle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from app.embedded.account import Account, dropped
from app.embedded.home import Home
from app.embedded.ports import free_port
from app.embedded.reaper import Record, end, write_record
from app.errors import Unavailable

FIRST_BACKOFF_SECONDS = 0.2
LAST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 30.0
TAIL_LINES = 12
POLL_SECONDS = 0.01
START_SECONDS = 60.0
PORT_ATTEMPTS = 5


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Child:
    """A program to keep running.

    Attributes:
        role: Its role in `run.json`; several children may share one.
        argv: The command.
        env: The whole environment of the process.
        name: The name of its log and record; the role when left out.
        account: Who runs it; ourselves when None.
        signals: How it is asked to end, more firmly each time.
        stage: When it is ended: lower stages are gone before the next is told.
        marker: What its command line holds while it is this process.
        prepare: Called before every start.
    """

    role: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    name: str = ""
    account: Account | None = None
    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGKILL)
    stage: int = 0
    marker: str = ""
    prepare: Callable[[], None] = _nothing


class Process:
    """One child: running, or waiting to be started again."""

    def __init__(self, child: Child, home: Home) -> None:
        """Nothing runs yet; `start()` does that."""
        self.child = child
        self.name = child.name or child.role
        self.log = home.logs / f"{self.name}.log"
        self.restarts = 0
        self.last_exit_code: int | None = None
        self._pause = home.pause
        self._record_file = home.pids / f"{self.name}.json"
        self._popen: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._backoff_seconds = FIRST_BACKOFF_SECONDS

    @property
    def pid(self) -> int:
        """The process id, 0 while nothing runs."""
        return self._popen.pid if self._popen else 0

    def start(self) -> None:
        """Start the process in a session of its own, so that a terminal's Ctrl-C passes it by."""
        self.child.prepare()
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603 - what to run is the caller's decision
                self.child.argv,
                env=dict(self.child.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/" if self.child.account else None,
                **dropped(self.child.account),
            )
        self._started_at = time.monotonic()
        self._restart_at = None
        marker = self.child.marker or " ".join(self.child.argv[1:]) or self.child.argv[0]
        write_record(self._record_file, self.record(marker))

    def record(self, marker: str = "") -> Record:
        """This process for whoever ends it; its parent needs no marker, the pid can't be reused before `collect()`."""
        return Record(self.pid, self.child.stage, self.child.signals, marker)

    def dead(self) -> bool:
        """Whether it was started and has ended."""
        return self._popen is not None and self._popen.poll() is not None

    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._popen.poll() if self._popen else None

    def tend(self) -> bool:
        """Start it again if it died and its backoff is over; True when it was."""
        if not self.dead():
            return False
        now = time.monotonic()
        if self._restart_at is None:
            self._restart_at = now + self._next_backoff(now)
        return now >= self._restart_at and self._restart(now)

    def _restart(self, now: float) -> bool:
        self.restarts += 1
        self.last_exit_code = self.exit_code()
        try:
            self.start()
        except OSError:
            # The program is gone for now, say while an upgrade replaces it: that is one more death.
            self._restart_at = now + self._next_backoff(now)
            return False
        return True

    def _next_backoff(self, now: float) -> float:
        if now - self._started_at >= HEALTHY_SECONDS:
            self._backoff_seconds = FIRST_BACKOFF_SECONDS
        backoff, self._backoff_seconds = (
            self._backoff_seconds,
            min(2 * self._backoff_seconds, LAST_BACKOFF_SECONDS),
        )
        return backoff

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for a started process to be ready.

        Raises:
            Unavailable: when it ends first or takes longer.
        """
        until = time.monotonic() + seconds
        while not ready():
            if self.dead():
                raise Unavailable(f"{self.name} ended at start (exit code {self.exit_code()}):\n{self.tail()}")
            if time.monotonic() > until:
                raise Unavailable(f"{self.name} was not ready after {seconds:.0f} s:\n{self.tail()}")
            self._pause(POLL_SECONDS)

    def finish(self, seconds: float) -> None:
        """Wait for a program that ends by itself.

        Raises:
            Unavailable: when it fails or takes longer.
        """
        until = time.monotonic() + seconds
        while not self.dead() and time.monotonic() < until:
            self._pause(POLL_SECONDS)
        code = self.exit_code()
        if code != 0:
            how = f"failed (exit code {code})" if code is not None else f"was not done after {seconds:.0f} s"
            raise Unavailable(f"{self.name} {how}:\n{self.tail()}")
        self.collect()

    def stop(self) -> None:
        """End the process and forget it."""
        end_together([self])

    def collect(self) -> None:
        """Take the exit code of an ended process, so that no zombie stays, and drop its record."""
        if self._popen is not None:
            self._popen.wait()
            self._popen = None
        self._record_file.unlink(missing_ok=True)

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])


def end_together(processes: Sequence[Process]) -> None:
    """End processes at the same time and forget them; those that never ran are left alone."""
    end(process.record() for process in processes if process.pid and not process.dead())
    for process in processes:
        process.collect()


def start_on_free_port(
    make: Callable[[int], Process], ready: Callable[[Process, int], bool], port_lost: str
) -> tuple[Process, int]:
    """Start a server on some free port and wait for it, again when somebody takes the port in between.

    Args:
        make: Makes the process for a port.
        ready: Whether the process answers on the port.
        port_lost: What its log says when the port was taken.

    Raises:
        Unavailable: when it does not come up.
    """
    for _ in range(PORT_ATTEMPTS):
        port = free_port()
        process = make(port)
        try:
            process.start()
            process.wait_until(partial(ready, process, port), START_SECONDS)
        except Unavailable:
            process.stop()
            if port_lost not in process.tail():
                raise
        else:
            return process, port
    raise Unavailable(f"no free port for a server after {PORT_ATTEMPTS} attempts")


class Reaper:
    """The child that outlives us just long enough to end what we leave behind."""

    def __init__(self, home: Home, lock: int) -> None:
        """Start it; it shares the home's lock, so that no successor comes in before it is done."""
        script = Path(__file__).with_name("reaper.py")
        self._popen = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", str(script), str(home.pids), str(home.run_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock],
            cwd="/",
        )
        self.pid = self._popen.pid

    def dead(self) -> bool:
        """Whether somebody killed it."""
        return self._popen.poll() is not None

    def close(self) -> None:
        """Let it go and wait for its end."""
        if self._popen.stdin:
            self._popen.stdin.close()
        self._popen.wait()


def rotate(log: Path) -> None:
    """Keep the log of the start before as `.1`."""
    if log.exists():
        os.replace(log, log.with_suffix(".log.1"))
