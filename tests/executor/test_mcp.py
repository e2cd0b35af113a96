"""MCP tools in the hands of agents."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL
from app.executor import Engine
from app.models import new_id
from app.settings import Settings
from app.tools import sources
from app.tools.mcp import McpSource
from app.tools.mcp_sessions import Server
from tests.engine import World, in_turn
from tests.executor.test_turns import calls, done, spawn, text
from tests.mcp_server import Running, running

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"parley_egress_allow": "127.0.0.0/8"})


@pytest.fixture
async def there() -> AsyncIterator[Running]:
    async with running() as made:
        yield made


async def connected(world: World, engine: Engine, there: Running) -> None:
    spec = McpSource(url=there.url)
    found = await sources.listing(engine.sessions, DEFAULT_WORKSPACE, "things", spec)
    async with world.database.transaction(DEFAULT_WORKSPACE) as session:
        await sources.save_mcp(session, DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, "things", spec, found)


async def test_an_agent_calls_a_server(world: World, engine: Engine, there: Running) -> None:
    await connected(world, engine, there)
    asked: Any = [
        ("things_add", {"a": 1, "b": 2}),
        ("things_picture", {}),
        ("things_steps", {}),
        ("things_fail", {"text": "x"}),
    ]
    script = in_turn(calls(*asked), text("done"))
    conversation = await spawn(world, engine, script, tools=[name for name, _ in asked])
    assert (await done(world, conversation))["state"] == "completed"
    made = {call["tool"]: call for call in await world.calls(conversation)}
    assert made["things_add"]["result"] == {"total": 3}
    assert made["things_picture"]["result"]["files"][0]["media_type"] == "image/png"
    assert made["things_steps"]["result"] == "done"
    assert (made["things_fail"]["state"], made["things_add"]["risk"]) == ("failed", "external")
    said = str(await world.events(conversation))
    assert "half of it" in said
    assert "artifact.created" in said


async def test_progress_shows_no_secret(engine: Engine) -> None:
    program = ("-m", "tests.mcp_server")
    server = Server("here", command=sys.executable, args=program, cwd=str(ROOT), env={"WORDS": "half of it"})
    told: list[str] = []

    async def watch(text: str, done: int | None, total: int | None) -> None:
        told.append(text)

    async def call() -> Any:
        return await engine.sessions.call(
            server, "steps", {}, conversation_id=None, effect_key=new_id(), progress=watch
        )

    assert (await call())["content"][0]["text"] == "done"
    assert told == ["****"]
    await engine.sessions.aclose()
