"""The schedule of faults: drawn from the seed alone, so that the same seed is the same schedule."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.suite.stage import LEASE, seeded

# How often each fault is drawn. Killing and freezing PostgreSQL as a whole stops everything for a while, so it is rare.
WEIGHTS = {
    "kill worker": 18,
    "kill api": 12,
    "kill scheduler": 8,
    "kill valkey": 5,
    "kill backend": 4,
    "kill postmaster": 2,
    "freeze worker": 16,
    "freeze api": 8,
    "freeze scheduler": 6,
    "freeze valkey": 4,
    "freeze backend": 12,
    "freeze postmaster": 2,
    "terminate backend": 10,
    "stop worker": 4,
    "stop api": 3,
    "stop scheduler": 2,
    "flush": 6,
    "postgres reset": 2,
    "postgres cut": 10,
    "postgres stall": 3,
    "postgres delay": 3,
    "postgres half-close": 2,
    "postgres vanish": 2,
    "redis reset": 2,
    "redis cut": 3,
    "redis stall": 2,
    "redis delay": 2,
    "redis half-close": 2,
    "smtp reset": 2,
    "smtp cut": 2,
    "smtp stall": 1,
    "outside reset": 2,
    "outside cut": 4,
    "outside stall": 2,
    "outside delay": 1,
    "http reset": 2,
    "http cut": 4,
    "http stall": 1,
    "http delay": 1,
    "http half-close": 1,
    "failpoint-kill worker": 26,
    "failpoint-kill api": 12,
    "failpoint-kill scheduler": 4,
    "failpoint-freeze worker": 8,
    "failpoint-freeze api": 4,
    "failpoint-freeze scheduler": 2,
    "failpoint-error worker": 6,
    "failpoint-error api": 4,
    "failpoint-error scheduler": 2,
    "failpoint-delay worker": 3,
}
KILLS_AND_FREEZES = ("kill", "freeze")
FIRST_SECONDS = 3.0


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        at: Seconds after the load began.
        kind: What happens to whom.
        pick: Which of several it meets, taken modulo their number.
        seconds: How long it lasts: the freeze, the stall, or how long a killed process stays away.
        amount: Of bytes, for cuts.
    """

    at: float
    kind: str
    pick: int
    seconds: float
    amount: int

    def __str__(self) -> str:
        return f"{self.at:8.2f}s  {self.kind:<20} pick {self.pick:<4} for {self.seconds:.2f} s, {self.amount} bytes"


def schedule(seed: int, minutes: float, gap_seconds: float) -> list[Fault]:
    """The faults of a run, the first after a calm beginning."""
    return list(_drawn(seed, minutes * 60, gap_seconds))


def _drawn(seed: int, until: float, gap: float) -> Iterator[Fault]:
    chance = seeded(seed, "faults")
    at = FIRST_SECONDS
    while at < until:
        kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        yield Fault(
            round(at, 2),
            kind,
            chance.randrange(1000),
            round(_length(kind, chance.random()), 2),
            chance.randrange(1, 3000),
        )
        at += chance.uniform(0.4, 1.6) * gap


def _length(kind: str, chance: float) -> float:
    what, _, whom = kind.partition(" ")
    what = what.removeprefix("failpoint-")
    if what == "freeze" and whom in ("worker", "api", "scheduler"):
        return LEASE + 0.5 + 2 * chance
    if what == "freeze":
        return 0.5 + 3 * chance
    if what in ("kill", "stop"):
        return 0.05 + chance**3
    if whom == "vanish":
        return 4 * LEASE
    return 0.2 + 1.5 * chance
