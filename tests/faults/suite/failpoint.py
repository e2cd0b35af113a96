"""Arming failpoints in running processes: each actor has a slot, a few bytes that it shares with the suite.

The suite writes an order into the slot; whatever process plays the actor carries it out when it reaches the failpoint,
once. A process that starts again finds the slot empty.
"""

import json
import mmap
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.errors import DatabaseUnavailable
from app.failpoints import EDGES
from tests.faults.suite.journal import Journal

SIZE = 4096
EMPTY, ARMED, FIRED = 0, 1, 2
ACTIONS = ("kill", "freeze", "error", "delay")

API = ("begin", "say", "task", "execute", "webhook", "retry", "fork", "detach", "cancel", "decide", "ring")
SCHEDULER = ("fire", "advance")
WORKER = tuple(edge for edge in EDGES if edge not in API + SCHEDULER)
# What an API process does too, because it executes the runs of people who wait for the answer.
INLINE = ("renew", "checkpoint", "request", "response", "code call", "tool start", "tool result", "park", "settle")
HOME = {"api": API, "scheduler": SCHEDULER, "worker": WORKER}
REACHED_BY = {"api": API + INLINE, "scheduler": (*SCHEDULER, "ring"), "worker": (*WORKER, "ring")}


def both(edges: tuple[str, ...]) -> list[str]:
    """The failpoints of some edges."""
    return [f"{when} {edge}" for edge in edges for when in ("before", "after")]


@dataclass(frozen=True)
class Order:
    """What shall happen at the first of some failpoints that is reached.

    Attributes:
        skip: So many times one is reached without anything happening.
    """

    names: list[str]
    action: str
    skip: int = 0
    seconds: float = 0.0


class Slot:
    """One actor's; both sides map the same file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), SIZE)

    @property
    def state(self) -> int:
        return self._bytes[0]

    def arm(self, order: Order) -> None:
        self._write(ARMED, asdict(order))

    @property
    def fired(self) -> str | None:
        """The failpoint at which the order was carried out."""
        return json.loads(self._bytes[1:SIZE]) if self._bytes[0] == FIRED else None

    def clear(self) -> None:
        self._bytes[0] = EMPTY

    def disarm(self) -> None:
        """Nothing shall happen any more, unless it has."""
        if self.state == ARMED:
            self.clear()

    def take(self, name: str) -> Order | None:
        """The order, if it is for this failpoint and its turn has come."""
        if self._bytes[0] != ARMED:
            return None
        order = Order(**json.loads(self._bytes[1:SIZE]))
        if name not in order.names:
            return None
        if order.skip:
            self.arm(replace(order, skip=order.skip - 1))
            return None
        self._write(FIRED, name)
        return order

    def _write(self, state: int, what: Any) -> None:
        self._bytes[0] = EMPTY
        self._bytes[1:SIZE] = json.dumps(what).encode().ljust(SIZE - 1)
        self._bytes[0] = state


def hook(slot: Slot, journal: Journal) -> Callable[[str], None]:
    """What a process under test arms its failpoints with."""

    def reached(name: str) -> None:
        order = slot.take(name)
        if order:
            journal.note("failpoint", name=name, action=order.action)
            _act(name, order)

    return reached


def _act(name: str, order: Order) -> None:
    match order.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "delay":
            time.sleep(order.seconds)
        case _ if name.endswith("renew"):
            raise ConnectionError(name)  # The heartbeat speaks to its own connection.
        case _ if not name.endswith("ring"):  # A bell never fails.
            raise DatabaseUnavailable(f"cut off {name}")
