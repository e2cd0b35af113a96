"""Streams: of a turn that is sent to the background, and when PostgreSQL goes away."""

import asyncio

import httpx
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo

from app.api.streams import _lines
from app.events import bursts
from app.executor import Engine
from app.settings import Settings
from tests.api.conftest import Link
from tests.engine import World, scripted, world

__all__ = ["world"]


async def test_who_reads_along_is_told_that_the_turn_goes_to_the_background(
    world: World, client: httpx.AsyncClient
) -> None:
    """The reader may leave; one that stays sees the run to its end."""
    speaking, go_on = asyncio.Event(), asyncio.Event()

    async def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        speaking.set()
        await go_on.wait()
        return ModelResponse(parts=[TextPart("done")])

    await world.agent("slow", model=scripted("slow", script))
    reading = asyncio.create_task(client.post("/runs", json={"agent": "slow", "message": "Hello", "stream": True}))
    await asyncio.wait_for(speaking.wait(), 5)
    (run,) = (await client.get("/runs")).json()["items"]
    assert (await client.post(f"/runs/{run['id']}/background")).status_code == 200
    go_on.set()
    names = [line.removeprefix("event: ") for line in (await reading).text.splitlines() if line.startswith("event: ")]
    assert names.count("run.detached") == 1
    assert names.index("run.detached") < names.index("message.completed")
    assert names[-1] == "run.completed"


async def test_it_ends_quietly_and_its_reader_comes_back(world: World, settings: Settings, database_url: str) -> None:
    accepted = await world.queued()
    there = httpx.URL(database_url)
    async with Link(there.host, there.port or 0) as link:
        through = SecretStr(str(there.copy_with(port=link.port)))
        async with Engine.open(settings.model_copy(update={"database_url": through}), kind="api") as engine:
            events = bursts(engine.bus, engine.database, accepted.conversation_id, after=None)
            stream = _lines(events, accepted.conversation_id)
            assert b"event: run.queued" in await anext(stream)
            await link.cut()
            engine.bus._miss_everything()
            assert [line async for line in stream] == []
