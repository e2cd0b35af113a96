"""The seam behind which work is put together."""

import asyncio
from collections.abc import Hashable

import pytest

from app import coalesce
from app.coalesce import Coalescer


class Store:
    """Takes numbers; odd batches, single ones and stalls as a test wants."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.alone: list[int] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.seam: Coalescer[int, int] = Coalescer(self._together, self._one, key=lambda number: number % 100)

    async def _together(self, numbers: list[int]) -> dict[Hashable, int]:
        self.batches.append(numbers)
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.broken:
            raise ConnectionError("the batch is lost")
        return {number % 100: number * 2 for number in numbers if number != 13}

    async def _one(self, number: int) -> int:
        self.alone.append(number)
        await self.gate.wait()
        if number == 13:
            raise ValueError("13")
        return number * 2


async def test_what_comes_together_is_done_together() -> None:
    store = Store()
    assert await asyncio.gather(*(store.seam.do(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert (store.batches, store.alone) == ([[0, 1, 2, 3, 4]], [])
    assert await store.seam.do(7) == 14
    assert store.alone == [7]


async def test_a_batch_holds_one_of_a_name() -> None:
    store = Store()
    assert await asyncio.gather(*(store.seam.do(number) for number in (1, 101, 2))) == [2, 202, 4]
    assert (store.batches, store.alone) == ([[1, 2]], [101])


async def test_the_one_that_was_left_out_fails_alone() -> None:
    store = Store()
    answers = await asyncio.gather(*(store.seam.do(number) for number in (12, 13, 14)), return_exceptions=True)
    assert [answers[0], str(answers[1]), answers[2]] == [24, "13", 28]
    assert store.alone == [13]


async def test_a_lost_batch_is_done_one_by_one() -> None:
    store = Store()
    store.broken = True
    assert await asyncio.gather(*(store.seam.do(number) for number in range(3))) == [0, 2, 4]
    assert sorted(store.alone) == [0, 1, 2]


async def test_a_caller_that_goes_away_takes_nobody_along() -> None:
    store = Store()
    callers = [asyncio.create_task(store.seam.do(number)) for number in range(3)]
    await asyncio.sleep(0)
    callers[1].cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (0, asyncio.CancelledError, 4)
    assert await store.seam.do(9) == 18


async def test_a_stalled_batch_holds_up_nobody_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "STALLED_SECONDS", 0.02)
    store = Store()
    store.gate.clear()
    stuck = [asyncio.create_task(store.seam.do(number)) for number in range(2)]
    await asyncio.sleep(0)
    behind = asyncio.create_task(store.seam.do(5))  # Waits for the batch before, until that has stalled.
    async with asyncio.timeout(5):
        while store.alone != [5]:
            await asyncio.sleep(0.005)
        late = asyncio.create_task(store.seam.do(6))
        while store.alone != [5, 6]:
            await asyncio.sleep(0.005)
    store.gate.set()
    assert await asyncio.gather(*stuck, behind, late) == [0, 2, 10, 12]
    assert await store.seam.do(8) == 16
