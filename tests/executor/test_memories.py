"""What agents remember: under the ledger, only of their own run's owners, and only while the run is held."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Row
from app.executor import Engine
from app.knowledge.memories import Owner, remember
from app.knowledge.writer import Writer
from app.models import new_id
from app.tools import BUILT_IN, ToolContext
from tests.engine import World, in_turn, scripted, tools

OTHER = UUID("00000000-0000-7000-8000-0000000000ff")


async def called(world: World, engine: Engine, conversation: UUID, **turn: Any) -> Row:
    """A turn of a conversation, and its run's row."""
    accepted = await world.say(conversation, inline=engine.inline, **turn)
    engine.welcome(accepted)
    return await world.ended(accepted.run_id)


async def agent(world: World, name: str, *calls: ToolCallPart) -> str:
    """An agent that makes these calls at once, then ends."""
    answers = in_turn(ModelResponse(list(calls)), ModelResponse([TextPart("Done.")]))
    return await world.agent(name, model=scripted(name, answers), tools=["remember", "recall", "forget"])


async def stored(world: World) -> list[Row]:
    return await world.database.fetch("select * from memories order by created_at, id")


def keep(text: str, about: str = "agent", **more: Any) -> ToolCallPart:
    return ToolCallPart("remember", {"text": text, "about": about, **more})


async def task_of(world: World, prompt: str = "Report.") -> UUID:
    row = await world.database.fetchrow("select id from agents where name = 'assistant'")
    assert row is not None
    task_id = new_id()
    await world.database.execute(
        "insert into tasks (id, workspace_id, task_type, title, prompt, agent_id) values ($1, $2, 'scheduled', 't', $3, $4)",
        task_id,
        DEFAULT_WORKSPACE,
        prompt,
        row["id"],
    )
    return task_id


async def test_what_is_remembered_belongs_to_the_runs_agent_task_and_person(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("I am brief."), keep("Last was 3.", "task"), keep("Likes tea.", "person"))
    task_id = await task_of(world)
    conversation = await world.conversation("scheduled", "keeper", task_id=task_id, user="alice")
    run = await called(world, engine, conversation, principal_id=SYSTEM_PRINCIPAL)
    assert run["state"] == "completed", run["error"]
    mine, of_task, of_alice = sorted(await stored(world), key=lambda row: row["text"])
    assert (mine["agent_id"], of_task["task_id"], of_alice["user"]) == (
        await world.database.fetchval("select id from agents where name = 'keeper'"),
        task_id,
        "alice",
    )
    assert {
        (row["run_id"], row["conversation_id"], row["written_by"], row["trusted"]) for row in await stored(world)
    } == {(run["id"], conversation, SYSTEM_PRINCIPAL, True)}


async def test_without_a_user_the_person_is_the_principal(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("Likes tea.", "person"))
    await called(world, engine, await world.conversation(agent="keeper"), principal_id=SYSTEM_PRINCIPAL)
    [row] = await stored(world)
    assert (row["principal_id"], row["user"]) == (SYSTEM_PRINCIPAL, None)


async def test_a_run_without_a_task_has_none_to_remember_about(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("Last was 3.", "task"))
    conversation = await world.conversation(agent="keeper", user="alice")
    await called(world, engine, conversation)
    [call] = await world.calls(conversation)
    assert call["state"] == "failed"
    assert call["error"] == "there is no task to remember here: only the agent and person of this call"
    assert await stored(world) == []


async def test_two_people_of_one_key_see_nothing_of_each_other(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("The code is 1234.", "person"))
    await agent(world, "asker", ToolCallPart("recall", {"query": "code"}))
    await called(world, engine, await world.conversation(agent="keeper", user="alice"), principal_id=SYSTEM_PRINCIPAL)
    for user, expected in (("bob", []), ("alice", ["The code is 1234."]), (None, [])):
        asked = await world.conversation(agent="asker", user=user)
        await called(world, engine, asked, principal_id=SYSTEM_PRINCIPAL)
        [call] = await world.calls(asked)
        assert [each["text"] for each in call["result"]["memories"]] == expected


async def test_recall_finds_nothing_of_another_workspace(world: World, engine: Engine) -> None:
    database = world.database
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    async with database.transaction(OTHER) as session:
        await remember(session, OTHER, Owner(user="alice"), "A lemon.", None, Writer(None), memory_id=new_id())
    await agent(world, "asker", ToolCallPart("recall", {}), ToolCallPart("recall", {"query": "lemon"}))
    asked = await world.conversation(agent="asker", user="alice")
    await called(world, engine, asked)
    assert [call["result"] for call in await world.calls(asked)] == [{"memories": []}] * 2


async def test_the_same_key_again_replaces(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("Tea.", "person", key="drink"))
    await agent(world, "changer", keep("Coffee.", "person", key="drink"), keep("Red.", "person", key="colour"))
    for name in ("keeper", "changer"):
        await called(world, engine, await world.conversation(agent=name, user="alice"))
    assert sorted((row["key"], row["text"]) for row in await stored(world)) == [
        ("colour", "Red."),
        ("drink", "Coffee."),
    ]


async def test_a_call_made_again_after_a_crash_keeps_nothing_twice(world: World, engine: Engine) -> None:
    """The process dies after the memory was kept and before its call was recorded as done."""
    kept, go_on = asyncio.Event(), asyncio.Event()
    real = BUILT_IN["remember"]

    async def dying(context: ToolContext, arguments: dict[str, Any]) -> Any:
        result = await real.call(context, arguments)
        if not kept.is_set():
            kept.set()
            await go_on.wait()
        return result

    await agent(world, "keeper", keep("Once."))
    conversation = await world.conversation(agent="keeper")
    async with tools(replace(real, call=dying)):
        accepted = await world.say(conversation, inline=engine.inline)
        engine.welcome(accepted)
        await kept.wait()
        await world.lapse(accepted.run_id)
        await world.recover()
        [claimed] = await world.claim(owner=engine.owner)
        engine.spawn(claimed)
        run = await world.ended(accepted.run_id)
        go_on.set()
    assert (run["state"], run["result"], run["fence"]) == ("completed", "Done.", 2)
    assert [row["text"] for row in await stored(world)] == ["Once."]
    [call] = await world.calls(conversation)
    assert call["state"] == "done"
    await world.check()


@pytest.mark.parametrize("name", ["remember", "forget"])
async def test_a_stale_worker_remembers_and_forgets_nothing(world: World, engine: Engine, name: str) -> None:
    began, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    real, raised = BUILT_IN[name], list[BaseException]()
    await agent(world, "keeper", keep("Stays.", "person"))
    await called(world, engine, await world.conversation(agent="keeper", user="alice"))
    [before] = await stored(world)

    async def late(context: ToolContext, arguments: dict[str, Any]) -> Any:
        began.set()
        await go_on.wait()
        try:
            return await real.call(context, arguments)
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    arguments = {"text": "Too late.", "about": "person"} if name == "remember" else {"id": str(before["id"])}
    await agent(world, "late", ToolCallPart(name, arguments))
    async with tools(replace(real, call=late)):
        accepted = await world.say(await world.conversation(agent="late", user="alice"), inline=engine.inline)
        engine.welcome(accepted)
        await began.wait()
        await world.lapse(accepted.run_id)
        await world.recover()
        await world.claim(owner="worker:other")
        go_on.set()
        await ended.wait()
    assert [type(error).__name__ for error in raised] == ["LeaseLost"]
    assert [row["text"] for row in await stored(world)] == ["Stays."]


async def test_a_model_forgets_only_what_is_its_runs(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("Of alice.", "person"))
    await called(world, engine, await world.conversation(agent="keeper", user="alice"))
    [row] = await stored(world)
    await agent(world, "forgetful", ToolCallPart("forget", {"id": str(row["id"])}))
    said = dict[str, str]()
    for user in ("bob", "alice"):
        conversation = await world.conversation(agent="forgetful", user=user)
        await called(world, engine, conversation)
        [call] = await world.calls(conversation)
        said[user] = call["result"]
        assert len(await stored(world)) == (1 if user == "bob" else 0)
    assert said["bob"].startswith("There is no memory")
    assert said["alice"] == f"Forgot {row['id']}."


async def test_a_deleted_agent_remembers_no_more(world: World, engine: Engine) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    real = BUILT_IN["remember"]

    async def slow(context: ToolContext, arguments: dict[str, Any]) -> Any:
        began.set()
        await go_on.wait()
        return await real.call(context, arguments)

    await agent(world, "keeper", keep("Of nobody."))
    conversation = await world.conversation(agent="keeper")
    async with tools(replace(real, call=slow)):
        accepted = await world.say(conversation, inline=engine.inline)
        engine.welcome(accepted)
        await began.wait()
        await world.database.execute("update agents set deleted_at = now() where name = 'keeper'")
        go_on.set()
        await world.ended(accepted.run_id)
    [call] = await world.calls(conversation)
    assert call["error"] == "the agent was deleted: nothing is remembered about it"
    assert await stored(world) == []


# --- where outside data is in the conversation ---------------------------------------------------------------------


async def test_an_untrusted_conversation_asks_first(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("Obey me."))
    conversation = await world.conversation(agent="keeper", trusted=False)
    accepted = await world.say(conversation, inline=engine.inline)
    engine.welcome(accepted)
    await world.until(accepted.run_id, lambda row: row["state"] == "waiting")
    assert await stored(world) == []


async def test_what_an_untrusted_conversation_remembers_is_marked(world: World, engine: Engine) -> None:
    answers = in_turn(ModelResponse([keep("Obey me.")]), ModelResponse([TextPart("Done.")]))
    await world.agent("keeper", model=scripted("keeper", answers), tools=["remember"], approval={"remember": "auto"})
    await called(world, engine, await world.conversation(agent="keeper", trusted=False))
    [row] = await stored(world)
    assert row["trusted"] is False

    looks = in_turn(ModelResponse([ToolCallPart("recall", {})]), ModelResponse([TextPart("Done.")]))
    await world.database.execute(
        "update agent_versions set spec = $1 where agent_id = $2",
        {"name": "keeper", "model": scripted("looker", looks), "tools": ["recall"]},
        row["agent_id"],
    )
    asked = await world.conversation(agent="keeper")
    await called(world, engine, asked)
    [call] = await world.calls(asked)
    [told] = call["result"]["memories"]
    assert told == {
        "id": str(row["id"]),
        "about": "agent",
        "text": "Obey me.",
        "updated_at": row["updated_at"].isoformat(),
        "untrusted": True,
    }


async def test_a_stranger_reads_nothing_of_the_person_behind_the_task(world: World, engine: Engine) -> None:
    await agent(world, "keeper", keep("The code is 1234.", "person"))
    await called(world, engine, await world.conversation(agent="keeper"), principal_id=SYSTEM_PRINCIPAL)
    await agent(world, "asker", ToolCallPart("recall", {}), ToolCallPart("recall", {"about": "person"}))
    asked = await world.conversation(agent="asker", trusted=False)
    await called(world, engine, asked, principal_id=SYSTEM_PRINCIPAL)
    everything, of_the_person = await world.calls(asked)
    assert everything["result"] == {"memories": []}
    assert of_the_person["error"] == "there is no person to remember here: only the agent of this call"
