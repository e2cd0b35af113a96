"""Tools that sandboxed code calls: each under its own ledger row and policy, none done twice when the code runs again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import sandbox
from app.approvals import Decision, decide
from app.db import DEFAULT_WORKSPACE
from app.executor import Engine
from app.tools import Risk
from app.tools.python import define
from tests.engine import World, in_turn, tool, tools
from tests.executor.test_stops import cancel, die, started
from tests.executor.test_turns import calls, done, spawn, text, until


@pytest.fixture(autouse=True)
async def _workers_end() -> AsyncIterator[None]:
    yield
    await sandbox.aclose()


def code(source: str) -> Any:
    """A script that runs a piece of code and is done."""
    return in_turn(calls(("execute_code", {"code": source})), text("done"))


async def answer(world: World, engine: Engine, *, approve: bool = True, **arguments: Any) -> Any:
    """Answer the one open question, and let the run go on."""
    (question,) = await world.database.fetch("select * from approvals where state = 'pending'")
    async with world.database.engine_tx() as connection:
        decision = Decision(approve=approve, arguments=arguments or None)
        await decide(connection, DEFAULT_WORKSPACE, question["id"], decision, principal_id=None)
    (claim,) = await world.claim(owner=engine.owner)
    engine.spawn(claim)
    return question


async def double(context: Any, arguments: dict[str, Any]) -> Any:
    assert not context.tools, "code that code calls has no tools"
    return {"doubled": arguments["n"] * 2}


async def test_code_calls_the_agents_other_tools(world: World, engine: Engine) -> None:
    source = "import asyncio\na, b = await asyncio.gather(double(n=1), double(n=2))\na['doubled'] + b['doubled']"
    async with tools(tool("double", double)):
        conversation = await spawn(world, engine, code(source), tools=["execute_code", "double"])
        row = await done(world, conversation)
    assert (row["state"], row["result"]) == ("completed", "done")
    made = await world.calls(conversation)
    assert [(call["tool"], call["sub_index"], call["state"]) for call in made] == [
        ("execute_code", 0, "done"),
        ("double", 1, "done"),
        ("double", 2, "done"),
    ]
    assert made[0]["result"] == {"result": 6, "printed": ""}
    assert {call["tool_call_id"] for call in made} == {"c0", "c0.1", "c0.2"}
    told = [event for event in await world.events(conversation) if event.type.startswith("tool.")]
    within = [event.fields for event in told if event.fields["tool"] == "double"]
    for call_id in ("c0.1", "c0.2"):
        own = [str(event.type) for event in told if event.fields["tool_call_id"] == call_id]
        assert own == ["tool.started", "tool.completed"]
    assert {fields["parent_tool_call_id"] for fields in within} == {"c0"}
    assert [fields["arguments"]["n"] for fields in within if "arguments" in fields] == [1, 2]
    assert sorted(fields["result"]["doubled"] for fields in within if "result" in fields) == [2, 4]
    await world.check()


async def twice(world: World) -> None:
    """Register a function that doubles a number twice, with the tool `double`."""
    source = "async def twice(n: int) -> int:\n    return (await double(n=(await double(n=n))['doubled']))['doubled']"
    made = await define("twice", "Double a number twice", source, tools=["double"])
    await world.database.execute(
        """with t as (insert into tools (id, workspace_id, name, kind, published_version)
           values (gen_random_uuid(), $1, 'twice', 'python', 1) returning id)
           insert into tool_versions (tool_id, version, workspace_id, spec, sha256) select id, 1, $1, $2, 'x' from t""",
        DEFAULT_WORKSPACE,
        made.spec,
    )


async def test_a_registered_function_calls_the_tools_it_names(world: World, engine: Engine) -> None:
    await twice(world)
    async with tools(tool("double", double)):
        script = in_turn(calls(("twice", {"n": 3})), text("done"))
        conversation = await spawn(world, engine, script, tools=["twice", "double"])
        await done(world, conversation)
    assert [call["result"] for call in await world.calls(conversation)] == [12, {"doubled": 6}, {"doubled": 12}]


async def test_a_function_calls_nothing_that_its_agent_does_not_have(world: World, engine: Engine) -> None:
    await twice(world)
    async with tools(tool("double", double)):
        conversation = await spawn(world, engine, in_turn(calls(("twice", {"n": 3})), text("done")), tools=["twice"])
        await done(world, conversation)
    (refused,) = await world.calls(conversation)
    assert refused["error"] == "twice calls double, which whoever calls it does not have"


async def test_a_failed_and_a_denied_call_are_told_to_the_code(world: World, engine: Engine) -> None:
    async def broken(context: Any, arguments: dict[str, Any]) -> Any:
        raise ValueError("secret words")

    source = """
said = []
for call in (broken, double):
    try:
        await call(n=1)
    except RuntimeError as error:
        said.append(str(error))
said
"""
    rule = {"double": {"policy": "deny", "arguments": {"n": 1}}}
    async with tools(tool("double", double), tool("broken", broken)):
        names = ["execute_code", "double", "broken"]
        conversation = await spawn(world, engine, code(source), tools=names, approval=rule)
        await done(world, conversation)
    outer, failed, denied = await world.calls(conversation)
    assert (failed["state"], denied["state"]) == ("failed", "denied")
    assert "secret words" not in str(outer["result"])
    assert outer["result"]["result"] == [failed["error"], denied["error"]]
    assert denied["error"] == "the policy denies this call of double"


@pytest.mark.parametrize("edited", [False, True])
async def test_the_code_waits_for_a_person_and_repeats_nothing(world: World, engine: Engine, edited: bool) -> None:
    paid: list[tuple[int, Any]] = []
    second, stalled = asyncio.Event(), asyncio.Event()

    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        paid.append((arguments["n"], context.effect_key))
        return f"paid {arguments['n']}"

    async def stall(context: Any, arguments: dict[str, Any]) -> Any:
        stalled.set()
        await second.wait()
        return None

    source = (
        "a = await pay(n=1)\ntry:\n    b = await pay(n=500)\nexcept Exception:\n    b = 'caught'\nawait stall()\n[a, b]"
    )
    rule = {"pay": {"policy": "ask", "arguments": {"n": 500}}}
    payer = tool("pay", pay, idempotent=False, risk=Risk.MONEY)
    async with tools(payer, tool("stall", stall, timeout_seconds=60)):
        names = ["execute_code", "pay", "stall"]
        conversation = await spawn(world, engine, code(source), tools=names, approval=rule)
        await until(world, conversation, "waiting")
        assert [n for n, _ in paid] == [1]
        question = await answer(world, engine, **({"n": 400} if edited else {}))
        assert (question["kind"], question["tool"], question["arguments"]) == ("tool", "pay", {"n": 500})
        assert question["subject"] == "2:0:2"
        await asyncio.wait_for(stalled.wait(), 5)
        second.set()  # From here on `stall` goes through; the process dies before it has.
        engine.spawn(await die(world, engine, question["run_id"]))
        row = await done(world, conversation)
    assert row["state"] == "completed"
    assert [n for n, _ in paid] == [1, 400 if edited else 500], "a finished call was repeated"
    assert len({key for _, key in paid}) == 2
    outer = (await world.calls(conversation))[0]
    assert outer["result"]["result"] == ["paid 1", f"paid {400 if edited else 500}"]
    await world.check()


async def test_a_denied_question_is_told_to_the_code(world: World, engine: Engine) -> None:
    source = "try:\n    r = await double(n=1)\nexcept RuntimeError as error:\n    r = str(error)\nr"
    async with tools(tool("double", double)):
        conversation = await spawn(
            world, engine, code(source), tools=["execute_code", "double"], approval={"double": "ask"}
        )
        await until(world, conversation, "waiting")
        await answer(world, engine, approve=False)
        await done(world, conversation)
    assert (await world.calls(conversation))[0]["result"]["result"] == "the call of double was denied by a person"


async def test_code_asks_a_person(world: World, engine: Engine) -> None:
    script = code("name = await ask_person('Who is it?')\n'Hello ' + name")
    conversation = await spawn(world, engine, script, tools=["execute_code", "ask_person"])
    await until(world, conversation, "waiting")
    question = await answer(world, engine, answer="Ada")
    assert (question["kind"], question["arguments"]) == ("question", {"question": "Who is it?"})
    await done(world, conversation)
    assert (await world.calls(conversation))[0]["result"]["result"] == "Hello Ada"


async def test_a_call_cut_off_by_a_crash_is_asked_about(world: World, engine: Engine) -> None:
    working = asyncio.Event()

    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        working.set()
        await asyncio.sleep(60)

    async with tools(tool("pay", pay, idempotent=False, risk=Risk.MONEY, timeout_seconds=90)):
        conversation = await spawn(world, engine, code("await pay(n=1)"), tools=["execute_code", "pay"])
        run = await started(world, conversation)
        await asyncio.wait_for(working.wait(), 5)
        engine.spawn(await die(world, engine, run))
        await until(world, conversation, "waiting")
        question = await answer(world, engine, outcome="happened", result="paid")
        assert (question["kind"], question["tool"], question["subject"]) == ("effect", "pay", "2:0:1")
        row = await done(world, conversation)
    assert row["state"] == "completed"
    outer, inner = await world.calls(conversation)
    assert (outer["result"]["result"], inner["state"]) == ("paid", "done")


async def test_the_limit_on_calls_counts_those_of_code_and_can_not_be_caught(world: World, engine: Engine) -> None:
    source = "for n in range(9):\n    try:\n        await double(n=n)\n    except Exception:\n        pass\n'survived'"
    async with tools(tool("double", double)):
        names = ["execute_code", "double"]
        conversation = await spawn(world, engine, code(source), tools=names, limits={"tool_calls": 4})
        row = await done(world, conversation)
    assert (row["state"], row["error"]["code"]) == ("failed", "limit_reached")
    assert len(await world.calls(conversation)) == 4


async def test_cancelling_cuts_off_what_the_code_waits_for(world: World, engine: Engine) -> None:
    working, cut = asyncio.Event(), asyncio.Event()

    async def linger(context: Any, arguments: dict[str, Any]) -> Any:
        working.set()
        try:
            await asyncio.sleep(60)
        finally:
            cut.set()

    async with tools(tool("linger", linger, timeout_seconds=90)):
        conversation = await spawn(world, engine, code("await linger()"), tools=["execute_code", "linger"])
        run = await started(world, conversation)
        await asyncio.wait_for(working.wait(), 5)
        await cancel(engine, run, conversation)
        row = await done(world, conversation)
        await asyncio.wait_for(cut.wait(), 5)
    assert row["state"] == "cancelled"
    await world.check()
