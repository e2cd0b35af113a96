"""Accepted work wakes the workers that listen, without waiting for ARQ's poll."""

import asyncio

from app.executor import Engine
from app.queue import LANE
from app.settings import Settings
from tests.engine import World


async def test_a_queued_run_wakes_a_worker_of_another_process_at_once(
    world: World, engine: Engine, settings: Settings
) -> None:
    async with Engine.open(settings, kind="worker") as worker:
        rung: asyncio.Queue[str] = asyncio.Queue()
        worker.on_due = rung.put_nowait
        async with asyncio.timeout(5):
            while not worker.bus.connected:
                await asyncio.sleep(0.01)
            engine.welcome(await world.queued())  # No ARQ worker runs here: only the live bus can carry this.
            assert await rung.get() == LANE
