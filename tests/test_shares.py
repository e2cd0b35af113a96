"""Shares of what all workspaces use at the same time."""

import asyncio
from uuid import uuid4

import pytest

from app.shares import Shares


async def test_an_owner_gets_no_more_than_its_share() -> None:
    shares, one, another = Shares(3, 2), uuid4(), uuid4()
    places = [await shares.take(one, 1), await shares.take(one, 1)]
    with pytest.raises(TimeoutError):
        await shares.take(one, 0)
    places.append(await shares.take(another, 1))
    with pytest.raises(TimeoutError):  # All are taken.
        await shares.take(None, 0)
    places.pop(0)()
    for owner in (one, None):
        (await shares.take(owner, 1))()


async def test_owners_take_turns() -> None:
    shares, greedy, modest = Shares(1, 1), uuid4(), uuid4()
    order: list[str] = []

    async def draw(name: str, owner: object) -> None:
        async with shares.place(owner):  # type: ignore[arg-type]
            order.append(name)
            await asyncio.sleep(0)

    many = [asyncio.create_task(draw("greedy", greedy)) for _ in range(5)]
    await asyncio.sleep(0)
    await draw("modest", modest)
    await asyncio.gather(*many)
    assert order.index("modest") <= 2


async def test_who_gives_up_waiting_takes_nothing_along() -> None:
    shares, owner = Shares(1, 1), uuid4()
    give_back = await shares.take(owner)
    waiting = [asyncio.create_task(shares.take(each)) for each in (owner, uuid4())]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    give_back()
    (await shares.take(owner, 1))()
