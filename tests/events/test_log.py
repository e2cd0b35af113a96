import asyncio
from uuid import UUID

from app.events import EventType, NewEvent, append, replay
from app.events.log import decode, encode
from app.messages import prompt
from app.runs import CallRecord, Checkpoints, NewMessage, RunState, Write
from app.settle import Outcome
from tests.engine import World


async def progress(world: World, conversation: UUID, run: UUID, count: int = 1) -> None:
    async with world.database.engine_tx() as connection:
        await append(
            connection, conversation, run, [NewEvent(EventType.RUN_PROGRESS, {"text": str(n)}) for n in range(count)]
        )


async def test_concurrent_appends_leave_no_gap(world: World) -> None:
    held = await world.one()
    await asyncio.gather(*(progress(world, held.conversation_id, held.run_id, 1 + n % 3) for n in range(40)))
    await world.check()


async def test_an_append_rolled_back_leaves_no_hole(world: World) -> None:
    held = await world.one()
    async with world.database.connection() as connection:
        await connection.execute("begin")
        await append(connection, held.conversation_id, held.run_id, [NewEvent(EventType.USAGE)])
        await connection.execute("rollback")
    await progress(world, held.conversation_id, held.run_id)
    await world.check()


async def test_nothing_appended_is_nothing(world: World) -> None:
    held = await world.one()
    async with world.database.engine_tx() as connection:
        assert await append(connection, held.conversation_id, held.run_id, []) == []


async def test_replay_joins_texts_calls_and_results(world: World) -> None:
    held = await world.one()
    body = {"parts": [], "kind": "response"}
    call = CallRecord("c1", "t", {"a": None}, "", "done", True, "read", 0, message=0, result=[None, {"b": 1}])
    failed = CallRecord("c2", "t", {}, "", "failed", True, "read", 1, message=0, error="no")
    events = [
        NewEvent(EventType.MESSAGE_COMPLETED, message=0),
        NewEvent(EventType.TOOL_STARTED, message=0, call_index=0),
        NewEvent(EventType.TOOL_COMPLETED, message=0, call_index=0),
        NewEvent(EventType.TOOL_FAILED, message=0, call_index=1),
    ]
    write = Write([NewMessage("assistant", "Hi", body, interrupted=True)], [call, failed], events)
    await Checkpoints(world.database).checkpoint(held.fenced, write)
    found = {event.type: event.fields for event in await world.events(held.conversation_id)}
    assert found[EventType.MESSAGE_CREATED] == {"message_seq": 1, "role": "user", "text": "Hello"}
    assert found[EventType.MESSAGE_COMPLETED] == {
        "message_seq": 2,
        "role": "assistant",
        "text": "Hi",
        "interrupted": True,
    }
    assert found[EventType.TOOL_STARTED] == {"tool_call_id": "c1", "tool": "t", "arguments": {"a": None}}
    assert found[EventType.TOOL_COMPLETED]["result"] == [None, {"b": 1}]
    assert found[EventType.TOOL_FAILED] == {"tool_call_id": "c2", "tool": "t", "error": "no"}


async def test_replay_pages_and_filters(world: World) -> None:
    first = await world.one()
    await world.settle(first, Outcome(RunState.COMPLETED, result="a"), first.fenced)
    second = await world.say(first.conversation_id, "two")
    everything = await world.events(first.conversation_id)
    pages, after = [], 0
    while page := await replay(world.database, first.conversation_id, after, limit=2):
        pages += page
        after = page[-1].seq
    assert pages == everything
    own = await replay(world.database, first.conversation_id, 0, run_id=second.run_id)
    assert {event.run_id for event in own} == {second.run_id}


async def test_events_travel_unchanged(world: World) -> None:
    held = await world.one()
    for event in await world.events(held.conversation_id):
        assert decode(encode(event)) == event
    assert prompt("x")
