"""A workspace's secrets that a tool lets slip: in its result, its error, or a traceback."""

from typing import Any

import pytest
import structlog
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from app import telemetry
from app.db import DEFAULT_WORKSPACE
from app.errors import ToolError
from app.executor import Engine
from app.models import new_id
from tests.engine import World, in_turn, scripted, tool, tools

SECRET = "let-slip-secret-7"


@pytest.mark.parametrize("how", ["result", "error", "defect"])
async def test_what_a_tool_lets_slip_is_seen_nowhere(
    world: World, engine: Engine, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = {"table": "credentials", "workspace": DEFAULT_WORKSPACE, "row": new_id(), "field": "token"}
    sealed = engine.box.seal(SECRET, **place)

    async def slip(context: Any, arguments: dict[str, Any]) -> Any:
        opened = engine.box.open(sealed, **place)
        if how == "result":
            return {"said": [f"Bearer {opened}"], opened: 1}
        raise ToolError(f"not {opened}") if how == "error" else ValueError(f"not {opened}")

    before = structlog.get_config()
    telemetry.configure(engine.settings)
    try:
        async with tools(tool("slip", slip)):
            answers = in_turn(ModelResponse([ToolCallPart("slip", {})]), ModelResponse([TextPart("Done.")]))
            await world.agent("clerk", model=scripted("clerk", answers), tools=["slip"])
            conversation = await world.conversation(agent="clerk")
            accepted = await world.say(conversation, inline=engine.inline)
            engine.welcome(accepted)
            await world.ended(accepted.run_id)
    finally:
        structlog.configure(**before)
    [call] = await world.calls(conversation)
    shown = str([dict(call), await world.events(conversation)]) + capsys.readouterr().err
    for table in ("tool_calls", "messages", "events", "runs"):
        shown += str([dict(row) for row in await world.database.fetch(f"select * from {table}")])
    assert SECRET not in shown
    assert ("****" in shown) == (how != "defect") or "tool.broke" in shown
    if how == "result":
        assert call["result"] == {"said": ["Bearer ****"], "****": 1}
    elif how == "error":
        assert call["error"] == "not ****"
    else:
        assert "ValueError: not ****" in shown
