"""What the kernel says: CPU time and memory of processes, and the machine all this ran on."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
CPU_CLOCK = 2  # What clock_getcpuclockid(3) makes of a process id: all of its threads, user and system time.
LIBRARIES = ("pydantic-ai-slim", "fastapi", "uvicorn", "uvloop", "asyncpg", "arq", "sqlalchemy")

Groups = Mapping[str, Sequence[int]]  # The ids of processes by what they are.


def cpu_ms(groups: Groups) -> dict[str, float]:
    """CPU time so far of each group of processes, its children (ended ones too) included."""
    return {name: sum(_cpu_ms(pid) for root in roots for pid in tree(root)) for name, roots in groups.items()}


def pss_mb(groups: Groups) -> dict[str, float]:
    """Proportional memory of each group, where the kernel lets us read it."""
    found = {name: [_pss_kb(pid) for root in roots for pid in tree(root)] for name, roots in groups.items()}
    return {name: sum(sizes) / 1024 for name, sizes in found.items() if sizes and all(sizes)}


def tree(root: int) -> list[int]:
    """A process and everything below it."""
    try:
        tasks = os.listdir(f"/proc/{root}/task")
    except OSError:  # it has ended
        tasks = []
    below = [int(pid) for task in tasks for pid in _read(f"/proc/{root}/task/{task}/children").split()]
    return [root, *(each for child in below for each in tree(child))]


def environment() -> dict[str, Any]:
    """The machine and the versions."""
    return {
        "cpu": next((line.split(": ")[1] for line in _read("/proc/cpuinfo").splitlines() if "model name" in line), "?"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "load_average": load(),
        "at": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
    }


def load() -> str:
    """The load average."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _cpu_ms(pid: int) -> float:
    """A process's own CPU time to the nanosecond, and that of the children it waited for in the kernel's ticks."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    try:
        own = time.clock_gettime((~pid << 3) | CPU_CLOCK) * 1000
    except OSError:  # it has ended
        own = 0.0
    return own + sum(map(int, fields[13:15])) * TICK_MS


def _pss_kb(pid: int) -> int:
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
