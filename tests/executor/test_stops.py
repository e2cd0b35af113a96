"""Runs that are cancelled, steered, given back, and taken up again after their process died."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse

from app import failpoints
from app.approvals import Decision, decide
from app.db import DEFAULT_WORKSPACE
from app.errors import DatabaseUnavailable, LeaseLost, ModelUnavailable
from app.executor import Engine
from app.executor.execute import Stop
from app.models import new_id
from app.runs import Claim, wish_cancel
from app.tools import Park, Risk
from app.tools.python import define
from tests.engine import World, in_turn, tool, tools
from tests.executor.test_turns import calls, counted, done, run_of, spawn, text, until


async def started(world: World, conversation: UUID) -> UUID:
    run = (await run_of(world, conversation))["id"]
    await world.until(run, lambda row: row["state"] == "running")
    return run


async def speaks(engine: Engine, run: UUID) -> None:
    """Some words of an answer are said."""
    async with asyncio.timeout(5):
        while "word word" not in str(_unfinished(engine, run)):
            await asyncio.sleep(0.01)


def _unfinished(engine: Engine, run: UUID) -> list[ModelMessage]:
    cast = engine.running[run].cast
    return cast.speech.unfinished() if cast else []


async def recorded(world: World, conversation: UUID, count: int) -> None:
    """So many calls of the conversation are done."""
    async with asyncio.timeout(5):
        while [call["state"] for call in await world.calls(conversation)].count("done") < count:
            await asyncio.sleep(0.01)


async def cancel(engine: Engine, run: UUID, conversation: UUID) -> None:
    await engine.cancel(DEFAULT_WORKSPACE, run, conversation, "enough")


async def die(world: World, engine: Engine, run: UUID) -> Claim:
    """The process dies: nothing more is written, the lease runs out, another claim takes the run."""
    execution = engine.running[run]
    execution.stop(Stop.LOST)
    if execution.task:
        await asyncio.gather(execution.task, return_exceptions=True)
    assert (await world.run(run))["state"] == "running"
    await world.lapse(run)
    await world.recover()
    (claim,) = await world.claim(owner=engine.owner)
    return claim


@pytest.fixture
def hiccup() -> Iterator[Callable[[str], None]]:
    """PostgreSQL is away once, when a failpoint is reached."""

    def at(name: str) -> None:
        def reached(point: str) -> None:
            if point == name:
                failpoints.arm(None)
                raise DatabaseUnavailable("cut off by the test")

        failpoints.arm(reached)

    yield at
    failpoints.arm(None)


# --- cancel --------------------------------------------------------------------------------------------------


async def test_cancel_while_it_speaks_keeps_what_was_said(world: World, engine: Engine) -> None:
    conversation = await spawn(world, engine, in_turn(text(" ".join(["word"] * 500))), pause=0.01)
    run = await started(world, conversation)
    await speaks(engine, run)
    await cancel(engine, run, conversation)
    row = await done(world, conversation)
    assert (row["state"], row["error"]["code"], row["error"]["message"]) == ("cancelled", "cancelled", "enough")
    last = (await world.messages(conversation))[-1]
    assert (last["role"], last["interrupted"]) == ("assistant", True)
    assert last["text"].startswith("word word")
    assert row["result"] == last["text"]
    event = next(event for event in await world.events(conversation) if event.type == "message.completed")
    assert event.fields["interrupted"]


async def test_a_turn_after_a_cancelled_one(world: World, engine: Engine) -> None:
    """The model is asked again with what was said before; nothing in the history stops it."""
    seen: list[ModelMessage] = []

    async def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        seen[:] = messages
        if len(messages) == 1:
            return text(" ".join(["word"] * 500))
        return text("ok")

    conversation = await spawn(world, engine, script, pause=0.01)
    run = await started(world, conversation)
    await speaks(engine, run)
    await cancel(engine, run, conversation)
    await done(world, conversation)
    accepted = await world.say(conversation, "Again", inline=engine.inline)
    engine.welcome(accepted)
    row = await world.ended(accepted.run_id)
    assert (row["state"], row["result"]) == ("completed", "ok")
    assert [message.kind for message in seen] == ["request", "response", "request"]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_cancel_while_a_tool_works(world: World, engine: Engine, idempotent: bool) -> None:
    working = asyncio.Event()
    seen: list[ModelMessage] = []

    async def work(context: Any, arguments: dict[str, Any]) -> Any:
        if arguments["n"] == 0:
            return "quick"
        working.set()
        await asyncio.sleep(30)

    async def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        seen[:] = messages
        return calls(("t", {"n": 0}), ("t", {"n": 1})) if len(messages) == 1 else text("ok")

    async with tools(tool("t", work, idempotent=idempotent)):
        conversation = await spawn(world, engine, script, tools=["t"])
        run = await started(world, conversation)
        await asyncio.wait_for(working.wait(), 5)
        await recorded(world, conversation, 1)
        await cancel(engine, run, conversation)
        row = await done(world, conversation)
        assert row["state"] == "cancelled"
        assert [call["state"] for call in await world.calls(conversation)] == ["done", "unknown"]
        accepted = await world.say(conversation, "Again", inline=engine.inline)
        engine.welcome(accepted)
        row = await world.ended(accepted.run_id)
    assert (row["state"], row["result"]) == ("completed", "ok")
    returned = {
        part.tool_call_id
        for message in seen
        if isinstance(message, ModelRequest)
        for part in message.parts
        if part.part_kind == "tool-return"
    }
    assert returned == {"c0", "c1"}


async def test_cancel_in_back_off(world: World, engine: Engine) -> None:
    from pydantic_ai.exceptions import ModelHTTPError

    conversation = await spawn(
        world, engine, in_turn(ModelHTTPError(503, "scripted", {})), run={"retry": {"base_seconds": 60}}
    )
    run = (await run_of(world, conversation))["id"]
    await world.until(run, lambda row: row["state"] == "queued")
    await cancel(engine, run, conversation)
    assert (await done(world, conversation))["state"] == "cancelled"


async def test_cancel_while_it_parks(world: World, engine: Engine) -> None:
    """The wish comes too late for a signal: a run that shall be cancelled does not begin to wait for a person."""

    async def ask(context: Any, arguments: dict[str, Any]) -> Any:
        async with world.database.engine_tx() as connection:
            assert await wish_cancel(connection, context.run_id, "enough")
        raise Park("question", {"question": "Which colour?"})

    async with tools(tool("ask", ask)):
        conversation = await spawn(world, engine, in_turn(calls(("ask", {}))), tools=["ask"])
        row = await done(world, conversation)
    assert row["state"] == "cancelled"
    assert await world.database.fetchval("select count(*) from approvals") == 0


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.004, 0.006, 0.01, 0.015, 0.02, 0.03])
async def test_cancel_at_any_moment_ends_the_run_soon(world: World, engine: Engine, delay: float) -> None:
    """Also in the middle of a write: the run does not wait for its lease to run out."""
    script = in_turn(*(calls(("t", {"n": n}), prefix=f"r{n}") for n in range(8)), text("done"))
    async with tools(tool("t", counted)):
        conversation = await spawn(world, engine, script, tools=["t"])
        run = (await run_of(world, conversation))["id"]
        await asyncio.sleep(delay)
        await cancel(engine, run, conversation)
        row = await world.ended(run, 3)
    assert row["state"] in ("cancelled", "completed")
    await world.check()


# --- steer ---------------------------------------------------------------------------------------------------


async def test_a_steer_is_seen_at_the_next_step_and_ever_after(world: World, engine: Engine) -> None:
    asked: list[list[str]] = []
    working, go_on = asyncio.Event(), asyncio.Event()

    async def work(context: Any, arguments: dict[str, Any]) -> Any:
        working.set()
        await go_on.wait()
        return "fine"

    def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        asked.append([str(part.content) for message in messages if message.kind == "request" for part in message.parts])
        given = sum(isinstance(message, ModelResponse) for message in messages)
        return calls(("t", {}), prefix=f"r{given}") if given < 2 else text("done")

    async with tools(tool("t", work)):
        conversation = await spawn(world, engine, script, tools=["t"])
        run = await started(world, conversation)
        await asyncio.wait_for(working.wait(), 5)
        steered = await world.say(conversation, "In French, please", on_message="steer")
        assert steered.run_id == run
        go_on.set()
        row = await done(world, conversation)
    assert row["state"] == "completed"
    assert asked[1] == ["Go", "fine", "In French, please"]
    assert asked[2] == ["Go", "fine", "In French, please", "fine"]
    assert await world.said(conversation) == [
        ("user", "Go"),
        ("assistant", ""),
        ("tool", ""),
        ("user", "In French, please"),
        ("assistant", ""),
        ("tool", ""),
        ("assistant", "done"),
    ]
    assert await world.database.fetchval("select count(*) from inputs where consumed_seq is null") == 0
    accepted = await world.say(conversation, "Again", inline=engine.inline)
    engine.welcome(accepted)
    assert (await world.ended(accepted.run_id))["state"] == "completed"
    assert asked[-1] == ["Go", "fine", "In French, please", "fine", "Again"]


async def test_a_crash_after_a_steer_was_stored(world: World, engine: Engine) -> None:
    asked: list[list[str]] = []
    stall = asyncio.Event()

    async def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        asked.append([str(part.content) for message in messages if message.kind == "request" for part in message.parts])
        if len(asked) == 1:
            return calls(("t", {}))
        if len(asked) == 2:
            stall.set()
            await asyncio.sleep(30)
        return text("done")

    async def work(context: Any, arguments: dict[str, Any]) -> Any:
        await world.say(conversation, "In French, please", on_message="steer")
        return "fine"

    async with tools(tool("t", work)):
        conversation = await spawn(world, engine, script, tools=["t"])
        run = await started(world, conversation)
        await asyncio.wait_for(stall.wait(), 5)
        engine.spawn(await die(world, engine, run))
        row = await done(world, conversation)
    assert row["state"] == "completed"
    assert asked[1] == asked[2] == ["Go", "fine", "In French, please"]


# --- death at each edge --------------------------------------------------------------------------------------


class Journal:
    """What really happened, whoever did it."""

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.effects: list[Any] = []
        self.stop_at: str | None = None
        self.stopped = asyncio.Event()

    async def edge(self, name: str) -> None:
        """The process stands still here once, so that it can be killed."""
        if self.stop_at == name:
            self.stop_at = None
            self.stopped.set()
            await asyncio.sleep(60)

    async def model(self, messages: list[ModelMessage], info: Any) -> ModelResponse:
        given = sum(isinstance(message, ModelResponse) for message in messages)
        await self.edge(f"model {given}")
        self.requests.append(given)
        return (
            calls(("t", {"n": 0}), ("t", {"n": 1}), ("t", {"n": 2}))
            if given == 0
            else calls(("t", {"n": 3}), prefix="d")
            if given == 1
            else text("done")
        )

    async def tool(self, context: Any, arguments: dict[str, Any]) -> Any:
        n = arguments["n"]
        if n == 1:
            await asyncio.sleep(0.05)
        await self.edge(f"before {n}")
        self.effects.append((n, context.effect_key))
        await self.edge(f"after {n}")
        return n


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    made = Journal()
    async with tools(tool("t", made.tool, risk=Risk.WRITE)):
        yield made


EDGES = ["model 0", "model 1", "model 2", *(f"{when} {n}" for n in range(4) for when in ("before", "after"))]


# How many calls are done by then: those of earlier responses, and the others of its own.
FINISHED = {"model 0": 0, "model 1": 3, "model 2": 4, "before 3": 3, "after 3": 3}


async def finished(world: World, conversation: UUID, count: int) -> list[Any]:
    """The calls that are recorded as done, once there are so many."""
    async with asyncio.timeout(10):
        while len(done := [call for call in await world.calls(conversation) if call["state"] == "done"]) < count:
            await asyncio.sleep(0.01)
    return done


@pytest.mark.parametrize("edge", EDGES)
async def test_death_at_each_edge(world: World, engine: Engine, journal: Journal, edge: str) -> None:
    journal.stop_at = edge
    conversation = await spawn(world, engine, journal.model, tools=["t"])
    run = await started(world, conversation)
    await asyncio.wait_for(journal.stopped.wait(), 5)
    recorded = await finished(world, conversation, FINISHED.get(edge, 2))
    engine.spawn(await die(world, engine, run))
    row = await done(world, conversation)
    assert (row["state"], row["crash_count"], row["attempt"], row["fence"]) == ("completed", 1, 1, 2)
    assert row["requests"] == 3
    assert journal.requests == [0, 1, 2], "a recorded response was asked again"
    counts = [sum(n == each for each, _ in journal.effects) for n in range(4)]
    for call in recorded:
        assert counts[call["arguments"]["n"]] == 1, "a finished call was repeated"
    assert max(counts) <= 2
    assert len({key for _, key in journal.effects}) == 4  # a repeated call has its old key
    assert [call["state"] for call in await world.calls(conversation)] == ["done"] * 4
    assert [role for role, _ in await world.said(conversation)] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]


async def test_a_finished_run_whose_end_was_lost_is_only_ended(world: World, engine: Engine, journal: Journal) -> None:
    """The answer's message is stored only with the end; after a death in between it is asked once more."""
    conversation = await spawn(world, engine, journal.model, tools=["t"])
    row = await done(world, conversation)
    assert row["state"] == "completed"
    await world.database.execute(
        "update runs set state = 'running', finished_at = null, ready = true, lease_until = now(), owner = 'x' "
    )
    await world.database.execute("update heads set open_runs = 1, state = 'running', active_run_id = $1", row["id"])
    await world.database.execute("delete from events where type = 'run.completed'")
    await world.database.execute("update heads set event_seq = event_seq - 1")
    await world.lapse(row["id"])
    await world.recover()
    (claim,) = await world.claim(owner=engine.owner)
    engine.spawn(claim)
    again = await done(world, conversation)
    assert (again["state"], again["result"]) == ("completed", "done")
    assert journal.requests == [0, 1, 2]


@pytest.mark.parametrize(
    ("said", "state", "times", "result"),
    [
        ({"outcome": "happened", "result": "paid 5"}, "completed", 1, "paid 5"),
        ({"outcome": "repeat"}, "completed", 2, "paid"),
        ({"outcome": "fail"}, "failed", 1, None),
        (None, "failed", 1, None),
    ],
)
async def test_an_unknown_outcome_of_a_tool_that_must_not_run_twice(
    world: World, engine: Engine, said: dict[str, Any] | None, state: str, times: int, result: str | None
) -> None:
    working = asyncio.Event()
    runs = 0

    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        nonlocal runs
        runs += 1
        working.set()
        await asyncio.sleep(60 if runs == 1 else 0)
        return "paid"

    async with tools(tool("pay", pay, idempotent=False, risk=Risk.MONEY, timeout_seconds=90)):
        conversation = await spawn(world, engine, in_turn(calls(("pay", {})), text("done")), tools=["pay"])
        run = await started(world, conversation)
        await asyncio.wait_for(working.wait(), 5)
        engine.spawn(await die(world, engine, run))
        await until(world, conversation, "waiting")
        await world.check()
        assert runs == 1
        question = await world.database.fetchrow("select id, kind, tool from approvals")
        assert question
        assert (question["kind"], question["tool"]) == ("effect", "pay")
        decision = Decision(approve=said is not None, arguments=said)
        async with world.database.engine_tx() as connection:
            await decide(connection, DEFAULT_WORKSPACE, question["id"], decision, principal_id=None)
        (claim,) = await world.claim(owner=engine.owner)
        engine.spawn(claim)
        row = await done(world, conversation)
    assert row["state"] == state
    assert (row["error"] or {}).get("code") == (None if state == "completed" else "effect_unknown")
    assert runs == times
    (call,) = await world.calls(conversation)
    assert (call["state"], call["result"]) == ("done" if result else "unknown", result)


@pytest.mark.parametrize("park_is_lost", [False, True])
async def test_a_repeated_call_is_the_one_that_was_approved_and_is_asked_about_each_time(
    world: World,
    engine: Engine,
    hiccup: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    park_is_lost: bool,
) -> None:
    monkeypatch.setattr("app.runs.write.RETRY_SECONDS", ())
    paid: list[Any] = []
    working = asyncio.Event()

    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        paid.append(arguments["n"])
        working.set()
        await asyncio.sleep(60)

    async def answer(kind: str, **arguments: Any) -> Any:
        await until(world, conversation, "waiting")
        (question,) = await world.database.fetch("select id, kind, arguments from approvals where state = 'pending'")
        assert question["kind"] == kind
        async with world.database.engine_tx() as connection:
            decision = Decision(approve=True, arguments=arguments)
            await decide(connection, DEFAULT_WORKSPACE, question["id"], decision, principal_id=None)
        (claim,) = await world.claim(owner=engine.owner)
        engine.spawn(claim)
        return question["arguments"]

    async def begun_and_dead() -> None:
        await asyncio.wait_for(working.wait(), 5)
        working.clear()
        engine.spawn(await die(world, engine, run))

    async with tools(tool("pay", pay, idempotent=False, timeout_seconds=90)):
        script = in_turn(calls(("pay", {"n": 100})), text("done"))
        conversation = await spawn(world, engine, script, tools=["pay"], approval={"pay": "ask"})
        run = (await run_of(world, conversation))["id"]
        assert await answer("tool", n=5) == {"n": 100}
        await begun_and_dead()
        assert await answer("effect", outcome="repeat") == {"n": 5}
        await begun_and_dead()
        if park_is_lost:  # Who was about to ask dies too: the answer before is no answer to this.
            hiccup("before park")
            await asyncio.wait_for(engine.running[run].task or asyncio.sleep(0), 5)
            await world.lapse(run)
            await world.recover(cap=9)
            engine.spawn(*await world.claim(owner=engine.owner))
        assert await answer("effect", outcome="happened", result="paid 5") == {"n": 5}
        row = await done(world, conversation)
    assert (row["state"], paid) == ("completed", [5, 5])


async def test_a_call_that_must_not_run_twice_and_takes_too_long_is_asked_about(world: World, engine: Engine) -> None:
    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        await asyncio.sleep(60)

    async with tools(tool("pay", pay, idempotent=False, timeout_seconds=0.05)):
        conversation = await spawn(world, engine, in_turn(calls(("pay", {})), text("done")), tools=["pay"])
        await until(world, conversation, "waiting")
        (call,) = await world.calls(conversation)
        assert call["state"] == "unknown"
        question = await world.database.fetchrow("select id, kind from approvals")
        assert question
        assert question["kind"] == "effect"
        said = Decision(approve=True, arguments={"outcome": "happened", "result": "paid 5"})
        async with world.database.engine_tx() as connection:
            await decide(connection, DEFAULT_WORKSPACE, question["id"], said, principal_id=None)
        engine.spawn(*await world.claim(owner=engine.owner))
        row = await done(world, conversation)
    (call,) = await world.calls(conversation)
    assert (row["state"], call["state"], call["result"]) == ("completed", "done", "paid 5")


async def test_a_proposed_call_has_not_happened(world: World, engine: Engine) -> None:
    """A tool that must not run twice starts in a commit of its own: who died before that may make the call."""
    paid = 0

    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        nonlocal paid
        paid += 1
        return "paid"

    async with tools(tool("pay", pay, idempotent=False)):
        conversation = await spawn(world, engine, in_turn(calls(("pay", {})), text("done")), tools=["pay"])
        row = await done(world, conversation)
    assert (row["state"], paid) == ("completed", 1)
    types = await world.types(conversation)
    assert types.index("tool.started") > types.index("message.completed")


# --- given back ----------------------------------------------------------------------------------------------


async def test_a_released_run_goes_on_elsewhere(world: World, engine: Engine, journal: Journal) -> None:
    journal.stop_at = "model 1"
    conversation = await spawn(world, engine, journal.model, tools=["t"])
    run = await started(world, conversation)
    await asyncio.wait_for(journal.stopped.wait(), 5)
    await engine.release_all()
    row = await world.run(run)
    assert (row["state"], row["attempt"], row["crash_count"]) == ("queued", 1, 0)
    (claim,) = await world.claim(owner=engine.owner)
    engine.spawn(claim)
    row = await done(world, conversation)
    assert row["state"] == "completed"
    assert journal.requests == [0, 1, 2]
    assert len(journal.effects) == 4


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_short_outage_does_not_keep_a_run_from_being_given_back(
    world: World, engine: Engine, journal: Journal, hiccup: Callable[[str], None], when: str
) -> None:
    journal.stop_at = "model 1"
    conversation = await spawn(world, engine, journal.model, tools=["t"])
    run = await started(world, conversation)
    await asyncio.wait_for(journal.stopped.wait(), 5)
    hiccup(f"{when} release")
    await engine.release_all()
    row = await world.run(run)
    assert (row["state"], row["attempt"], row["crash_count"]) == ("queued", 1, 0)
    assert (await world.types(conversation)).count("run.queued") == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_short_outage_does_not_keep_a_run_from_being_tried_again(
    world: World, engine: Engine, hiccup: Callable[[str], None], when: str
) -> None:
    hiccup(f"{when} retry later")
    conversation = await spawn(world, engine, in_turn(ModelUnavailable("busy")))
    run = (await run_of(world, conversation))["id"]
    row = await world.until(run, lambda row: row["state"] == "queued" and row["attempt"] == 2)
    assert (row["crash_count"], (await world.types(conversation)).count("run.retrying")) == (0, 1)


async def test_a_later_claim_in_the_same_process_keeps_its_lease(world: World, engine: Engine) -> None:
    """The old execution ends after the new one began: it must not take the new one's heartbeat with it."""
    stall, asked = asyncio.Event(), asyncio.Event()

    async def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        asked.set()
        await stall.wait()
        return text("ok")

    conversation = await spawn(world, engine, script)
    run = await started(world, conversation)
    await asyncio.wait_for(asked.wait(), 5)
    old = engine.running[run]
    await world.lapse(run)
    await world.recover()
    (claim,) = await world.claim(owner=engine.owner)
    engine.spawn(claim)
    assert old.task
    old.stop(Stop.LOST)
    await asyncio.gather(old.task, return_exceptions=True)
    assert engine.running[run].claim == claim
    assert engine.heartbeat._held[run][0] == claim.fence
    stall.set()
    assert (await done(world, conversation))["state"] == "completed"


async def test_the_limit_on_tool_calls_holds_over_a_recovery(world: World, engine: Engine) -> None:
    stall = asyncio.Event()
    made = 0

    async def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        given = sum(isinstance(message, ModelResponse) for message in messages)
        if given == 2 and not stall.is_set():
            stall.set()
            await asyncio.sleep(60)
        return calls(("t", {"n": given}), prefix=f"r{given}")

    async def work(context: Any, arguments: dict[str, Any]) -> Any:
        nonlocal made
        made += 1
        return "ok"

    async with tools(tool("t", work)):
        conversation = await spawn(world, engine, script, tools=["t"], limits={"tool_calls": 3})
        run = await started(world, conversation)
        await asyncio.wait_for(stall.wait(), 5)
        engine.spawn(await die(world, engine, run))
        row = await done(world, conversation)
    assert (row["state"], row["error"]["code"], made) == ("failed", "limit_reached", 3)


async def test_a_stale_claim_plans_no_notification(world: World, engine: Engine) -> None:
    go_on, called = asyncio.Event(), asyncio.Event()
    raised: list[BaseException] = []

    async def tell(context: Any, arguments: dict[str, Any]) -> Any:
        called.set()
        await go_on.wait()
        try:
            return await context.notify("Hello", None)
        except BaseException as error:
            raised.append(error)
            raise

    async with tools(tool("tell", tell, timeout_seconds=20)):
        conversation = await spawn(world, engine, in_turn(calls(("tell", {})), text("ok")), tools=["tell"])
        run = await started(world, conversation)
        await asyncio.wait_for(called.wait(), 5)
        await world.lapse(run)
        await world.recover()
        before = await world.events(conversation)
        go_on.set()
        async with asyncio.timeout(5):
            while not raised:
                await asyncio.sleep(0.01)
        assert isinstance(raised[0], LeaseLost)
        assert await world.events(conversation) == before


async def test_a_stale_claim_stores_no_task(world: World, engine: Engine) -> None:
    """Its run was taken over while the tool was at work."""
    refused: list[Exception] = []

    async def late(context: Any, arguments: dict[str, Any]) -> Any:
        await world.database.execute("update runs set fence = fence + 1 where id = $1", context.run_id)
        try:
            await context.schedule_task("Look.", "0 9 * * *", "UTC")
        except LeaseLost as error:
            refused.append(error)
        finally:
            await world.database.execute("update runs set fence = fence - 1 where id = $1", context.run_id)
        return "late"

    async with tools(tool("late", late)):
        conversation = await spawn(world, engine, in_turn(calls(("late", {})), text("ok")), tools=["late"])
        await done(world, conversation)
    assert len(refused) == 1
    assert await world.database.fetchval("select count(*) from tasks") == 0


async def test_a_run_keeps_the_tool_versions_it_started_with(world: World, engine: Engine) -> None:
    stall = asyncio.Event()
    results: list[Any] = []

    async def script(messages: list[ModelMessage], info: Any) -> ModelResponse:
        given = sum(isinstance(message, ModelResponse) for message in messages)
        if given == 1 and not stall.is_set():
            stall.set()
            await asyncio.sleep(60)
        if given:
            results.append(messages[-1].parts[0].content)  # type: ignore[union-attr]
        return calls(("version_of", {}), prefix=f"r{given}") if given < 2 else text("done")

    await publish(world, 1)
    conversation = await spawn(world, engine, script, tools=["version_of"])
    run = await started(world, conversation)
    await asyncio.wait_for(stall.wait(), 20)
    await publish(world, 2)
    engine.spawn(await die(world, engine, run))
    row = await done(world, conversation)
    assert row["state"] == "completed"
    assert results == ["one", "one"]
    hashes = {number: await version_sha256(world, number) for number in (1, 2)}
    assert row["pins"] == {"tools": {"version_of": hashes[1]}}
    assert [call["tool_version"] for call in await world.calls(conversation)] == [1, 1]
    accepted = await world.say(conversation, "Again", inline=engine.inline)
    engine.welcome(accepted)
    assert (await world.ended(accepted.run_id))["pins"] in (None, {"tools": {"version_of": hashes[2]}})


async def version_sha256(world: World, version: int) -> str:
    return await world.database.fetchval("select sha256 from tool_versions where version = $1", version)


async def publish(world: World, version: int) -> None:
    """A registered Python tool that says which version it is."""
    word = {1: "one", 2: "two"}[version]
    made = await define(
        name="version_of",
        description="Says its version",
        code=f'async def version_of() -> str:\n    return "{word}"',
    )
    async with world.database.engine_tx() as connection:
        if version == 1:
            await connection.execute(
                "insert into tools (id, workspace_id, name, kind, published_version) "
                "values ($1, $2, 'version_of', 'python', 1)",
                new_id(),
                DEFAULT_WORKSPACE,
            )
        await connection.execute("update tools set published_version = $1", version)
        await connection.execute(
            "insert into tool_versions (tool_id, version, workspace_id, spec, sha256) "
            "select id, $1, workspace_id, $2, $3 from tools",
            version,
            made.spec,
            made.sha256,
        )
