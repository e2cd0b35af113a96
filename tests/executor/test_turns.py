import asyncio
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.usage import RequestUsage

from app.db import Row
from app.errors import ToolError
from app.events import EventType, NewEvent, append, follow
from app.executor import Engine
from app.models import new_id
from app.tools import Risk
from app.tools.tool import Arguments, parameters_of, validated
from tests.engine import Script, World, in_turn, scripted, tool, tools
from tests.events.client import Client

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def text(content: str, **usage: int) -> ModelResponse:
    return ModelResponse(parts=[TextPart(content)], usage=RequestUsage(**usage))


def calls(*made: tuple[str, dict[str, Any]], prefix: str = "c") -> ModelResponse:
    return ModelResponse(
        parts=[ToolCallPart(name, args, tool_call_id=f"{prefix}{n}") for n, (name, args) in enumerate(made)]
    )


async def spawn(world: World, engine: Engine, script: Script, *, pattern: str = "chatbot", **fields: Any) -> UUID:
    """A run under way on a scripted agent; answers its conversation."""
    run = fields.pop("run", {})
    model = scripted("test", script, pause=fields.pop("pause", 0.0))
    await world.agent("scripted", model=model, **fields)
    conversation = await world.conversation(pattern, "scripted")
    engine.welcome(await world.say(conversation, "Go", inline=engine.inline, run=run))
    return conversation


async def run_of(world: World, conversation: UUID) -> Row:
    row = await world.database.fetchrow("select * from runs where conversation_id = $1 order by number", conversation)
    assert row
    return row


async def done(world: World, conversation: UUID) -> Row:
    row = await world.ended((await run_of(world, conversation))["id"])
    await asyncio.sleep(0)
    await world.check()
    return row


async def answered(world: World, engine: Engine, script: Script, **fields: Any) -> tuple[Row, UUID]:
    conversation = await spawn(world, engine, script, **fields)
    return await done(world, conversation), conversation


async def test_text(world: World, engine: Engine) -> None:
    row, conversation = await answered(world, engine, in_turn(text("Paris it is", input_tokens=5, output_tokens=3)))
    assert (row["state"], row["result"], row["requests"], row["model"]) == (
        "completed",
        "Paris it is",
        1,
        "scripted:test",
    )
    assert await world.said(conversation) == [("user", "Go"), ("assistant", "Paris it is")]
    assert (await world.types(conversation))[-3:] == ["message.completed", "usage", "run.completed"]


async def test_a_stream_ends_with_the_stored_text(world: World, engine: Engine) -> None:
    words = " ".join(f"w{n}" for n in range(40))
    conversation = await spawn(world, engine, in_turn(text(words)), pause=0.002)
    run = (await run_of(world, conversation))["id"]
    client = Client()
    async for event in follow(engine.bus, world.database, conversation, after=None, run_id=run):
        client.take(event)
    assert client.names.count("text.delta") > 1
    assert client.shown() == ["Go", words]
    assert "message.completed" in client.names


async def counted(context: Any, arguments: dict[str, Any]) -> Any:
    del context
    return {"n": arguments.get("n"), "none": None}


async def test_three_tools_one_after_the_other(world: World, engine: Engine) -> None:
    script = in_turn(*(calls(("t", {"n": n}), prefix=f"r{n}") for n in range(3)), text("done"))
    async with tools(tool("t", counted)):
        row, conversation = await answered(world, engine, script, tools=["t"])
    assert (row["state"], row["requests"]) == ("completed", 4)
    ledger = await world.calls(conversation)
    assert [(call["message_seq"], call["call_index"], call["state"]) for call in ledger] == [
        (2, 0, "done"),
        (4, 0, "done"),
        (6, 0, "done"),
    ]
    assert [call["result"] for call in ledger] == [{"n": n, "none": None} for n in range(3)]
    assert [role for role, _ in await world.said(conversation)] == ["user", *["assistant", "tool"] * 3, "assistant"]


async def test_three_tools_at_once(world: World, engine: Engine) -> None:
    together = asyncio.Barrier(3)

    async def meet(context: Any, arguments: dict[str, Any]) -> Any:
        async with asyncio.timeout(3):
            await together.wait()
        return arguments["n"]

    script = in_turn(calls(*(("t", {"n": n}) for n in range(3))), text("done"))
    async with tools(tool("t", meet)):
        row, conversation = await answered(world, engine, script, tools=["t"])
    assert row["state"] == "completed"
    assert [call["result"] for call in await world.calls(conversation)] == [0, 1, 2]
    types = await world.types(conversation)
    assert types.count("tool.started") == types.count("tool.completed") == 3


async def test_calls_that_share_an_id_are_kept_apart(world: World, engine: Engine) -> None:
    """Some servers number every call the same."""
    response = ModelResponse(parts=[ToolCallPart("t", {"n": n}, tool_call_id="same") for n in range(2)])
    async with tools(tool("t", counted)):
        row, conversation = await answered(world, engine, in_turn(response, text("done")), tools=["t"])
    assert row["state"] == "completed"
    assert [(call["state"], call["result"]) for call in await world.calls(conversation)] == [
        ("done", {"n": 0, "none": None}),
        ("done", {"n": 1, "none": None}),
    ]


class Numbered(Arguments):
    n: int


async def work(context: Any, arguments: Numbered) -> int:
    del context
    return arguments.n


async def test_unknown_tools_and_bad_arguments_are_told_to_the_model(world: World, engine: Engine) -> None:
    made = tool("t", validated(Numbered, work))
    script = in_turn(
        calls(("nosuch", {}), prefix="a"),
        calls(("t", {"n": "x"}), prefix="b"),
        calls(("t", {"n": 1}), prefix="c"),
        text("ok"),
    )
    async with tools(made):
        row, conversation = await answered(world, engine, script, tools=["t"])
    assert row["state"] == "completed"
    assert [call["state"] for call in await world.calls(conversation)] == ["failed", "failed", "done"]
    types = await world.types(conversation)
    assert types.count("tool.failed") == 2
    assert "n: " in [call["error"] for call in await world.calls(conversation)][1]
    assert parameters_of(Numbered)["required"] == ["n"]


@pytest.mark.parametrize(
    "sent",
    ["null", "[]", '""', "5", '["n", 1]', "[" * 100_000, '{"n":' * 100_000, '{"n": ' + "9" * 5000 + "}"],
    ids=["null", "list", "text", "number", "pairs", "deep list", "deep object", "long number"],
)
async def test_arguments_that_are_no_object_are_told_to_the_model(world: World, engine: Engine, sent: str) -> None:
    asked = ModelResponse(parts=[ToolCallPart("t", sent, tool_call_id="c0")])

    script = in_turn(asked, calls(("t", {"n": 3}), prefix="d"), text("ok"))
    async with tools(tool("t", validated(Numbered, work))):
        row, conversation = await answered(world, engine, script, tools=["t"])
    assert (row["state"], row["error"]) == ("completed", None)
    assert [call["state"] for call in await world.calls(conversation)] == ["failed", "done"]


async def test_failures_of_tools_are_results(world: World, engine: Engine) -> None:
    async def refuse(context: Any, arguments: dict[str, Any]) -> Any:
        raise ToolError("the page is gone")

    async def broken(context: Any, arguments: dict[str, Any]) -> Any:
        raise ZeroDivisionError("secret detail")

    async def slow(context: Any, arguments: dict[str, Any]) -> Any:
        await asyncio.sleep(30)

    seen: list[str] = []

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        if len(messages) == 1:
            return calls(("refuse", {}), ("broken", {}), ("slow", {}))
        seen.extend(str(part.content) for part in messages[-1].parts)  # type: ignore[union-attr]
        return text("ok")

    made = (tool("refuse", refuse), tool("broken", broken), tool("slow", slow, timeout_seconds=0.1))
    async with tools(*made):
        row, conversation = await answered(world, engine, script, tools=["refuse", "broken", "slow"])
    assert row["state"] == "completed"
    assert "the page is gone" in seen[0]
    assert "ZeroDivisionError" in seen[1]
    assert "secret detail" not in str(seen)
    assert "timed out" in seen[2]
    assert [call["state"] for call in await world.calls(conversation)] == ["failed"] * 3


async def test_a_result_that_nothing_can_store_is_made_storable(world: World, engine: Engine) -> None:
    odd = {"nul": "a\x00b", "half": "\ud83d", "big": 2**70, "nan": float("nan"), "deep": None, "long": "x" * 100_000}
    nested: Any = 1
    for _ in range(300):
        nested = [nested]
    odd["deep"] = nested

    async def work(context: Any, arguments: dict[str, Any]) -> Any:
        return odd if arguments["n"] else "\x00\ud800" + "y" * 300_000

    script = in_turn(calls(("t", {"n": 0}), ("t", {"n": 1})), text("an\x00swer \ud83d"))
    async with tools(tool("t", work)):
        row, conversation = await answered(world, engine, script, tools=["t"])
    assert (row["state"], row["result"]) == ("completed", "answer ?")
    results = [call["result"] for call in await world.calls(conversation)]
    assert all(len(str(result)) < 70_000 for result in results)
    assert [event.type for event in await world.events(conversation)][-1] == "run.completed"


async def test_a_hostile_tool_name_is_told_and_stored(world: World, engine: Engine) -> None:
    response = ModelResponse(parts=[ToolCallPart("a\x00b\ud800", {}, tool_call_id="i\x00d")])
    row, _ = await answered(world, engine, in_turn(response, text("ok")))
    assert row["state"] == "completed"


async def test_what_the_model_sees_is_what_is_stored(world: World, engine: Engine) -> None:
    """A result with nulls looks the same in the next request and after a resume."""
    seen: list[Any] = []

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        seen.append(messages[-1])
        return calls(("t", {"n": 1, "x": None})) if len(messages) == 1 else text("ok")

    async with tools(tool("t", counted)):
        _, conversation = await answered(world, engine, script, tools=["t"])
    stored = (await world.messages(conversation))[2]["body"]["parts"][0]["content"]
    assert seen[1].parts[0].content == stored == {"n": 1, "none": None}
    asked = (await world.messages(conversation))[1]["body"]["parts"][0]["args"]
    assert asked in ({"n": 1, "x": None}, '{"n":1,"x":null}')


# --- structured output ---------------------------------------------------------------------------------------


async def test_structured_output(world: World, engine: Engine) -> None:
    script = in_turn(calls(("final_result", {"n": 5})))
    row, conversation = await answered(world, engine, script, run={"output_schema": SCHEMA})
    assert (row["state"], row["output"], row["result"]) == ("completed", {"n": 5}, '{"n":5}')
    assert await world.calls(conversation) == []
    assert [role for role, _ in await world.said(conversation)] == ["user", "assistant", "tool"]


async def test_invalid_output_is_asked_again(world: World, engine: Engine) -> None:
    script = in_turn(text("five"), calls(("final_result", {"n": 5})))
    row, conversation = await answered(world, engine, script, run={"output_schema": SCHEMA})
    assert (row["state"], row["output"], row["requests"]) == ("completed", {"n": 5}, 2)
    assert len(await world.messages(conversation)) == 5


async def test_output_that_stays_invalid_fails(world: World, engine: Engine) -> None:
    script = in_turn(*[text("five")] * 9)
    row, _ = await answered(world, engine, script, run={"output_schema": SCHEMA})
    assert (row["state"], row["error"]["code"]) == ("failed", "output_invalid")


async def test_a_tool_called_beside_the_output_leaves_a_whole_history(world: World, engine: Engine) -> None:
    """Every call has its result in the history, and its row is closed."""
    script = in_turn(calls(("t", {"n": 1}), ("final_result", {"n": 5}), ("t", {"n": 2})))
    async with tools(tool("t", counted)):
        row, conversation = await answered(world, engine, script, tools=["t"], run={"output_schema": SCHEMA})
    assert row["state"] == "completed"
    assert {call["state"] for call in await world.calls(conversation)} <= {"done", "failed"}
    last = (await world.messages(conversation))[-1]
    assert last["role"] == "tool"
    assert len(last["body"]["parts"]) == 3


async def test_a_second_turn_sees_the_first(world: World, engine: Engine) -> None:
    seen: list[int] = []

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        seen.append(len(messages))
        return text("ok")

    _, conversation = await answered(world, engine, script)
    accepted = await world.say(conversation, "Again", inline=engine.inline)
    engine.welcome(accepted)
    assert (await world.ended(accepted.run_id))["state"] == "completed"
    assert seen == [1, 3]


# --- limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"requests": 2}, {"tool_calls": 1}, {"tokens": 10}])
async def test_limits_end_a_run(world: World, engine: Engine, limits: dict[str, int]) -> None:
    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        response = calls(("t", {"n": 1}), prefix=f"r{len(messages)}-")
        response.usage = RequestUsage(input_tokens=4, output_tokens=2)
        return response

    async with tools(tool("t", counted)):
        row, conversation = await answered(world, engine, script, tools=["t"], limits=limits)
    assert (row["state"], row["error"]["code"]) == ("failed", "limit_reached")
    assert row["requests"] <= 2
    assert row["requests"] == sum(role == "assistant" for role, _ in await world.said(conversation))


async def test_the_limit_on_money(world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from decimal import Decimal

    from app.executor import recorder

    monkeypatch.setattr(recorder, "cost_of", lambda _: Decimal("0.03"))

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        return calls(("t", {"n": 1}), prefix=f"r{len(messages)}-")

    async with tools(tool("t", counted)):
        row, _ = await answered(world, engine, script, tools=["t"], limits={"cost_usd": 0.05})
    assert (row["state"], row["error"]["code"], row["requests"]) == ("failed", "limit_reached", 2)
    assert float(row["cost_usd"]) == pytest.approx(0.06)


# --- errors --------------------------------------------------------------------------------------------------


async def test_a_retryable_error_is_tried_again_later(world: World, engine: Engine) -> None:
    tries = 0

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ModelHTTPError(503, "scripted", {"error": "busy"})
        return text("ok")

    conversation = await spawn(world, engine, script, run={"retry": {"base_seconds": 0.01}})
    run = (await run_of(world, conversation))["id"]
    row = await world.until(run, lambda row: row["attempt"] == 2)
    assert (row["state"], row["error"]["retryable"]) == ("queued", True)
    await world.database.execute("update runs set run_at = now() where id = $1", run)
    (claim,) = await world.claim(owner=engine.owner)
    engine.spawn(claim)
    row = await done(world, conversation)
    assert (row["state"], row["attempt"], row["error"]) == ("completed", 2, None)
    types = await world.types(conversation)
    assert types.index("run.retrying") < len(types) - types[::-1].index("run.started") - 1


async def test_retries_end(world: World, engine: Engine) -> None:
    script = in_turn(ModelHTTPError(503, "scripted", {"error": "busy"}))
    row, _ = await answered(world, engine, script, run={"retry": {"max_attempts": 1}})
    assert (row["state"], row["error"]["code"], row["error"]["retryable"]) == ("failed", "model_unavailable", True)


async def test_an_error_in_the_middle_of_a_stream_drops_the_partial_text(world: World, engine: Engine) -> None:
    from collections.abc import AsyncIterator

    from pydantic_ai.models.function import FunctionModel

    from app.providers import Providers

    async def stream(messages: list[ModelMessage], info: Any) -> AsyncIterator[str]:
        yield "Half a "
        await asyncio.sleep(0.05)
        raise ModelHTTPError(500, "scripted", {"error": "broke"})

    Providers.register("broken", lambda: FunctionModel(stream_function=stream, model_name="broken"))
    await world.agent("broken", model="scripted:broken")
    conversation = await world.conversation(agent="broken")
    accepted = await world.say(conversation, "Go", inline=engine.inline, run={"retry": {"max_attempts": 1}})
    engine.welcome(accepted)
    client = Client()
    async for event in follow(engine.bus, world.database, conversation, after=None, run_id=accepted.run_id):
        client.take(event)
    assert {"text.delta", "text.snapshot"} & set(client.names)
    assert client.names[-1] == "run.failed"
    assert client.shown() == [said for _, said in await world.said(conversation)]


async def test_running_time_and_deadline(world: World, engine: Engine) -> None:
    async def slow(messages: list[ModelMessage], info: Any) -> ModelResponse:
        await asyncio.sleep(30)
        return text("late")

    row, _ = await answered(world, engine, slow, run={"timeout_seconds": 0.2})
    assert (row["state"], row["error"]["code"]) == ("failed", "timed_out")


async def test_an_instant_that_has_passed_ends_the_run(world: World, engine: Engine) -> None:
    from datetime import UTC, datetime, timedelta

    async def slow(messages: list[ModelMessage], info: Any) -> ModelResponse:
        await asyncio.sleep(30)
        return text("late")

    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    row, _ = await answered(world, engine, slow, run={"deadline_at": soon})
    assert (row["state"], row["error"]["code"]) == ("failed", "deadline_exceeded")


# --- who may do what -----------------------------------------------------------------------------------------


async def offered(world: World, engine: Engine, pattern: str, **fields: Any) -> set[str]:
    seen: set[str] = set()

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        seen.update(each.name for each in info.function_tools)
        return text("ok")

    made = [tool(str(risk), counted, risk=risk) for risk in Risk]
    async with tools(*made):
        await answered(world, engine, script, pattern=pattern, tools=[each.name for each in made], **fields)
    return seen


async def test_untrusted_conversations_are_offered_everything(world: World, engine: Engine) -> None:
    assert await offered(world, engine, "triggered") == {str(risk) for risk in Risk}


@pytest.mark.parametrize("risk", Risk)
async def test_untrusted_conversations_ask_before_they_change_anything(
    world: World, engine: Engine, risk: Risk
) -> None:
    made: list[Any] = []

    async def change(context: Any, arguments: Any) -> str:
        made.append(arguments)
        return "done"

    async with tools(tool("change", change, risk=risk)):
        script = in_turn(calls(("change", {})), text("ok"))
        conversation = await spawn(world, engine, script, pattern="triggered", tools=["change"])
        asks = risk not in (Risk.READ, Risk.CODE)
        if asks:
            await until(world, conversation, "waiting")
        else:
            await done(world, conversation)
    assert len(made) == (0 if asks else 1)


async def until(world: World, conversation: UUID, state: str) -> None:
    for _ in range(300):
        if (await run_of(world, conversation))["state"] == state:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(dict(await run_of(world, conversation)))


async def test_a_denied_tool_is_not_offered(world: World, engine: Engine) -> None:
    assert "write" not in await offered(world, engine, "chatbot", approval={"write": "deny"})


async def test_the_prompt_of_the_first_request(world: World, engine: Engine) -> None:
    seen: list[ModelMessage] = []

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        seen.extend(messages)
        return text("ok")

    await answered(world, engine, script, instructions="Be brief, {{ today }}.")
    assert isinstance(seen[0], ModelRequest)
    assert isinstance(seen[0].parts[0], UserPromptPart)
    assert (seen[0].instructions or "").startswith("Be brief, 20")


async def test_what_a_lost_process_left_untold_is_told_by_the_next(world: World, engine: Engine) -> None:
    """It died between the commit of what it had to tell and the plan of that message."""
    await world.agent("scripted", model=scripted("test", in_turn(text("Done"))))
    told = {"channels": ["email"], "email_address": ["a@example.com"], "on": ["progress"]}
    task = new_id()
    make = """insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, notification_config)
        select $1, workspace_id, 'delegation', 'Report', 'p', id, $2 from agents where name = 'scripted'"""
    await world.database.execute(make, task, told)
    conversation = await world.conversation("delegation", "scripted")
    accepted = await world.say(conversation, "Go", run={"task_id": task})
    [lost] = await world.claim()
    async with world.database.engine_tx() as connection:
        payload = {"text": "half", "done": 1, "total": 2}
        await append(connection, conversation, accepted.run_id, [NewEvent(EventType.RUN_PROGRESS, payload)])
    await world.lapse(lost.run_id)
    await world.recover()
    [claim] = await world.claim()
    engine.spawn(claim)
    await world.ended(accepted.run_id)
    rows = await world.database.fetch("select event, payload->>'text' as text from deliveries where state = 'pending'")
    assert [tuple(row) for row in rows] == [("run.progress", "half (1 of 2)")]
