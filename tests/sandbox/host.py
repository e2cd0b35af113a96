"""What an attack may not touch, and the eyes that see when it did."""

import json
import os
import signal
import socket
import threading
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any, Self

from app.sandbox import Limits, Outcome

OVERHEAD_MB = 80  # what a worker and this process may need beyond a function's own memory
GRACE_SECONDS = 2.0
PRINTED = 65_536
ERROR = 2_100


@dataclass
class Host:
    """Canaries in every place that code may reach for."""

    folder: Path
    secret: str = field(default_factory=lambda: f"canary-{token_hex(8)}")
    signals: int = 0

    def __enter__(self) -> Self:
        """Set the canaries out."""
        self.folder.chmod(0o755)
        self.canary = self.folder / "canary"
        self.canary.write_text(self.secret)
        self.canary.chmod(0o666)
        self.target = self.folder / "target"
        self.target.mkdir()
        self.target.chmod(0o777)
        self.name = f"CANARY_{token_hex(4)}".upper()
        os.environ[self.name] = self.secret
        self.tcp = _listening(socket.socket(), ("127.0.0.1", 0))
        self.port = int(self.tcp.getsockname()[1])
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.udp.setblocking(False)
        self.unix_path = self.folder / "socket"
        self.unix = _listening(socket.socket(socket.AF_UNIX), str(self.unix_path))
        self.unix_path.chmod(0o666)
        self._before = signal.signal(signal.SIGUSR1, self._signalled)
        return self

    def __exit__(self, *exception: object) -> None:
        """Take them in again."""
        signal.signal(signal.SIGUSR1, self._before)
        del os.environ[self.name]
        for each in (self.tcp, self.udp, self.unix):
            each.close()

    def _signalled(self, *_: object) -> None:
        self.signals += 1

    @property
    def arguments(self) -> dict[str, Any]:
        """Where everything is: an attacker may know it all."""
        return {
            "canary": str(self.canary),
            "name": self.name,
            "port": self.port,
            "unix": str(self.unix_path),
            "folder": str(self.target),
            "pid": os.getpid(),
        }

    def touched(self) -> list[str]:
        """What has been reached since it was asked last."""
        found = {
            "the canary was changed": not self.canary.exists() or self.canary.read_text() != self.secret,
            "something was written": any(self.target.iterdir()),
            "the environment was changed": os.environ.get(self.name) != self.secret,
            "a connection came": _came(self.tcp) or _came(self.unix),
            "a packet came": _packet(self.udp),
            "a signal came": self.signals > 0,
        }
        self.signals = 0
        return [what for what, so in found.items() if so]

    def told(self, outcome: Outcome) -> list[str]:
        """What the outcome gives away."""
        said = json.dumps([outcome.result, outcome.printed, outcome.error], default=repr)
        return ["the secret was told"] if self.secret in said else []


def measures(outcome: Outcome, limits: Limits, seconds: float, watch: "Watch") -> list[str]:
    """Which limits the outcome broke."""
    found = {
        f"it took {seconds:.1f} s": seconds > limits.seconds + GRACE_SECONDS,
        f"{watch.worker_mb} MB were used by workers": watch.worker_mb > limits.memory_mb + OVERHEAD_MB,
        f"{watch.own_mb} MB were used here": watch.own_mb > OVERHEAD_MB,
        f"processes were started: {watch.strangers}": bool(watch.strangers),
        "the result is too long": len(json.dumps(outcome.result, allow_nan=False)) > limits.output_bytes * 2,
        "too much was printed": len(outcome.printed) > PRINTED,
        "the error is too long": len(outcome.error or "") > ERROR,
    }
    return [what for what, so in found.items() if so]


class Watch:
    """Looks at the processes every few milliseconds while an attack runs."""

    def __init__(self) -> None:
        self.worker_mb = 0
        self.own_mb = 0
        self.strangers: set[str] = set()
        self._began_mb = _rss_mb(os.getpid())
        self._known = _descendants()
        # What other processes of the tests start, such as a server's own children, is not the sandbox's.
        self._others = {pid for pid in self._known if not is_worker(_command(pid))}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.look()

    def look(self) -> None:
        """Look once, now."""
        self.own_mb = max(self.own_mb, _rss_mb(os.getpid()) - self._began_mb)
        for pid in _descendants(self._others):
            command = _command(pid)
            if is_worker(command):
                self.worker_mb = max(self.worker_mb, _rss_mb(pid))
            elif pid not in self._known and command:
                self.strangers.add(command)


def workers() -> list[int]:
    """The sandbox's processes."""
    return [pid for pid in _descendants() if is_worker(_command(pid))]


def is_worker(command: str) -> bool:
    """Whether a command line is a worker's, or that of the script that is about to become one."""
    return command.endswith(" subprocess")


def _listening(made: socket.socket, address: Any) -> socket.socket:
    made.bind(address)
    made.listen()
    made.setblocking(False)
    return made


def _came(listening: socket.socket) -> bool:
    with suppress(BlockingIOError):
        listening.accept()[0].close()
        return True
    return False


def _packet(receiving: socket.socket) -> bool:
    with suppress(BlockingIOError):
        receiving.recv(10)
        return True
    return False


def _descendants(others: Set[int] = frozenset()) -> set[int]:
    """All processes below this one, but for some with all below them."""
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        children = set(_children(todo.pop())) - others
        found |= children
        todo += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def _rss_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20
