"""One figure of tools or documents, beside its yardstick where it has one."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was found; a yardstick is measured in the same run, in turns."""

    measure: str
    found: float
    yardstick: float | None = None

    @property
    def ratio(self) -> float | None:
        """What was found over the yardstick."""
        return self.found / self.yardstick if self.yardstick else None

    @property
    def line(self) -> str:
        """As text."""
        beside = f" (yardstick {self.yardstick:.3g}, {self.ratio:.2f}x)" if self.ratio else ""
        return f"{self.measure}: {self.found:.3g}{beside}"


def tell(figures: Sequence[Figure]) -> None:
    """Print one line per figure."""
    print("\n".join(each.line for each in figures))


async def milliseconds(work: Callable[[], Awaitable[object]]) -> float:
    """What it takes by the wall clock."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000
