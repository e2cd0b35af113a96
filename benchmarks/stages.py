"""Stages: the servers that are up together while a group of phases is measured."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from benchmarks.fill import fill
from benchmarks.ground import Ground, floor_servers, parley_servers
from benchmarks.phases import SIDE_BY_SIDE
from benchmarks.readers import SHARED, room
from benchmarks.targets import Parley

STORED = 100_000
STORED_QUICK = 10_000
READERS = 10_000
READERS_QUICK = 1_000

Notes = dict[str, Any]  # What is printed with the environment.
Stage = Callable[[Ground, Notes, bool], AbstractAsyncContextManager[list[Any]]]


@asynccontextmanager
async def side_by_side(ground: Ground, notes: Notes, quick: bool) -> AsyncIterator[list[Any]]:
    """The floor and Parley."""
    async with floor_servers(ground) as floors, parley_servers(ground) as parley:
        yield [*floors, parley]


@asynccontextmanager
async def empty_and_stored(ground: Ground, notes: Notes, quick: bool) -> AsyncIterator[list[Any]]:
    """Two Parleys, one of which has a past; each with a Valkey of its own, so that neither wakes the other."""
    with ground.second_valkey("stored") as (url, pid):
        async with (
            parley_servers(ground, "parley-empty") as empty,
            parley_servers(ground, "parley-stored", redis=url, valkey=pid) as stored,
        ):
            copies = STORED_QUICK if quick else STORED
            seconds = await fill(stored, copies)
            notes["stored conversations"] = f"{copies} (filled in {seconds:.0f} s)"
            yield [empty, stored]


@asynccontextmanager
async def with_samplers(ground: Ground, notes: Notes, quick: bool) -> AsyncIterator[list[Any]]:
    """The floor and Parley, with the sampler in their processes."""
    environment = {"BENCHMARK_SAMPLES": str(ground.home / "samples")}
    async with (
        floor_servers(ground, **environment) as floors,
        parley_servers(ground, environment=environment) as parley,
    ):
        yield [*floors, parley]


@asynccontextmanager
async def many_readers(ground: Ground, notes: Notes, quick: bool) -> AsyncIterator[list[Any]]:
    """A Parley with a conversation for each reader; its API serves nothing else."""
    wanted = READERS_QUICK if quick else READERS
    count = room(wanted)
    notes["readers"] = (
        str(count) if count == wanted else f"{count}: the limit of open files leaves no room for {wanted}"
    )
    async with parley_servers(ground, "parley-readers") as parley:
        await fill(parley, max(1, count - SHARED - 1))
        yield [parley]


@asynccontextmanager
async def one_to_kill(ground: Ground, notes: Notes, quick: bool) -> AsyncIterator[list[Any]]:
    """A Parley with the default lease and sweep."""
    async with parley_servers(ground, "parley-killed") as parley:
        notes["lease and sweep s"] = "10 and 1, the defaults"
        yield [parley]


@asynccontextmanager
async def only_a_database(ground: Ground, notes: Notes, quick: bool) -> AsyncIterator[list[Any]]:
    """Nothing but a migrated database: whoever measures brings the process."""
    dsn = await ground.database("parley-seam")
    settings = ground.settings(dsn, ground.redis)
    yield [Parley(0, dsn, ground.stores, environment={"BENCHMARK_SETTINGS": json.dumps(settings)})]


STAGES: dict[str, Stage] = {
    SIDE_BY_SIDE: side_by_side,
    "store": only_a_database,
    "stored": empty_and_stored,
    "samplers": with_samplers,
    "readers": many_readers,
    "recovery": one_to_kill,
}
