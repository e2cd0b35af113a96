"""The journal: what models and tools really did, in lines that survive the process that wrote them."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Journal:
    """Appends lines; any number of processes share the file, each line is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, **fields: Any) -> None:
        entry = {"what": what, "at": time.time(), "pid": os.getpid(), **fields}
        os.write(self._file, json.dumps(entry).encode() + b"\n")


@dataclass(frozen=True)
class Note:
    """One line: `ask` (the model is asked), `begin`, `effect` or `end` (of a tool), or `mail`."""

    what: str
    at: float
    pid: int
    fields: dict[str, Any] = field(hash=False)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


def read(path: Path) -> Iterator[Note]:
    """All lines; a torn last one is the end."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        entry: dict[str, Any] = json.loads(line)
        yield Note(entry.pop("what"), entry.pop("at"), entry.pop("pid"), entry)
