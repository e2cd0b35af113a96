"""Files that tools make: in the log, once per call, and only while the run is held."""

from typing import Any

import pytest
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from app.executor import Engine
from app.tools import Tool, ToolContext
from tests.engine import World, in_turn, scripted, tool, tools


async def made_by(world: World, engine: Engine, made: Tool) -> Any:
    """A conversation whose run calls a tool once, and the run's row."""
    answers = in_turn(ModelResponse([ToolCallPart(made.name, {})]), ModelResponse([TextPart("Done.")]))
    await world.agent("maker", model=scripted("maker", answers), tools=[made.name])
    conversation = await world.conversation(agent="maker")
    async with tools(made):
        accepted = await world.say(conversation, inline=engine.inline)
        engine.welcome(accepted)
        return conversation, await world.ended(accepted.run_id)


async def test_a_file_that_a_tool_keeps_is_stored_once_and_told(world: World, engine: Engine) -> None:
    async def draw(context: ToolContext, arguments: dict[str, Any]) -> Any:
        del arguments
        kept = [await context.keep("chart.svg", "image/svg+xml", b"<svg/>") for _ in range(2)]
        assert kept[0] == kept[1]
        return kept[0]

    conversation, run = await made_by(world, engine, tool("draw", draw))
    assert (run["state"], run["result"]) == ("completed", "Done.")
    [row] = await world.database.fetch("select * from artifacts")
    assert (row["name"], row["content"], row["size"]) == ("chart.svg", b"<svg/>", 6)
    assert (row["conversation_id"], row["run_id"]) == (conversation, run["id"])
    [told] = [event for event in await world.events(conversation) if event.type == "artifact.created"]
    assert told.fields == {
        "artifact_id": str(row["id"]),
        "name": "chart.svg",
        "media_type": "image/svg+xml",
        "size": 6,
    }
    [call] = await world.calls(conversation)
    assert (call["result"], call["artifact_id"]) == (told.fields, row["id"])
    await world.check()


async def test_a_result_too_long_for_the_history_is_kept_whole(world: World, engine: Engine) -> None:
    text = "".join(f"line {number}\n" for number in range(9000))

    async def tell(context: ToolContext, arguments: dict[str, Any]) -> Any:
        del context, arguments
        return text

    conversation, run = await made_by(world, engine, tool("tell", tell))
    assert run["state"] == "completed"
    [row] = await world.database.fetch("select * from artifacts")
    assert (row["name"], row["media_type"], row["content"].decode()) == ("tell.txt", "text/plain", text)
    [call] = await world.calls(conversation)
    assert len(call["result"]) < 64_200
    assert call["result"].endswith(f"[the whole result is the artifact {row['id']}]")
    assert call["artifact_id"] == row["id"]


@pytest.mark.parametrize(
    ("name", "media_type", "size", "said"),
    [
        ("../x", "text/plain", 1, "without a slash"),
        ("x", "nonsense", 1, "not a media type"),
        ("x", "text/plain", 1_500_001, "at most 1500000 bytes"),
    ],
)
async def test_what_can_not_be_kept_is_told_to_the_model(
    world: World, engine: Engine, name: str, media_type: str, size: int, said: str
) -> None:
    async def keep(context: ToolContext, arguments: dict[str, Any]) -> Any:
        del arguments
        return await context.keep(name, media_type, b"x" * size)

    conversation, run = await made_by(world, engine, tool("keep", keep))
    assert run["state"] == "completed"
    [call] = await world.calls(conversation)
    assert call["state"] == "failed"
    assert said in call["error"]
    assert await world.database.fetch("select id from artifacts") == []
