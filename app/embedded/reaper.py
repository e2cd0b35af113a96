"""Ends recorded processes: at the supervisor's stop, at its death, and before the next start.

Every process the supervisor starts has a record in `$PARLEY_HOME/pids`. This file also runs as a
program of its own: a child in its own session that blocks on a pipe from the supervisor. The pipe
closes however the supervisor ends, `kill -9` included, and the reaper then ends what is recorded.
It runs without site-packages, so it imports the standard library alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.02
GONE = ("Z", "X", "x")


@dataclass(frozen=True)
class Record:
    """A started process: who it is and how it is asked to end."""

    pid: int
    stage: int
    signals: tuple[int, ...]
    marker: str

    def alive(self) -> bool:
        """Whether this very process still runs: a reused pid is somebody else."""
        line = command_line(self.pid)
        return bool(line) and self.marker in line

    def send(self, number: int) -> None:
        """Signal the process if it is still there."""
        try:
            if self.alive():
                os.kill(self.pid, number)
        except ProcessLookupError:
            return


def command_line(pid: int) -> str:
    """The command line of a live process; empty when there is none or it is a zombie."""
    return _from_proc(pid) if Path("/proc/self/stat").exists() else _from_ps(pid)


def _from_proc(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    return "" if state in GONE else words.replace("\0", " ").strip()


def _from_ps(pid: int) -> str:
    argv = ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)]
    found = subprocess.run(argv, capture_output=True, text=True)  # noqa: S603 - our own words
    state, _, words = found.stdout.strip().partition(" ")
    return "" if state.startswith(GONE) else words.strip()


def exists(pid: int) -> bool:
    """Whether the system knows the pid, be it a zombie or somebody else's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_record(path: Path, record: Record) -> None:
    """Record a process, replacing what the file held."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(path)


def records(folder: Path) -> Iterator[tuple[Path, Record]]:
    """The records of a folder; a torn one is skipped."""
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text())
            yield path, Record(values["pid"], values["stage"], tuple(values["signals"]), values["marker"])
        except (OSError, ValueError, KeyError):
            continue


def end(ending: Iterable[Record], grace_seconds: float = GRACE_SECONDS) -> None:
    """End processes together: the first signal of each, and the next one after each grace period."""
    living = [record for record in ending if record.alive()]
    for turn in range(max((len(record.signals) for record in living), default=0)):
        for record in living:
            record.send(record.signals[min(turn, len(record.signals) - 1)])
        living = _still_alive_after(living, grace_seconds)
        if not living:
            return


def _still_alive_after(living: list[Record], seconds: float) -> list[Record]:
    until = time.monotonic() + seconds
    while living and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        living = [record for record in living if record.alive()]
    return living


def reap(folder: Path, grace_seconds: float = GRACE_SECONDS) -> None:
    """End everything recorded in a folder, stage after stage, and drop the records."""
    found = sorted(records(folder), key=lambda entry: entry[1].stage)
    for _, stage in groupby(found, key=lambda entry: entry[1].stage):
        entries = list(stage)
        end((record for _, record in entries), grace_seconds)
        for path, _ in entries:
            path.unlink(missing_ok=True)


def main(folder: Path, published: Path) -> None:
    """Wait for the supervisor's end, then end what it left and withdraw what it published."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    if any(True for _ in records(folder)):
        reap(folder)
        published.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
