"""Who may keep how much of what all share busy: what one workspace has hanging must leave room for the others."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from uuid import UUID
from weakref import WeakValueDictionary


class Shares:
    """Places handed out, as of workers or connections: so many in all, and fewer to each owner."""

    def __init__(self, most: int, each: int) -> None:
        """Hand out `most` places at a time, and no owner more than `each`."""
        self._all = asyncio.Semaphore(most)
        self._each = each
        self._owners = WeakValueDictionary[UUID | str, asyncio.Semaphore]()

    async def take(self, owner: UUID | str | None, seconds: float | None = None) -> Callable[[], None]:
        """Wait for a place; call what this answers, once, to give it back. Without an owner, all places are open.

        Raises:
            TimeoutError: none became free within the seconds.
        """
        own = self._share_of(owner)
        async with asyncio.timeout(seconds):
            await own.acquire()
            try:
                await self._all.acquire()
            except BaseException:
                own.release()
                raise

        def give_back() -> None:
            self._all.release()
            own.release()

        return give_back

    @asynccontextmanager
    async def place(self, owner: UUID | str | None) -> AsyncGenerator[None]:
        """Hold a place; wait for one as long as it takes."""
        give_back = await self.take(owner)
        try:
            yield
        finally:
            give_back()

    def _share_of(self, owner: UUID | str | None) -> asyncio.Semaphore:
        if owner is None:
            return asyncio.Semaphore(1)
        if (share := self._owners.get(owner)) is None:
            self._owners[owner] = share = asyncio.Semaphore(self._each)
        return share
