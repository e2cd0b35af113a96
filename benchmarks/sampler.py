"""Where the CPU time of a process goes: a timer of CPU time interrupts it, and what it was doing is counted.

Installed only in processes that are started for it (`BENCHMARK_SAMPLES` names a file); the measured ones never carry
it. The innermost frame of a known part has the sample. A library that works for several parts (redis, asyncio,
pydantic) counts for whoever called it; what the loop does between tasks, sockets mostly, is `loop`.

It imports nothing but the standard library: it must not add to what it looks at.
"""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_SECONDS = 0.001  # As fine as the kernel's tick allows; 4 ms on many.
PARTS = ("http", "commits", "queue", "agent", "executor", "events", "loop", "other")

# What a file's path holds -> the part; the first that fits.
PLACES = (
    ("/app/events/", "events"),
    ("/app/api/streams", "events"),
    ("/sse_starlette/", "events"),
    ("/app/api/", "http"),
    ("/app/main", "http"),
    ("/app/identity", "http"),
    ("/fastapi/", "http"),
    ("/starlette/", "http"),
    ("/uvicorn/protocols/", "http"),
    ("/limits/", "http"),
    ("/app/queue", "queue"),
    ("/workers/", "queue"),
    ("/arq/", "queue"),
    ("/app/executor/", "executor"),
    ("/app/approvals", "executor"),
    ("/app/providers/", "agent"),
    ("/app/agents/", "agent"),
    ("/app/tools/", "agent"),
    ("/app/messages", "agent"),
    ("/pydantic_ai/", "agent"),
    ("/pydantic_graph/", "agent"),
    ("/benchmarks/model", "agent"),
    ("/asyncpg/", "commits"),
    ("/sqlalchemy/", "commits"),
    ("/app/db", "commits"),
    ("/app/runs/", "commits"),
    ("/app/settle", "commits"),
    ("/app/conversations/", "commits"),
    ("/app/tasks/", "commits"),
    ("/app/audit", "commits"),
    ("/app/models/", "commits"),
    ("/app/notifications/", "commits"),
    # The floor is one file: what it does itself is said by its functions.
    ("floor.py:submit", "commits"),
    ("floor.py:run", "commits"),
    ("floor.py:wait", "commits"),
    ("floor.py:_listen", "events"),
    ("floor.py:work", "queue"),
)
LOOP = ("/asyncio/", "/uvloop/", "/anyio/")

counts: Counter[str] = Counter()
known: dict[tuple[str, str], str | None] = {}


def install() -> None:
    """Begin to count, when the environment asks for it; SIGUSR1 writes the counts down."""
    if path := os.environ.get("BENCHMARK_SAMPLES"):
        signal.signal(signal.SIGPROF, lambda _, frame: counts.update((part_of(frame),)))
        signal.signal(signal.SIGUSR1, lambda *_: write(f"{path}.{os.getpid()}"))
        signal.setitimer(signal.ITIMER_PROF, EVERY_SECONDS, EVERY_SECONDS)


def write(path: str) -> None:
    """Leave the counts so far, whole or not at all."""
    partial = Path(f"{path}.partial")
    partial.write_text(json.dumps(counts))
    partial.replace(path)


def part_of(frame: FrameType | None) -> str:
    """The part that a stack is in, from the inside out."""
    outermost = "other"
    while frame is not None:
        code = frame.f_code
        if part := _part(code.co_filename, code.co_name):
            return part
        if any(name in code.co_filename for name in LOOP):
            outermost = "loop"
        frame = frame.f_back
    return outermost


def _part(path: str, function: str) -> str | None:
    place = (path, function)
    if place not in known:
        full = f"{path}:{function}"
        known[place] = next((part for name, part in PLACES if name in full), None)
    return known[place]
