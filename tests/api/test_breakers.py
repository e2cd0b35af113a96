"""A message to an agent whose provider is not asked now: answered at once, and done when the provider is back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.api.conftest import serve
from tests.engine import World, world
from tests.executor.test_breakers import DOWN, loopback, provider, settings, town_of
from tests.provider_server import ProviderServer

__all__ = ["loopback", "provider", "settings", "world"]


@pytest.fixture
async def client(world: World, provider: ProviderServer, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A server whose agent's provider is away, with no worker beside it."""
    await world.agent("plain", model="openai-chat:text")
    more = {"parley_breaker_failures": 1, "parley_breaker_seconds": 60.0, "parley_breaker_max_seconds": 60.0}
    # Nobody would take over a run that is lost while a provider's library is imported.
    settings = settings.model_copy(update=more | {"parley_lease_seconds": 10.0})
    async with serve(settings) as opened:
        provider.scripts.outage["chat"] = DOWN
        answer = await say(opened, "One")
        assert answer.status_code == 202  # It backs off: this was a failure like any other.
        await world.until(answer.json()["run_id"], lambda row: row["attempt"] == 2)
        yield opened


async def say(client: httpx.AsyncClient, text: str, **body: Any) -> httpx.Response:
    made = await client.post("/conversations", json={"pattern_type": "chatbot", "agent": "plain"})
    return await client.post(f"/conversations/{made.json()['id']}/messages", json={"message": text, **body})


async def test_a_message_is_answered_at_once_with_the_reason(client: httpx.AsyncClient, world: World) -> None:
    async with asyncio.timeout(5):
        answer = await say(client, "Hello")
    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["Location"] == f"/runs/{told['run_id']}"
    assert told["state"] == "queued"
    assert "keeps failing" in told["reason"]
    run = (await client.get(f"/runs/{told['run_id']}")).json()
    assert (run["state"], run["reason"], run["waiting_for"]) == ("queued", told["reason"], ["provider"])
    assert (run["attempt"], run["started_at"]) == (1, None)
    assert await world.types(told["conversation_id"]) == ["run.queued"]
    explained = (await client.get(f"/runs/{told['run_id']}/explain")).json()
    assert explained["provider"]["provider"] == "openai"
    assert 'parley_breakers_open{provider="openai"} 1.0' in (await client.get("/metrics")).text


async def test_a_stream_says_so_first_and_goes_on_when_the_provider_is_back(
    client: httpx.AsyncClient, world: World, provider: ProviderServer, settings: Settings
) -> None:
    made = await client.post("/conversations", json={"pattern_type": "chatbot", "agent": "plain"})
    path = f"/conversations/{made.json()['id']}/messages"

    async def read() -> list[tuple[str, Any]]:
        answer = await client.post(path, json={"message": "Hello", "stream": True})
        blocks = [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
                  for block in answer.text.split("\n\n")]  # fmt: skip
        return [(block["event"], json.loads(block["data"])) for block in blocks if "event" in block]

    reading = asyncio.create_task(read())
    async with asyncio.timeout(10):
        while "run.queued" not in await world.types(made.json()["id"]):
            await asyncio.sleep(0.01)
    provider.scripts.outage.clear()
    await world.database.execute("update breakers set probe_at = now()")
    async with town_without_agent(world, provider, settings):
        events = await asyncio.wait_for(reading, 20)
    names = [name for name, _ in events]
    assert names[0] == "run.queued"
    assert "keeps failing" in events[0][1]["reason"]
    assert names[-1] == "run.completed"


@asynccontextmanager
async def town_without_agent(world: World, provider: ProviderServer, settings: Settings) -> AsyncIterator[None]:
    await world.database.execute("update agents set name = 'other' where name = 'plain'")
    async with town_of(world, provider, settings, workers=1):
        yield


async def test_a_message_probes_when_its_time_has_come(
    client: httpx.AsyncClient, world: World, provider: ProviderServer
) -> None:
    provider.scripts.outage.clear()
    await world.database.execute("update breakers set probe_at = now()")
    answer = await say(client, "Hello")
    assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "completed", None)
    assert await world.database.fetchval("select count(*) from breakers") == 0


async def test_a_message_that_finds_out_too_late_is_answered_at_once_too(
    client: httpx.AsyncClient, world: World, provider: ProviderServer
) -> None:
    """It is born running, as nothing was known against it; its probe fails."""
    await world.database.execute("update breakers set probe_at = now()")
    async with asyncio.timeout(5):
        answer = await say(client, "Hello")
    told = answer.json()
    assert (answer.status_code, told["state"]) == (202, "queued")
    assert "keeps failing" in told["reason"]
    assert (await world.run(told["run_id"]))["attempt"] == 1


async def test_an_agent_of_another_provider_is_not_held_up(client: httpx.AsyncClient, world: World) -> None:
    await world.database.execute("update agents set name = 'away' where name = 'plain'")
    await world.agent("plain", model="openai-chat:text", fallback_models=["anthropic:text"])
    answer = await say(client, "Hello")
    assert (answer.status_code, answer.json()["state"]) == (200, "completed")
