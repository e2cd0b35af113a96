"""The short form's faults: processes die at every failpoint in turn, while the network does what networks do."""

import asyncio
from dataclasses import dataclass, field

from tests.faults.suite.failpoint import HOME, Order, both
from tests.faults.suite.inject import Injector
from tests.faults.suite.load import Memory
from tests.faults.suite.plan import Fault, schedule
from tests.faults.suite.stage import Actor, seeded

PATIENCE_SECONDS = 1.0  # Then the actor is told anew which are left.
GAP_SECONDS = 3.0
# What goes on beside the kills; a frozen process would only keep others waiting.
BESIDE = ("terminate", "flush", "postgres", "redis", "smtp", "outside", "http")
# What clients do that leads to an edge which is not met everywhere.
LEADS_THERE = {
    "execute": "by_hand",
    "webhook": "webhook",
    "depend": "chained",
    "retry": "retried",
    "fork": "forked",
    "detach": "detached",
    "cancel": "cancelled",
    "decide": "question",
    "park": "question",
    "claim key": "narrow",
    "code call": "code",
    "tool start": "payment",
    "progress": "telling",
    "notify": "telling",
    "steer": "steered",
    "retry later": "flaky",
    "release": "paused",
    "expire run": "overdue",
    "expire question": "expiring",
}


@dataclass
class Rounds:
    """Goes through the failpoints of each role with its two processes."""

    injector: Injector
    memory: Memory
    seed: int
    _left: dict[str, set[str]] = field(default_factory=lambda: {role: set(both(HOME[role])) for role in HOME})

    async def play(self, over: asyncio.Event) -> None:
        """Until every failpoint has killed, or the time is over."""
        done = asyncio.Event()
        beside = asyncio.create_task(self.injector.play(self._beside(), done))
        await asyncio.gather(*(self._send(actor, over) for actor in self.injector.stage.actors))
        done.set()
        await beside

    def _beside(self) -> list[Fault]:
        return [fault for fault in schedule(self.seed, 10, GAP_SECONDS / 3) if fault.kind.split()[0] in BESIDE]

    async def _send(self, actor: Actor, over: asyncio.Event) -> None:
        """Let an actor die at whichever it reaches first of those that are left, and start again."""
        left, chance = self._left[actor.role], seeded(self.seed, "skips", actor.name)
        while left and not over.is_set():
            order = Order(sorted(left), "kill", chance.randrange(3), 0.05)
            left.discard(await self.injector.at_failpoint(actor, order, PATIENCE_SECONDS) or "")
            await self.injector.stage.restart_if_ended(actor)
            self._want()

    def _want(self) -> None:
        edges = {name.partition(" ")[2] for names in self._left.values() for name in names}
        self.memory.wanted = {LEADS_THERE[edge] for edge in edges & LEADS_THERE.keys()}
