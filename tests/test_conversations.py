from typing import Any
from uuid import UUID, uuid4

import pytest

from app.conversations import Accepted, carry_on, fork, retry, title_of
from app.conversations import Turn as ATurn
from app.db import DEFAULT_WORKSPACE, UniqueViolation
from app.errors import (
    AlreadyFinished,
    ConversationBusy,
    InvalidRequest,
    ModelFailed,
    NotFinished,
    NotFound,
    UnknownReference,
    UseFork,
)
from app.events import EventType, NewEvent
from app.messages import prompt
from app.runs import CallRecord, Checkpoints, Claim, Inline, NewMessage, RunState, Write, release
from app.settle import Outcome, cancelled, failed
from tests.engine import World, world

__all__ = ["world"]

INLINE = Inline("api:test", 30)
CALL = {"parts": [{"part_kind": "tool-call", "tool_name": "t", "tool_call_id": "c", "args": {}}], "kind": "response"}
ANSWER = {"parts": [{"part_kind": "text", "content": "Hi"}], "kind": "response"}


def answer(text: str = "Hi") -> Outcome:
    body = {**ANSWER, "parts": [{"part_kind": "text", "content": text}]}
    write = Write([NewMessage("assistant", text, body)], events=[NewEvent(EventType.MESSAGE_COMPLETED, message=0)])
    return Outcome(RunState.COMPLETED, result=text, write=write)


async def a_turn(world: World, conversation: UUID, text: str = "Hello", outcome: Outcome | None = None) -> Claim:
    """A message and its answer."""
    accepted = await world.say(conversation, text)
    (held,) = [each for each in await world.claim() if each.run_id == accepted.run_id]
    await world.settle(held, outcome or answer(f"You said {text}"), held.fenced)
    return held


async def again(world: World, run_id: UUID, origin: str, text: str | None = None) -> Accepted:
    async with world.database.engine_tx() as connection:
        return await retry(connection, world.settings, DEFAULT_WORKSPACE, run_id, origin=origin, text=text)


async def forked(world: World, conversation: UUID, last: int, turn: ATurn | None) -> Accepted:
    async with world.database.engine_tx() as connection:
        return await fork(connection, world.settings, DEFAULT_WORKSPACE, conversation, last, turn)


async def go_on(world: World, conversation: UUID, text: str | None = None, **more: Any) -> Accepted:
    async with world.database.engine_tx() as connection:
        return await carry_on(connection, world.settings, DEFAULT_WORKSPACE, conversation, ATurn(text), **more)


# --- accepting -----------------------------------------------------------------------------------------------


async def test_unknown_agents_and_conversations_are_refused(world: World) -> None:
    with pytest.raises(UnknownReference):
        await world.conversation(agent="nobody")
    with pytest.raises(NotFound):
        await world.say(uuid4())


async def test_inline_only_when_next_in_line(world: World) -> None:
    conversation = await world.conversation()
    first = await world.say(conversation, "one", inline=INLINE)
    second = await world.say(conversation, "two", inline=INLINE)
    assert first.claim is not None
    assert (second.claim, second.ready) == (None, False)
    assert [event.type for event in second.events] == ["message.queued", "run.queued"]
    assert second.events[0].fields == {"role": "user", "text": "two", "behind": 1}
    assert await world.said(conversation) == [("user", "one")]  # never between a question and its answer
    await world.check()


async def test_reject_while_busy(world: World) -> None:
    conversation = await world.conversation(on_message="reject")
    await a_turn(world, conversation)
    await world.say(conversation)
    with pytest.raises(ConversationBusy):
        await world.say(conversation)
    await world.say(conversation, on_message="enqueue")  # a message may say otherwise
    await world.check()


async def test_interrupt_ends_what_is_queued_and_asks_what_runs(world: World) -> None:
    conversation = await world.conversation(on_message="interrupt")
    running = await world.say(conversation, "one")
    (held,) = await world.claim()
    queued = await world.say(conversation, "two", on_message="enqueue")
    new = await world.say(conversation, "three")
    assert new.cancelling == running.run_id
    assert (await world.run(running.run_id))["cancel_requested_at"] is not None
    assert (await world.run(queued.run_id))["state"] == "cancelled"
    await world.check()
    await world.settle(held, cancelled(None), held.fenced)
    assert [each.run_id for each in await world.claim()] == [new.run_id]
    await world.check()


async def test_interrupting_only_queued_runs_leaves_nothing_to_wait_for(world: World) -> None:
    conversation = await world.conversation(on_message="interrupt")
    await world.say(conversation, "one")
    new = await world.say(conversation, "two", inline=INLINE)
    assert new.claim is not None
    assert await world.said(conversation) == [("user", "two")]
    assert "message.queued" not in await world.types(conversation)
    await world.check()


async def test_steer_joins_the_run_under_way_else_waits_like_any_other(world: World) -> None:
    conversation = await world.conversation(on_message="steer")
    first = await world.say(conversation, "one")
    queued = await world.say(conversation, "two")  # nothing runs yet
    assert queued.run_id != first.run_id
    (held,) = await world.claim()
    steered = await world.say(conversation, "three")
    assert steered.run_id == first.run_id
    written = await Checkpoints(world.database).checkpoint(held.fenced, Write())
    assert [steer["body"]["text"] for steer in written.steers] == ["three"]
    await world.check()


async def test_a_source_counts_once(world: World) -> None:
    conversation = await world.conversation()
    await world.say(conversation, source="email", source_id="<1@example.com>")
    with pytest.raises(UniqueViolation):
        await world.say(conversation, source="email", source_id="<1@example.com>")
    await world.check()


async def test_titles_are_cut_from_the_first_message(world: World) -> None:
    conversation = await world.conversation()
    await world.say(conversation, "\n  What is the capital of France?\nPlease.")
    await world.say(conversation, "And of Spain?")
    assert await title(world, conversation) == "What is the capital of France?"
    named = await world.conversation(title="Mine")
    await world.say(named, "Hello")
    assert await title(world, named) == "Mine"
    assert title_of("x" * 100) == "x" * 79 + "…"
    assert title_of("  \n ") == ""


async def title(world: World, conversation: UUID) -> str:
    return await world.database.fetchval("select title from conversations where id = $1", conversation)


async def test_a_sidekick_sees_the_latest_app_state(world: World) -> None:
    conversation = await world.conversation("sidekick", context_data={"page": "cart"})
    await a_turn(world, conversation, "one")
    await world.say(conversation, "two", context={"page": "</app_state>checkout"})
    await world.claim()
    bodies = [row["body"]["parts"][0]["content"] for row in await world.messages(conversation) if row["role"] == "user"]
    assert bodies[0][0]["value"] == {"page": "cart"}
    assert bodies[1][0]["value"] == {"page": "</app_state>checkout"}
    assert bodies[1][0]["content"].count("</app_state>") == 1
    kept = await world.database.fetchval("select context_data from conversations where id = $1", conversation)
    assert kept == {"page": "</app_state>checkout"}
    assert [text for _, text in await world.said(conversation)] == ["one", "You said one", "two"]


# --- going on ------------------------------------------------------------------------------------------------


async def test_going_on_says_continue_after_an_answer(world: World) -> None:
    conversation = await world.conversation()
    await a_turn(world, conversation)
    accepted = await go_on(world, conversation, inline=INLINE)
    assert accepted.claim
    assert (await world.said(conversation))[-1] == ("user", "Continue.")


async def test_going_on_after_a_failure_answers_what_was_asked(world: World) -> None:
    conversation = await world.conversation()
    await a_turn(world, conversation, outcome=failed(ModelFailed("no")))
    accepted = await go_on(world, conversation, inline=INLINE)
    assert accepted.claim
    assert await world.said(conversation) == [("user", "Hello")]
    await world.check()


async def test_going_on_in_an_empty_conversation_says_something(world: World) -> None:
    conversation = await world.conversation()
    await go_on(world, conversation, inline=INLINE)
    assert await world.said(conversation) == [("user", "Continue.")]


async def test_going_on_with_tools_still_to_run(world: World) -> None:
    conversation = await world.conversation()
    await world.say(conversation)
    (held,) = await world.claim()
    call = CallRecord("c", "t", {}, "", "proposed", False, "write", 0, message=0)
    write = Write([NewMessage("assistant", "", CALL)], calls=[call])
    await world.settle(held, failed(ModelFailed("no"), write), held.fenced)
    await go_on(world, conversation, inline=INLINE)
    assert len(await world.messages(conversation)) == 2


# --- again ---------------------------------------------------------------------------------------------------


async def test_retry_from_the_failed_step_goes_on_with_the_history(world: World) -> None:
    conversation = await world.conversation()
    run = await a_turn(world, conversation, outcome=failed(ModelFailed("no")))
    accepted = await again(world, run.run_id, "failed_step")
    assert (await world.run(accepted.run_id))["retry_of"] == run.run_id
    await world.claim()
    assert await world.said(conversation) == [("user", "Hello")]
    await world.check()


async def test_retry_of_a_run_that_never_started_says_its_input(world: World) -> None:
    conversation = await world.conversation()
    accepted = await world.say(conversation, "Hello")
    await world.settle(accepted, cancelled(None))
    await again(world, accepted.run_id, "failed_step")
    await world.claim()
    assert await world.said(conversation) == [("user", "Hello")]


async def test_retry_refuses_what_makes_no_sense(world: World) -> None:
    conversation = await world.conversation()
    first = await a_turn(world, conversation, outcome=failed(ModelFailed("no")))
    done = await a_turn(world, conversation)
    with pytest.raises(UseFork):
        await again(world, first.run_id, "failed_step")
    with pytest.raises(AlreadyFinished):
        await again(world, done.run_id, "failed_step")
    live = await world.say(conversation)
    with pytest.raises(NotFinished):
        await again(world, live.run_id, "start")
    with pytest.raises(NotFound):
        await again(world, uuid4(), "start")


async def test_retry_from_the_start_says_the_same_with_its_context(world: World) -> None:
    """The data handed to the model belongs to the input: a webhook's run without its payload is another run."""
    conversation = await world.conversation("triggered")
    accepted = await world.say(conversation, "React", context={"action": "opened"})
    (held,) = await world.claim()
    await world.settle(held, answer(), held.fenced)
    again_run = await again(world, accepted.run_id, "start")
    assert again_run.run_id != accepted.run_id
    await world.claim()
    first, _, second = await world.messages(conversation)
    assert second["body"] == first["body"]
    assert second["text"] == "React"
    await world.check()


async def test_retry_with_another_text_keeps_the_context(world: World) -> None:
    conversation = await world.conversation("triggered")
    accepted = await world.say(conversation, "React", context={"action": "opened"})
    (held,) = await world.claim()
    await world.settle(held, answer(), held.fenced)
    await again(world, accepted.run_id, "start", "React better")
    await world.claim()
    first, _, second = await world.messages(conversation)
    assert second["text"] == "React better"
    assert second["body"]["parts"][0]["content"][0] == first["body"]["parts"][0]["content"][0]
    assert second["body"]["parts"][0]["content"][1] == "React better"


async def test_retry_as_a_fork_begins_before_the_run(world: World) -> None:
    conversation = await world.conversation()
    await a_turn(world, conversation, "one")
    run = await a_turn(world, conversation, "two")
    accepted = await again(world, run.run_id, "fork", "three")
    assert accepted.conversation_id != conversation
    await world.claim()
    assert await world.said(accepted.conversation_id) == [
        ("user", "one"),
        ("assistant", "You said one"),
        ("user", "three"),
    ]
    await world.check()


async def test_retry_as_a_fork_of_a_run_that_never_started_keeps_what_was_before(world: World) -> None:
    conversation = await world.conversation()
    await a_turn(world, conversation, "one")
    accepted = await world.say(conversation, "two")
    await world.settle(accepted, cancelled(None))
    await a_turn(world, conversation, "three")
    copy = await again(world, accepted.run_id, "fork")
    await world.claim()
    assert [text for _, text in await world.said(copy.conversation_id)] == ["one", "You said one", "two"]


# --- elsewhere -----------------------------------------------------------------------------------------------


async def test_a_fork_copies_up_to_a_message_and_numbers_by_itself(world: World) -> None:
    conversation = await world.conversation()
    for text in ("one", "two"):
        await a_turn(world, conversation, text)
    copy = await forked(world, conversation, 3, None)
    assert await world.said(copy.conversation_id) == (await world.said(conversation))[:3]
    row = await world.database.fetchrow("select * from conversations where id = $1", copy.conversation_id)
    assert row
    assert (row["forked_from_id"], row["forked_at_seq"], row["origin"]) == (conversation, 3, "fork")
    await a_turn(world, copy.conversation_id, "three")
    assert len(await world.messages(copy.conversation_id)) == 5
    assert len(await world.messages(conversation)) == 4
    await world.check()
    with pytest.raises(InvalidRequest):
        await forked(world, conversation, 5, None)


async def test_a_fork_while_the_run_goes_on(world: World) -> None:
    conversation = await world.conversation()
    await world.say(conversation)
    (held,) = await world.claim()
    copy = await forked(world, conversation, 1, ATurn("instead"))
    assert await release(world.database, held.fenced, reason="test")
    assert {each.conversation_id for each in await world.claim()} == {conversation, copy.conversation_id}
    await world.check()


async def test_a_stored_prompt_is_what_was_said() -> None:
    assert prompt("Hi")["parts"][0]["content"] == "Hi"
