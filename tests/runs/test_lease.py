import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from app.db import Connection
from app.runs import Heartbeat, lease, wish_cancel
from app.settings import Settings
from tests.engine import World


class Told:
    """What a heartbeat said."""

    def __init__(self) -> None:
        self.lost: list[tuple[UUID, int]] = []
        self.cancelled: set[UUID] = set()


@asynccontextmanager
async def beating(settings: Settings, seconds: float = 1.0) -> AsyncIterator[tuple[Heartbeat, Told]]:
    told = Told()
    heart = Heartbeat(
        settings.model_copy(update={"parley_lease_seconds": seconds}),
        lambda run_id, fence: told.lost.append((run_id, fence)),
        told.cancelled.add,
    )
    heart.start()
    try:
        yield heart, told
    finally:
        await heart.stop()


async def until(met: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.02)


async def lease_left(world: World, run_id: UUID) -> float:
    return await world.database.fetchval(
        "select extract(epoch from lease_until - now())::float from runs where id = $1", run_id
    )


async def test_a_held_run_stays_held(world: World, settings: Settings) -> None:
    (held,) = [await world.one()]
    await world.database.execute("update runs set lease_until = now() + interval '1 second'")
    async with beating(settings) as (heart, told):
        heart.hold(held.run_id, held.fence)
        await asyncio.sleep(1.6)
        assert await lease_left(world, held.run_id) > 0
        assert await world.recover() == []
        heart.drop(held.run_id, held.fence + 1)  # another claim's
        assert held.run_id in heart._held
        heart.drop(held.run_id, held.fence)
        await asyncio.sleep(1.3)
        assert await lease_left(world, held.run_id) < 0
    assert told.lost == []


async def test_a_run_taken_over_is_told_as_lost(world: World, settings: Settings) -> None:
    held = await world.one()
    async with beating(settings) as (heart, told):
        heart.hold(held.run_id, held.fence)
        await world.database.execute("update runs set fence = fence + 1")
        await until(lambda: told.lost)
    assert told.lost == [(held.run_id, held.fence)]


async def test_the_wish_to_cancel_is_heard_without_redis(world: World, settings: Settings) -> None:
    held = await world.one()
    async with beating(settings) as (heart, told):
        heart.hold(held.run_id, held.fence)
        async with world.database.engine_tx() as connection:
            await wish_cancel(connection, held.run_id, "enough")
        await until(lambda: told.cancelled == {held.run_id}, 1)


async def test_a_wedged_loop_loses_its_runs(world: World, settings: Settings) -> None:
    held = await world.one()
    async with beating(settings) as (heart, _):
        heart.hold(held.run_id, held.fence)
        await asyncio.sleep(0.4)
        time.sleep(2.4)  # nothing of this process moves but the heartbeat's thread
        assert await lease_left(world, held.run_id) < 0


async def test_a_busy_loop_keeps_its_runs(world: World, settings: Settings) -> None:
    held = await world.one()
    async with beating(settings, 2.0) as (heart, told):
        heart.hold(held.run_id, held.fence)
        await asyncio.sleep(0.4)
        time.sleep(1.5)
        assert await lease_left(world, held.run_id) > 0
    assert told.lost == []


async def test_a_postgresql_that_hangs_makes_it_give_up_in_time(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the lease ends and another process may take the run, this one has let go."""
    held = await world.one()

    async def hang(self: Heartbeat, connection: Connection) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(Heartbeat, "_beat", hang)
    async with beating(settings) as (heart, told):
        began = time.monotonic()
        heart.hold(held.run_id, held.fence)
        await until(lambda: told.lost, 2)
        assert time.monotonic() - began < 1.0
        heart._stop.set()


async def test_a_stumble_does_not_end_the_beat(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await world.one()
    beat, stumbles = Heartbeat._beat, 0

    async def stumble(self: Heartbeat, connection: Connection) -> None:
        nonlocal stumbles
        if stumbles == 0:
            stumbles = 1
            raise ValueError("nobody expected this")
        await beat(self, connection)

    monkeypatch.setattr(Heartbeat, "_beat", stumble)
    await world.database.execute("update runs set lease_until = now()")
    async with beating(settings) as (heart, _):
        heart.hold(held.run_id, held.fence)
        await asyncio.sleep(0.8)
        assert await lease_left(world, held.run_id) > 0
    assert stumbles == 1
    assert lease.PULSE_SECONDS
