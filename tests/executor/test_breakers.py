"""Circuit breakers, against a provider on loopback that fails and recovers, asked by the real clients."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai import models

from app.db import Row
from app.executor import Engine
from app.models import new_id
from app.runs import breakers, reasons
from app.settings import Settings
from tests.engine import World
from tests.provider_server import ProviderServer, provider_server
from tests.provider_server.scripts import Failure
from workers.resident import Resident

DOWN = Failure(503, "overloaded", "Overloaded")
REST = 0.4


@pytest.fixture(scope="module")
def loopback() -> Iterator[ProviderServer]:
    with provider_server() as server:
        yield server


@pytest.fixture
def provider(loopback: ProviderServer) -> Iterator[ProviderServer]:
    loopback.reset()
    with models.override_allow_model_requests(True):
        yield loopback


@pytest.fixture
def settings(settings: Settings, provider: ProviderServer) -> Settings:
    theirs = provider.settings()
    names = ("openai_base_url", "openai_api_key", "anthropic_base_url", "anthropic_api_key")
    return settings.model_copy(
        update={name: getattr(theirs, name) for name in names}
        | {
            "parley_sweep_seconds": 0.1,
            "parley_lease_seconds": 1.0,
            "parley_breaker_failures": 3,
            "parley_breaker_seconds": REST,
            "parley_breaker_max_seconds": 2 * REST,
            "redis_url": None,
        }
    )


class Town:
    """Worker processes beside one another, and a provider that can be taken away."""

    def __init__(self, world: World, provider: ProviderServer, engines: list[Engine]) -> None:
        self.world = world
        self.provider = provider
        self.engines = engines

    def fail(self, protocol: str = "chat", failure: Failure = DOWN) -> None:
        self.provider.scripts.outage[protocol] = failure

    def recover(self) -> None:
        self.provider.scripts.outage.clear()

    @property
    def asked(self) -> int:
        return len(self.provider.asked)

    async def submit(self, count: int = 1, agent: str = "plain", **run: Any) -> list[UUID]:
        made = [await self.world.conversation(agent=agent) for _ in range(count)]
        return [(await self.world.say(each, run=run)).run_id for each in made]

    async def breaker(self) -> Row | None:
        return await self.world.database.fetchrow("select * from breakers")

    async def open(self) -> Row:
        """Take the provider away and wait until everybody knows."""
        self.fail()
        await self.submit(3)
        async with asyncio.timeout(10):
            while not ((found := await self.breaker()) and found["opened_at"]):
                await asyncio.sleep(0.01)
        for engine in self.engines:
            engine.breakers.look_soon()
        await asyncio.sleep(0.05)
        return found

    async def rest(self, seconds: float) -> None:
        """Let the next probe be this far away."""
        await self.world.database.execute(
            "update breakers set probe_at = now() + make_interval(secs => $1), probe_id = null, probe_until = null",
            seconds,
        )

    async def waiting(self, run_id: UUID) -> Row:
        return await self.world.until(run_id, lambda row: row["state"] == "queued" and row["breakers"] is not None)

    async def cancel(self, *run_ids: UUID) -> None:
        """End runs that have long answers."""
        for run_id in run_ids:
            row = await self.world.run(run_id)
            await self.engines[0].cancel(row["workspace_id"], run_id, row["conversation_id"], None)
        for run_id in run_ids:
            await self.world.ended(run_id)

    async def why(self, run_id: UUID) -> Any:
        return (await reasons(self.world.database, [run_id]))[run_id]


@asynccontextmanager
async def town_of(world: World, provider: ProviderServer, settings: Settings, workers: int = 2) -> AsyncIterator[Town]:
    await world.agent("plain", model="openai-chat:text")
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(Engine.open(settings, kind="worker")) for _ in range(workers)]
        residents = [Resident(engine) for engine in engines]
        for resident in residents:
            resident.start()
            stack.push_async_callback(resident.stop)
        yield Town(world, provider, engines)


@pytest.fixture
async def town(world: World, provider: ProviderServer, settings: Settings) -> AsyncIterator[Town]:
    async with town_of(world, provider, settings) as opened:
        yield opened


async def test_an_outage_costs_the_waiting_runs_no_attempt_and_ends_with_all_answers(town: Town) -> None:
    await town.open()
    waiting = await town.submit(20)
    rows = [await town.waiting(each) for each in waiting]
    assert {row["attempt"] for row in rows} == {1}
    asked = town.asked
    await asyncio.sleep(4 * REST)  # Probes fail meanwhile, whoever makes them.
    probes = town.asked - asked
    assert 1 <= probes <= 5
    assert {(await town.world.run(each))["attempt"] for each in waiting} == {1}
    town.recover()
    for each in waiting:
        assert (await town.world.ended(each))["state"] == "completed"
    assert await town.breaker() is None
    await town.world.check()


async def test_a_waiting_run_says_which_provider_and_when_it_is_asked_again(town: Town) -> None:
    await town.open()
    await town.rest(60)
    (run,) = await town.submit()
    row = await town.waiting(run)
    why = await town.why(run)
    host = town.provider.url.removeprefix("http://")
    assert why.reason.startswith(f"openai at {host} keeps failing (text: the provider is overloaded: 503 Overloaded);")
    breaker = await town.breaker()
    assert breaker
    assert why.reason.endswith(f"next probe {breaker['probe_at']:%Y-%m-%d %H:%M:%S} UTC")
    assert why.waiting_for == ("provider",)
    events = [event for event in await town.world.events(row["conversation_id"]) if event.type == "run.queued"]
    assert events[-1].data["provider"] == "openai"
    assert events[-1].data["next_probe_at"]


async def test_while_it_is_open_nobody_asks_but_the_probe(town: Town) -> None:
    await town.open()
    await town.rest(60)
    await asyncio.sleep(0.2)
    asked = town.asked
    for each in await town.submit(10):
        await town.waiting(each)
    assert town.asked == asked


async def test_many_waiting_runs_send_one_probe(town: Town) -> None:
    """The provider answers slowly: the probe of one process is under way while all others could try."""
    await town.world.agent("slow", model="openai-chat:slow-300ms")
    await town.open()
    await town.rest(60)
    waiting = await town.submit(12, agent="slow")
    for each in waiting:
        await town.waiting(each)
    asked = town.asked
    town.recover()
    await town.rest(0)
    probes = 0
    while True:
        seen = town.asked - asked
        if await town.breaker() is None:
            break
        probes = max(probes, seen)
        await asyncio.sleep(0.01)
    assert probes == 1
    for each in waiting:
        assert (await town.world.ended(each))["state"] == "completed"


async def test_others_wait_for_the_first_words_of_a_probe_and_not_for_its_end(town: Town) -> None:
    await town.world.agent("slow", model="openai-chat:slow-900ms")
    await town.open()
    await town.rest(60)
    (slow,) = await town.submit(agent="slow")
    await town.waiting(slow)
    await town.world.database.execute("update runs set run_at = now() + interval '2 hours' where id <> $1", slow)
    town.recover()
    await town.rest(0)
    async with asyncio.timeout(5):  # Its whole answer takes eight seconds.
        while await town.breaker() is not None:
            await asyncio.sleep(0.01)
    assert (await town.world.run(slow))["state"] == "running"
    await town.cancel(slow)


async def test_a_probe_that_nobody_renews_is_followed_by_another(town: Town) -> None:
    """Its lease is on the breaker's row, whatever became of its process."""
    breaker = await town.open()
    taken = False
    while not taken:  # A worker may be faster.
        await town.rest(0)
        _, taken = await breakers.probe(town.world.database, breaker["key"], new_id(), lease_seconds=0.8)
    town.recover()
    asked = town.asked
    (run,) = await town.submit()
    await town.waiting(run)
    assert (await town.why(run)).reason.endswith("being probed now")
    assert town.asked == asked
    assert (await town.world.ended(run))["state"] == "completed"


WORKER = """
import asyncio
from pydantic_ai import models
from app.settings import Settings
from workers.worker import main
models.ALLOW_MODEL_REQUESTS = True
asyncio.run(main(Settings.load()))
"""


@asynccontextmanager
async def worker_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    names = ("database_url", "openai_base_url", "openai_api_key", "parley_home", "parley_encryption_keys")
    names += tuple(name for name in Settings.model_fields if name.startswith(("parley_breaker", "parley_lease")))
    values = {name.upper(): getattr(settings, name) for name in names}
    plain = {
        name: str(getattr(value, "get_secret_value", lambda value=value: value)()) for name, value in values.items()
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, env={**os.environ, **plain}, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_prober_that_is_killed_is_followed_by_another(
    world: World, provider: ProviderServer, settings: Settings
) -> None:
    await world.agent("slow", model="openai-chat:slow-2000ms")
    # Long enough for a loop that imports the provider's library meanwhile.
    async with worker_process(settings.model_copy(update={"parley_lease_seconds": 4.0})) as process:
        async with Engine.open(settings, kind="test") as engine:
            breaker = await breakers.fail(
                world.database,
                settings.model_copy(update={"parley_breaker_failures": 1}),
                engine.providers.model("openai-chat:text")._circuit,  # type: ignore[attr-defined]
                error="down",
                retry_after=None,
                probe_id=None,
            )
            assert breaker.open
        slow = (await world.say(await world.conversation(agent="slow"))).run_id
        async with asyncio.timeout(20):
            while not provider.asked:
                await asyncio.sleep(0.02)
        process.kill()
    assert await world.database.fetchval("select probe_until > now() from breakers")
    async with town_of(world, provider, settings, workers=1) as town:
        (run,) = await town.submit()
        assert (await world.ended(run))["state"] == "completed"
        row = await world.until(slow, lambda row: row["crash_count"] == 1)
        assert row["attempt"] == 1
        await town.cancel(slow)


async def test_a_probe_that_is_cancelled_leaves_its_place_at_once(
    world: World, provider: ProviderServer, settings: Settings
) -> None:
    settings = settings.model_copy(update={"parley_lease_seconds": 60.0})
    async with town_of(world, provider, settings, workers=1) as town:
        await world.agent("slow", model="openai-chat:slow-5000ms")
        await town.open()
        await town.rest(60)
        (slow,) = await town.submit(agent="slow")
        await town.waiting(slow)
        await world.database.execute("update runs set run_at = now() + interval '2 hours' where id <> $1", slow)
        town.recover()
        await town.rest(0)
        async with asyncio.timeout(5):
            while not town.engines[0].running.get(slow) or town.provider.asked[-1].model != "slow-5000ms":
                await asyncio.sleep(0.01)
        await town.cancel(slow)
        (run,) = await town.submit()
        assert (await world.ended(run, 5))["state"] == "completed"


async def test_a_probe_under_way_keeps_its_place_for_longer_than_a_lease(town: Town) -> None:
    await town.world.agent("slow", model="openai-chat:slow-1500ms")
    await town.open()
    await town.rest(60)
    waiting = await town.submit(3, agent="slow")
    for each in waiting:
        await town.waiting(each)
    town.recover()
    asked = town.asked
    await town.rest(0)
    await asyncio.sleep(1.3)
    assert town.asked - asked == 1
    await town.cancel(*waiting)


async def test_failures_of_two_processes_are_one_streak(
    world: World, provider: ProviderServer, settings: Settings
) -> None:
    settings = settings.model_copy(update={"parley_breaker_failures": 2})
    async with Engine.open(settings, kind="one") as one, Engine.open(settings, kind="two") as two:
        await world.agent("plain", model="openai-chat:error-503")
        for engine in (one, two):
            conversation = await world.conversation(agent="plain")
            engine.welcome(await world.say(conversation, inline=engine.inline))
            async with asyncio.timeout(10):
                while engine.running:
                    await asyncio.sleep(0.01)
        row = await world.database.fetchrow("select failures, opened_at is not null as open from breakers")
        assert row
        assert (row["failures"], row["open"]) == (2, True)


async def test_an_answer_ends_a_streak(town: Town) -> None:
    await town.world.agent("failing", model="openai-chat:error-503")
    for _ in range(3):
        for agent, state in (("failing", "failed"), ("failing", "failed"), ("plain", "completed")):
            (run,) = await town.submit(agent=agent, retry={"max_attempts": 1})
            assert (await town.world.ended(run))["state"] == state
            await asyncio.sleep(0.15)  # Every process has looked.
    assert await town.breaker() is None


@pytest.mark.parametrize("model", ["error-401", "error-404", "error-context", "error-quota"])
async def test_refusals_are_no_failures(town: Town, model: str) -> None:
    await town.world.agent("refused", model=f"openai-chat:{model}")
    for run in await town.submit(4, agent="refused"):
        assert (await town.world.ended(run))["state"] == "failed"
    assert await town.breaker() is None


@pytest.mark.parametrize("model", ["error-429", "error-500", "error-529"])
async def test_rate_limits_and_server_errors_are(town: Town, model: str) -> None:
    await town.world.agent("failing", model=f"openai-chat:{model}")
    for run in await town.submit(3, agent="failing", retry={"max_attempts": 1}):
        assert (await town.world.ended(run))["state"] == "failed"
    breaker = await town.breaker()
    assert breaker
    assert breaker["opened_at"]


async def test_a_provider_out_of_reach_opens_it(world: World, provider: ProviderServer, settings: Settings) -> None:
    settings = settings.model_copy(update={"openai_base_url": "http://127.0.0.1:9/v1", "parley_breaker_failures": 1})
    async with town_of(world, provider, settings) as town:
        (run,) = await town.submit()
        await world.until(run, lambda row: row["attempt"] == 2)
        breaker = await town.breaker()
        assert breaker
        assert (breaker["opened_at"] is not None, breaker["address"]) == (True, "127.0.0.1:9")
        await town.waiting(run)


async def test_an_answer_that_breaks_off_is_an_answer(town: Town) -> None:
    await town.world.agent("cut", model="openai-chat:cut")
    for run in await town.submit(4, agent="cut", retry={"max_attempts": 1}):
        assert (await town.world.ended(run))["state"] == "failed"
    assert await town.breaker() is None


async def test_the_rest_doubles_up_to_its_most(town: Town) -> None:
    first = await town.open()
    (run,) = await town.submit()
    await town.waiting(run)
    rests: list[float] = []
    opens = first["opens"]
    async with asyncio.timeout(10):
        while len(rests) < 3:
            row = await town.breaker()
            assert row
            if row["opens"] != opens:
                opens = row["opens"]
                rests.append((row["probe_at"] - row["updated_at"]).total_seconds())
            await asyncio.sleep(0.01)
    assert all(2 * REST * 0.74 <= rest <= 2 * REST * 1.26 for rest in rests)
    assert (await town.world.run(run))["attempt"] == 1


async def test_a_provider_is_not_asked_sooner_than_it_said(town: Town) -> None:
    """The loopback provider asks for a second."""
    breaker = await town.open()
    assert (breaker["probe_at"] - breaker["opened_at"]).total_seconds() >= 0.9


async def test_fallbacks_are_asked_instead(town: Town) -> None:
    await town.open()
    await town.rest(60)
    await town.world.agent("careful", model="openai-chat:text", fallback_models=["anthropic:text"])
    asked = len([ask for ask in town.provider.asked if ask.protocol == "chat"])
    for run in await town.submit(3, agent="careful"):
        assert (await town.world.ended(run))["state"] == "completed"
    assert len([ask for ask in town.provider.asked if ask.protocol == "chat"]) == asked


async def test_with_all_of_its_models_away_a_run_waits_for_the_first_that_comes_back(town: Town) -> None:
    await town.open()
    await town.world.agent("other", model="anthropic:text")
    town.fail("messages")
    for run in await town.submit(3, agent="other", retry={"max_attempts": 1}):
        await town.world.ended(run)
    await town.rest(60)
    for engine in town.engines:
        engine.breakers.look_soon()
    await town.world.agent("careful", model="openai-chat:text", fallback_models=["anthropic:text"])
    (run,) = await town.submit(agent="careful")
    row = await town.waiting(run)
    assert len(row["breakers"]) == 2
    del town.provider.scripts.outage["messages"]
    await town.world.database.execute("update breakers set probe_at = now() where provider = 'anthropic'")
    ended = await town.world.ended(run)
    assert (ended["state"], ended["attempt"]) == ("completed", 1)


async def test_a_run_that_began_to_wait_too_late_is_woken_by_the_sweep(town: Town) -> None:
    await town.open()
    await town.rest(60)
    (run,) = await town.submit()
    await town.waiting(run)
    town.recover()
    await town.world.database.execute("delete from breakers")  # As if closed just before it began to wait.
    assert (await town.world.ended(run, 5))["state"] == "completed"


async def test_a_held_run_is_not_chosen_to_probe(town: Town) -> None:
    await town.open()
    await town.rest(60)
    (held,) = await town.submit()
    row = await town.waiting(held)
    await town.world.database.execute(
        "insert into holds (id, workspace_id, scope, mode) values ($1, $2, 'workspace', 'pause')",
        new_id(),
        row["workspace_id"],
    )
    await town.rest(0)
    await asyncio.sleep(0.4)
    assert (await town.world.run(held))["run_at"] == row["run_at"]
    assert (await town.why(held)).reason == "paused"


async def test_no_breaker_when_it_is_turned_off(world: World, provider: ProviderServer, settings: Settings) -> None:
    settings = settings.model_copy(update={"parley_breaker_failures": 0})
    async with town_of(world, provider, settings) as town:
        town.fail()
        for run in await town.submit(4, retry={"max_attempts": 1}):
            assert (await world.ended(run))["state"] == "failed"
        assert await town.breaker() is None


async def test_while_all_is_well_a_run_does_not_touch_the_table(
    world: World, provider: ProviderServer, settings: Settings
) -> None:
    await world.agent("plain", model="openai-chat:text")
    async with Engine.open(settings, kind="test") as engine:
        claim = (await world.say(await world.conversation(agent="plain"), inline=engine.inline)).claim
        assert claim
        async with world.database.engine_tx() as connection:
            await connection.execute("lock table breakers in access exclusive mode")
            engine.spawn(claim)
            assert (await world.ended(claim.run_id, 5))["state"] == "completed"
