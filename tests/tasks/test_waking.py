"""A worker lets runs go on whose tasks have ended, also when the process that should have done so died."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from app import failpoints
from app.executor import Engine
from app.settings import Settings
from tests.engine import World, engine, in_turn, scripted, world
from tests.executor.test_turns import text
from tests.tasks.tasks import Desk
from tests.tasks.test_dependencies import FIRST, THEN, on
from workers.resident import Resident

__all__ = ["engine", "world"]


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"parley_sweep_seconds": 0.1, "redis_url": None})


@pytest.fixture
async def _quick(world: World) -> None:
    await world.agent("quick", model=scripted("quick", in_turn(text("ok"))))


@pytest.fixture
def cut_off() -> Iterator[dict[str, int]]:
    """Failpoints at which the connection breaks, so many times each."""
    left: dict[str, int] = {}

    def reached(name: str) -> None:
        if left.get(name):
            left[name] -= 1
            raise ConnectionError(name)

    failpoints.arm(reached)
    yield left
    failpoints.arm(None)


async def chain(desk: Desk) -> list[UUID]:
    """Three tasks after one another, the last also after the first; their runs."""
    first = await desk.create(**FIRST, agent="quick")
    then = await desk.create(**THEN, agent="quick", depends_on=on(first))
    last = await desk.create(**THEN, agent="quick", depends_on=on(first, then))
    return [(await desk.runs(task.id))[0]["id"] for task in (first, then, last)]


async def check(world: World, runs: list[UUID]) -> list[Any]:
    ended = [await world.ended(run_id) for run_id in runs]
    assert [run["state"] for run in ended] == ["completed"] * len(runs)
    assert [run["started_at"] for run in ended] == sorted(run["started_at"] for run in ended)
    queued = "select count(*) from events where run_id = $1 and type = 'run.queued'"
    for run_id in runs:
        assert await world.database.fetchval(queued, run_id) == 1
    await world.check()
    return ended


@pytest.mark.usefixtures("_quick")
async def test_a_chain_of_tasks_runs_through(world: World, desk: Desk, engine: Engine) -> None:
    runs = await chain(desk)
    resident = Resident(engine)
    resident.start()
    await check(world, runs)
    await resident.stop()
    assert resident.defects == 0


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("edge", ["before depend", "after depend"])
async def test_a_missed_wake_up_is_made_up_for(
    world: World, desk: Desk, engine: Engine, cut_off: dict[str, int], edge: str
) -> None:
    runs = await chain(desk)
    cut_off[edge] = 3
    resident = Resident(engine)
    resident.start()
    await check(world, runs)
    await resident.stop()
    assert cut_off[edge] < 3


@pytest.mark.usefixtures("_quick")
async def test_nobody_needs_to_hear_of_it(
    world: World, desk: Desk, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep alone lets them go on."""
    monkeypatch.setattr(engine, "look_at_dependents", lambda _: None)
    runs = await chain(desk)
    resident = Resident(engine)
    resident.start()
    await check(world, runs)
    await resident.stop()


async def test_one_dependent_that_meets_a_defect_does_not_hold_up_the_others(
    engine: Engine, world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await desk.create(**FIRST)
    others = [await desk.create(**THEN, depends_on=on(first)) for _ in range(2)]
    (run,) = await desk.runs(first.id)
    await desk.end(run)
    resolve, met = engine.resolve, []

    async def broken_once(run: Any) -> None:
        met.append(run["id"])
        if len(met) == 1:
            raise RuntimeError("a defect")
        await resolve(run)

    monkeypatch.setattr(engine, "resolve", broken_once)
    engine.look_at_dependents(first.id)
    await asyncio.gather(*engine._notes)
    states = [(await desk.runs(other.id))[0]["state"] for other in others]
    assert sorted(states) == ["queued", "waiting"]
