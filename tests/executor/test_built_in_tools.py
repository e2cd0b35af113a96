"""Runs that really call the built-in tools: a chart becomes files of the conversation, SQL reads, summaries count."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo

from app import charts
from app.executor import Engine
from tests.engine import World, in_turn, scripted
from tests.executor.test_turns import calls, text
from tests.tools.test_query_database import Shop, shop

__all__ = ["shop"]

LONG = "The harbour was closed after a storm. Two cranes are damaged. Ferries go to Lübeck. " * 20


@pytest.fixture(autouse=True)
async def _artist_ends() -> AsyncIterator[None]:
    yield
    await charts.aclose()


async def run(world: World, engine: Engine, script: Any, *tools: str) -> Any:
    """A conversation of an agent with these tools, and its ended run."""
    await world.agent("worker", model=scripted("worker", script), tools=list(tools))
    conversation = await world.conversation(agent="worker")
    accepted = await world.say(conversation, inline=engine.inline)
    engine.welcome(accepted)
    return conversation, await world.ended(accepted.run_id)


async def test_a_chart_becomes_two_files_of_the_conversation(world: World, engine: Engine) -> None:
    drawn = calls(("create_chart", {"chart_type": "bar", "data": {"Tea": 3, "Mate": 5}, "title": "Cups"}))
    conversation, ended = await run(world, engine, in_turn(drawn, text("Here it is.")), "create_chart")
    assert (ended["state"], ended["result"]) == ("completed", "Here it is.")
    rows = await world.database.fetch("select name, media_type, content from artifacts order by media_type")
    assert [(row["name"], row["media_type"]) for row in rows] == [
        ("cups.png", "image/png"),
        ("cups.svg", "image/svg+xml"),
    ]
    assert rows[0]["content"].startswith(b"\x89PNG")
    assert b"Tea" in rows[1]["content"]
    [call] = await world.calls(conversation)
    assert [each["media_type"] for each in call["result"]["files"]] == ["image/svg+xml", "image/png"]
    told = [event for event in await world.events(conversation) if event.type == "artifact.created"]
    assert len(told) == 2
    await world.check()


async def test_nonsense_is_told_to_the_model_which_mends_it(world: World, engine: Engine) -> None:
    wrong = calls(("create_chart", {"chart_type": "bar", "data": {"Tea": "many"}, "title": "Cups"}))
    right = calls(("create_chart", {"chart_type": "bar", "data": {"Tea": 3}, "title": "Cups"}))
    conversation, ended = await run(world, engine, in_turn(wrong, right, text("Mended.")), "create_chart")
    assert (ended["state"], ended["result"]) == ("completed", "Mended.")
    made = await world.calls(conversation)
    assert [call["state"] for call in made] == ["failed", "done"]
    assert "must be a number or null, not 'many'" in made[0]["error"]


async def test_a_run_reads_a_database_and_writes_nothing(
    world: World, engine: Engine, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "settings", engine.settings.model_copy(update={"sql_tool_url": SecretStr(shop.writer)}))
    before = await shop.state()

    def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        steps = [
            calls(("describe_database", {})),
            calls(("query_database", {"query": "select count(*) from orders"})),
            calls(("query_database", {"query": "delete from orders"})),
        ]
        given = sum(isinstance(message, ModelResponse) for message in messages)
        if given < len(steps):
            assert {"describe_database", "query_database"} <= {tool.name for tool in info.function_tools}
            return steps[given]
        [said] = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        return ModelResponse([TextPart(str(said.content))])

    conversation, ended = await run(world, engine, script, "describe_database", "query_database")
    assert ended["state"] == "completed"
    assert "DELETE is refused" in ended["result"]
    tables, counted, refused = await world.calls(conversation)
    assert "public.orders" in [table["name"] for table in tables["result"]["tables"]]
    assert counted["result"]["rows"] == [[1000]]
    assert (refused["state"], refused["error"][:31]) == ("failed", "query: line 1, column 1: DELETE")
    assert await shop.state() == before


async def test_a_summary_counts_as_the_runs_own_requests(world: World, engine: Engine) -> None:
    def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if not info.function_tools:  # The request that the tool makes.
            return text("A storm closed the harbour.")
        given = sum(isinstance(message, ModelResponse) for message in messages)
        return text("Done.") if given else calls(("summarizer", {"text": LONG, "max_length": 100}))

    conversation, ended = await run(world, engine, script, "summarizer")
    assert ended["state"] == "completed"
    [call] = await world.calls(conversation)
    assert (call["result"]["summary"], call["result"]["method"]) == ("A storm closed the harbour.", "model")
    assert ended["requests"] == 3
