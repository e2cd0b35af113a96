"""Keeps a set of processes running until it is told to stop, and publishes who they are."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from app.embedded.processes import Child, Process, end_together, rotate
from app.embedded.servers import Servers

TEND_SECONDS = 0.1
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _silent(line: str) -> None:
    """Say nothing."""


class StopRequested(Exception):
    """Somebody asked us to stop."""


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGHUP into a request that is met at the next `pause()`.

    A signal that comes later, while everything is being stopped, changes nothing: no second Ctrl-C
    can break a shutdown half-way.
    """

    def __init__(self) -> None:
        """Nothing is caught before the context is entered."""
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Catch the signals, but leave a hang-up that `nohup` made ignored."""
        for number in STOPPING:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.requested = True

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            StopRequested: when a signal came before or meanwhile.
        """
        if not self.requested:
            time.sleep(seconds)
        if self.requested:
            raise StopRequested


class Supervisor:
    """Runs children beside a home's servers and starts again whatever dies, servers included."""

    def __init__(
        self,
        servers: Servers,
        children: Sequence[Child],
        published: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = _silent,
    ) -> None:
        """Say what to run; `start()` runs it.

        Args:
            servers: The entered servers, whose home this supervisor owns.
            children: What to run beside them.
            published: Further members of `run.json`.
            say: Told about every restart.
        """
        self._say = say
        self.servers = servers
        self.children = [Process(child, servers.home) for child in children]
        self._published = dict(published or {})

    @property
    def processes(self) -> list[Process]:
        """Everything that is kept running."""
        return [*self.servers.processes, *self.children]

    def start(self) -> None:
        """Start the children and publish."""
        for process in self.children:
            rotate(process.log)
            process.start()
        self.publish()

    def publish(self) -> None:
        """Write `run.json`: the process ids by role, and what we were given."""
        roles: dict[str, list[int]] = {}
        for process in self.processes:
            roles.setdefault(process.child.role, []).append(process.pid)
        self.servers.home.write_run({**self._published, **roles})

    def tend(self) -> None:
        """Start again what died and is due."""
        restarted = [process for process in self.processes if process.tend()]
        for process in restarted:
            self._say(f"{process.name} ended (exit code {process.last_exit_code}) and was started again: {process.log}")
        if restarted:
            self.publish()
        self.servers.keep_reaper()

    def run(self, pause: Callable[[float], None]) -> None:
        """Tend until `pause` raises."""
        while True:
            pause(TEND_SECONDS)
            self.tend()

    def stop(self) -> None:
        """End the children; the servers end with their context, after them."""
        end_together(self.children)
