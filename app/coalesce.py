"""Work that comes while other work is on its way is done together: one statement and one commit for many."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

BATCH = 50
STALLED_SECONDS = 0.5  # A batch that takes longer no longer holds up those behind it ...
MOST_STALLED = 4  # ... unless that many have: then PostgreSQL is away, and more connections would not help.


class Coalescer(Generic[T, R]):
    """A seam to PostgreSQL. Alone, an item costs what it always cost; under load, many share a commit.

    A batch that fails, and an item that a batch could not do, is done again alone: nobody pays for another's fault.
    """

    def __init__(
        self,
        together: Callable[[list[T]], Awaitable[Mapping[Hashable, R]]],
        alone: Callable[[T], Awaitable[R]],
        *,
        key: Callable[[T], Hashable],
    ) -> None:
        """Make a seam.

        Args:
            together: Does a batch in one transaction; what it leaves out of its answer was not done.
            alone: Does one item, or raises its error.
            key: Names an item; a batch never holds two of one name.
        """
        self._together = together
        self._alone = alone
        self._key = key
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._stalled: set[asyncio.Task[None]] = set()

    async def do(self, item: T) -> R:
        """Do an item; returns when it is on disk, raises what it raises alone."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        """Do batches while anything waits, or until another task has taken over."""
        me = asyncio.current_task()
        while self._waiting and self._flushing is me:
            watch = asyncio.get_running_loop().call_later(STALLED_SECONDS, self._pass_by)
            try:
                await self._commit(self._next_batch())
            finally:
                watch.cancel()
        if self._flushing is me:
            self._flushing = None

    def _pass_by(self) -> None:
        """The batch under way has stalled, on a lock or a dead connection: let what comes after it pass."""
        if self._flushing is None or len(self._stalled) >= MOST_STALLED:
            return
        self._stalled.add(self._flushing)
        self._flushing.add_done_callback(self._stalled.discard)
        self._flushing = asyncio.create_task(self._flush()) if self._waiting else None

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        """The oldest items, at most one of a name."""
        batch: dict[Hashable, tuple[T, asyncio.Future[R]]] = {}
        rest: list[tuple[T, asyncio.Future[R]]] = []
        for each in self._waiting:
            name = self._key(each[0])
            if name in batch or len(batch) == BATCH:
                rest.append(each)
            else:
                batch[name] = each
        self._waiting = rest
        return list(batch.values())

    async def _commit(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        done: Mapping[Hashable, R] = {}
        if len(batch) > 1:
            try:
                done = await self._together([item for item, _ in batch])
            except Exception:  # noqa: BLE001 - each is done again alone, where its own error comes out
                done = {}
        alone = [each for each in batch if not self._resolve(each, done)]
        try:
            # Side by side, so that an outage does not make the last of them wait for the patience of all others.
            await asyncio.gather(*(self._do_alone(*each) for each in alone))
        finally:
            for _, future in alone:
                future.cancel()  # Nobody waits for ever for a flush that was stopped; what is done is done.

    def _resolve(self, each: tuple[T, "asyncio.Future[R]"], done: Mapping[Hashable, R]) -> bool:
        item, future = each
        name = self._key(item)
        if name in done and not future.done():
            future.set_result(done[name])
        return name in done

    async def _do_alone(self, item: T, future: "asyncio.Future[R]") -> None:
        try:
            result = await self._alone(item)
        except Exception as error:  # noqa: BLE001 - the guilty caller alone gets the error
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
