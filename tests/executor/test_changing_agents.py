"""Agents that change while their runs are under way, and the limits and schemas that a version sets."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse

from app import agents
from app.agents import AgentPatch
from app.db import DEFAULT_WORKSPACE, Row
from app.errors import ToolError, UnknownReference
from app.executor import Engine
from app.identity import LOCAL
from app.settings import Settings
from tests.engine import World, in_turn, scripted, tool, tools
from tests.executor.test_turns import SCHEMA, answered, calls, counted, text
from workers.resident import Resident


@pytest.fixture
async def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"parley_sweep_seconds": 0.1, "redis_url": None})


class Gate:
    """A tool that holds its run until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, context: Any, arguments: dict[str, Any]) -> str:
        self.reached.set()
        await self.opened.wait()
        return "open"


def once_through_the_gate(messages: list[ModelMessage], info: Any) -> ModelResponse:
    """Calls the tool, then answers with the first word of its instructions."""
    asked = sum(isinstance(message, ModelResponse) and bool(message.tool_calls) for message in messages)
    return text(str(messages[-1].instructions).split()[0]) if asked else calls(("gate", {}))  # type: ignore[union-attr]


@pytest.fixture
async def gate(world: World, engine: Engine) -> AsyncIterator[Gate]:
    """A worker at work, and an agent whose first run of a conversation stops at the gate."""
    gate = Gate()
    async with tools(tool("gate", gate, timeout_seconds=30)):
        model = scripted("gated", once_through_the_gate)
        await world.agent("gated", model=model, instructions="one", tools=["gate"])
        resident = Resident(engine)
        resident.start()
        yield gate
        gate.opened.set()
        await resident.stop()


async def change(world: World, work: str, **fields: Any) -> None:
    """Edit and publish, roll back or delete the agent, as the API does."""
    async with world.database.transaction(DEFAULT_WORKSPACE) as session:
        where = (session, world.settings, DEFAULT_WORKSPACE, "gated")
        if work == "edit":
            await agents.patch(session, world.settings, LOCAL, "gated", AgentPatch(**fields))
            await agents.publish(*where)
        elif work == "rollback":
            await agents.rollback(*where)
        else:
            await agents.delete(session, DEFAULT_WORKSPACE, "gated")


async def ended(world: World, run_id: UUID) -> tuple[str, int, str]:
    row: Row = await world.ended(run_id)
    return row["state"], row["agent_version"], row["result"]


async def test_a_run_under_way_keeps_its_version_and_the_next_turn_takes_the_served_one(
    world: World, gate: Gate
) -> None:
    conversation = await world.conversation("chatbot", "gated")
    first = await world.say(conversation)
    await gate.reached.wait()
    await change(world, "edit", instructions="two")
    queued = await world.say(conversation, "And now?")
    gate.opened.set()
    assert await ended(world, first.run_id) == ("completed", 1, "one")
    assert (await ended(world, queued.run_id))[2] == "two"
    await change(world, "rollback")
    after = await world.say(conversation, "And back?")
    assert (await ended(world, after.run_id))[1:] == (1, "one")
    await world.check()


async def test_a_task_keeps_its_version_for_all_its_turns(world: World, gate: Gate) -> None:
    conversation = await world.conversation("delegation", "gated")
    first = await world.say(conversation)
    await gate.reached.wait()
    await change(world, "edit", instructions="two")
    gate.opened.set()
    assert await ended(world, first.run_id) == ("completed", 1, "one")
    answer = await world.say(conversation, "Why?")
    assert await ended(world, answer.run_id) == ("completed", 1, "one")
    fresh = await world.say(await world.conversation("delegation", "gated"))
    assert await ended(world, fresh.run_id) == ("completed", 2, "two")


async def test_a_recovered_run_goes_on_with_its_version(world: World, gate: Gate) -> None:
    """Claimed and left by a worker that died; meanwhile the agent was changed."""
    accepted = await world.say(await world.conversation("chatbot", "gated"))
    await gate.reached.wait()
    await change(world, "edit", instructions="two")
    await world.lapse(accepted.run_id)
    gate.opened.set()
    assert await ended(world, accepted.run_id) == ("completed", 1, "one")


async def test_a_deleted_agent_ends_what_is_under_way_and_begins_nothing(world: World, gate: Gate) -> None:
    conversation = await world.conversation("chatbot", "gated")
    first = await world.say(conversation)
    await gate.reached.wait()
    await change(world, "delete")
    queued = await world.say(conversation, "And now?")
    await world.lapse(first.run_id)  # Its worker is taken for dead: who takes it over finds the agent deleted.
    gate.opened.set()
    assert await ended(world, first.run_id) == ("completed", 1, "one")
    row = await world.ended(queued.run_id)
    assert (row["state"], row["error"]["code"]) == ("failed", "agent_gone")
    with pytest.raises(UnknownReference):
        await world.conversation("chatbot", "gated")
    await world.check()


# --- limits and schemas of a version --------------------------------------------------------------------------


async def test_failed_tool_calls_count(world: World, engine: Engine) -> None:
    async def fails(context: Any, arguments: dict[str, Any]) -> str:
        raise ToolError("no")

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        return calls(("t", {"n": 1}), prefix=f"r{len(messages)}-")

    async with tools(tool("t", fails)):
        row, conversation = await answered(world, engine, script, tools=["t"], limits={"tool_calls": 3})
    assert (row["error"]["code"], row["requests"]) == ("limit_reached", 4)
    assert [call["state"] for call in await world.calls(conversation)][:3] == ["failed"] * 3


async def test_requests_of_tools_count(world: World, engine: Engine) -> None:
    async def asks(context: Any, arguments: dict[str, Any]) -> str:
        return await context.complete("What?")

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        return calls(("t", {}), prefix=f"r{len(messages)}-") if info.function_tools else text("This.")

    async with tools(tool("t", asks)):
        row, _ = await answered(world, engine, script, tools=["t"], limits={"requests": 4})
    assert (row["error"]["code"], row["requests"]) == ("limit_reached", 4)


async def test_a_task_can_not_take_more_time_than_its_agent_may(world: World, engine: Engine) -> None:
    async def slow(messages: list[ModelMessage], info: Any) -> ModelResponse:
        await asyncio.sleep(30)
        return text("late")

    row, _ = await answered(world, engine, slow, limits={"seconds": 0.2}, run={"timeout_seconds": 60})
    assert (row["state"], row["error"]["code"]) == ("failed", "timed_out")


async def test_output_that_does_not_fit_is_asked_again(world: World, engine: Engine) -> None:
    told: list[str] = []

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        told.append(str(messages[-1].parts[-1].content))  # type: ignore[union-attr]
        return calls(("final_result", {"n": "five" if len(told) == 1 else 5}))

    row, _ = await answered(world, engine, script, output_schema=SCHEMA)
    assert (row["state"], row["output"], row["requests"]) == ("completed", {"n": 5}, 2)
    assert "output.n: 'five' is not of type 'integer'" in told[1]


async def test_output_that_never_fits_fails(world: World, engine: Engine) -> None:
    script = in_turn(*[calls(("final_result", {}))] * 9)
    row, _ = await answered(world, engine, script, output_schema=SCHEMA)
    assert (row["state"], row["error"]["code"]) == ("failed", "output_invalid")


async def test_other_calls_are_not_cut_short_by_limits(world: World, engine: Engine) -> None:
    script = in_turn(calls(("t", {"n": 1}), ("t", {"n": 2})), text("ok"))
    async with tools(tool("t", counted)):
        row, _ = await answered(world, engine, script, tools=["t"], limits={"tool_calls": 2, "requests": 2})
    assert row["state"] == "completed"
