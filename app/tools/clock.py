"""The clock of a tool call: it ends the call when its time is over, and stands still while its code calls other tools."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType


class CallClock:
    """An `asyncio.timeout` that can stand still.

    Raises:
        TimeoutError: out of its `async with` block, when the time is over.
    """

    def __init__(self, seconds: float) -> None:
        """Allow this many seconds from the block's beginning on."""
        self._timeout = asyncio.timeout(seconds)
        self._waits = 0
        self._left = seconds

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._timeout.__aexit__(kind, error, trace)

    @property
    def expired(self) -> bool:
        """Whether the time was over."""
        return self._timeout.expired()

    @contextmanager
    def standing_still(self) -> Generator[None]:
        """Not to count the time of this block, nor of others that overlap with it: those wait for calls with clocks of their own."""
        now = asyncio.get_running_loop().time
        if self._waits == 0:
            self._left = (self._timeout.when() or now()) - now()
            self._timeout.reschedule(None)
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if self._waits == 0:
                self._timeout.reschedule(now() + self._left)
