import asyncio
import contextlib
import signal
import time

from redis.asyncio import Redis

from app.errors import DatabaseUnavailable
from app.queue import Bell, queue_name
from app.redis import AWAY
from tests.engine import World
from tests.faults.conftest import (
    LEASE,
    SWEEP,
    Fleet,
    Place,
    all_ended,
    held_by,
    submit,
    wait_for_note,
    whole,
)


async def test_a_worker_killed_in_the_middle_of_a_run(world: World, fleet: Fleet) -> None:
    run = await submit(world, "a", seconds=0.5)
    await wait_for_note(fleet, "begin a 1")
    victim = await held_by(world, run)
    before = fleet.notes()
    fleet.send(victim, signal.SIGKILL)
    killed = time.monotonic()
    await all_ended(world, [run], LEASE + SWEEP + 3)
    assert time.monotonic() - killed <= LEASE + SWEEP + 3
    await whole(world, fleet, [run])
    after = fleet.notes()
    row = await world.run(run)
    assert (row["crash_count"], row["attempt"]) == (1, 1)
    assert before["answer a 0"] == after["answer a 0"] == 1, "a recorded response was asked again"
    assert after["answer a 1"] == 1
    assert before["end a 0"] == after["end a 0"] == 1, "a finished call was repeated"
    assert after["begin a 1"] == 2  # it was under way, and its tool says that it may be repeated


async def test_a_frozen_worker_that_wakes_up_too_late_writes_nothing(world: World, fleet: Fleet) -> None:
    run = await submit(world, "f", seconds=0.6)
    await wait_for_note(fleet, "begin f 1")
    victim = await held_by(world, run)
    fleet.send(victim, signal.SIGSTOP)
    await all_ended(world, [run], LEASE + SWEEP + 5)
    row = await world.run(run)
    ended = await world.events(row["conversation_id"])
    fleet.send(victim, signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert await world.events(row["conversation_id"]) == ended
    assert dict(await world.run(run)) == dict(row)
    await whole(world, fleet, [run])
    follow_up = await submit(world, "g", tools=1, seconds=0.01)  # and it is of use again
    await all_ended(world, [follow_up], 5)


async def test_a_worker_told_to_stop_gives_its_run_back(world: World, fleet: Fleet) -> None:
    run = await submit(world, "t", seconds=1.5)
    await wait_for_note(fleet, "begin t 1")
    victim = await held_by(world, run)
    fleet.send(victim, signal.SIGTERM)
    assert await fleet.gone(victim) == 0
    row = await world.until(run, lambda row: row["fence"] == 2)
    assert (row["attempt"], row["crash_count"]) == (1, 0)
    await all_ended(world, [run], 8)
    await whole(world, fleet, [run])
    assert "run.queued" in (await world.types(row["conversation_id"]))[1:]
    assert fleet.notes()["end t 0"] == 1


async def test_redis_emptied_with_runs_queued_and_running(world: World, fleet: Fleet, place: Place) -> None:
    async with Redis.from_url(place.redis_url) as redis:
        runs = [await submit(world, f"r{n}", tools=2, seconds=0.1) for n in range(20)]
        await redis.flushall()
        await asyncio.sleep(0.1)
        await redis.flushall()
        await all_ended(world, runs, 15)
    await whole(world, fleet, runs, tools=2)
    assert (await world.database.fetchval("select max(fence) from runs")) == 1


async def test_redis_stopped_under_load(world: World, fleet: Fleet, place: Place) -> None:
    assert place.servers.valkey
    runs = [await submit(world, f"v{n}", tools=2, seconds=0.1) for n in range(10)]
    await asyncio.to_thread(place.servers.valkey.process.stop)
    runs += [await submit(world, f"w{n}", tools=2, seconds=0.1) for n in range(10)]
    await all_ended(world, runs, 20)
    await whole(world, fleet, runs, tools=2)
    place.servers.valkey.process.start()
    await _bell_hangs_again(place)


async def _bell_hangs_again(place: Place) -> None:
    """ARQ's loop takes rings again: what is rung in its lane is gone soon, and in a lane without workers is not."""
    async with Redis.from_url(place.redis_url) as redis, asyncio.timeout(15):
        while True:
            bell = Bell(place.redis_url)
            bell.ring("nobody")
            bell.ring()
            await bell.close()
            await asyncio.sleep(0.3)
            with contextlib.suppress(*AWAY):
                if await redis.exists(queue_name("nobody")) and not await redis.exists(queue_name("default")):
                    return


async def test_postgresql_restarted_under_load(world: World, fleet: Fleet, place: Place) -> None:
    assert place.servers.postgres
    runs = [await submit(world, f"p{n}", tools=3, seconds=0.3) for n in range(12)]
    await wait_for_note(fleet, "begin p0 0")
    process = place.servers.postgres.process
    await asyncio.to_thread(process.stop)
    await asyncio.to_thread(process.start)
    await _until_postgres_answers(world)
    await all_ended(world, runs, 25)
    await whole(world, fleet, runs)
    crashes = await world.database.fetchval("select max(crash_count) from runs")
    assert crashes == 0, "an outage is no crash of a run"


async def _until_postgres_answers(world: World) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                await world.database.fetchval("select 1")
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)
            else:
                return
