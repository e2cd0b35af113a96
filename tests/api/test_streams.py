"""A stream whose PostgreSQL goes away."""

import httpx
from pydantic import SecretStr

from app.api.streams import _lines
from app.executor import Engine
from app.settings import Settings
from tests.api.conftest import Link
from tests.engine import World, world

__all__ = ["world"]


async def test_it_ends_quietly_and_its_reader_comes_back(world: World, settings: Settings, database_url: str) -> None:
    accepted = await world.queued()
    there = httpx.URL(database_url)
    async with Link(there.host, there.port or 0) as link:
        through = SecretStr(str(there.copy_with(port=link.port)))
        async with Engine.open(settings.model_copy(update={"database_url": through}), kind="api") as engine:
            stream = _lines(engine, accepted.conversation_id, None, None)
            assert b"event: run.queued" in await anext(stream)
            await link.cut()
            engine.bus._miss_everything()
            assert [line async for line in stream] == []
