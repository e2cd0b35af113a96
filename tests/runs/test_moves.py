import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import LeaseLost, ModelUnavailable
from app.runs import (
    TERMINAL_STATES,
    TRANSITIONS,
    RunState,
    detach,
    explain,
    hand_on,
    overdue,
    reasons,
    recover,
    release,
    retry_later,
    still_overdue,
    stranded,
    wish_cancel,
)
from app.runs.states import sources
from app.settle import Outcome, cancelled, error_of
from tests.engine import World

ERROR = error_of(ModelUnavailable("the provider is away"))


async def back(world: World, seconds: float = 60.0, **columns: Any) -> None:
    """Move instants of all live runs into the past."""
    changes = ", ".join(f"{name} = now() - make_interval(secs => {seconds})" for name in columns)
    await world.database.execute(f"update runs set {changes} where finished_at is null")


# --- back to the queue -------------------------------------------------------------------------------------


async def test_a_released_run_is_due_at_once_and_costs_no_attempt(world: World) -> None:
    held = await world.one()
    events = await release(world.database, held.fenced, reason="stopping")
    row = await world.run(held.run_id)
    assert (row["state"], row["attempt"], row["crash_count"], row["ready"]) == ("queued", 1, 0, True)
    assert events[-1].data == (await world.events(held.conversation_id))[-1].data
    (again,) = await world.claim()
    assert (again.run_id, again.fence) == (held.run_id, 2)
    assert await world.said(held.conversation_id) == [("user", "Hello")]
    await world.check()


async def test_a_retry_costs_an_attempt_and_waits(world: World) -> None:
    held = await world.one()
    events = await retry_later(world.database, held.fenced, delay_seconds=60, error=ERROR)
    row = await world.run(held.run_id)
    assert (row["state"], row["attempt"], row["error"]) == ("queued", 2, ERROR)
    assert row["run_at"] > datetime.now(UTC) + timedelta(seconds=50)
    assert await world.claim() == []
    assert events[-1].data == (await world.events(held.conversation_id))[-1].data
    assert events[-1].fields["at"].endswith("Z")
    why = (await reasons(world.database, [held.run_id]))[held.run_id]
    assert (why.reason or "").startswith("next retry")
    await world.check()


async def test_a_run_in_backoff_keeps_its_place(world: World) -> None:
    held = await world.one()
    behind = await world.say(held.conversation_id, "next")
    await retry_later(world.database, held.fenced, delay_seconds=60, error=ERROR)
    assert await world.claim() == []
    await world.check()
    await world.database.execute("update runs set run_at = now()")
    assert [each.run_id for each in await world.claim()] == [held.run_id]
    assert (await world.run(behind.run_id))["state"] == "queued"


async def test_a_cancelled_run_does_not_wait_for_its_retry(world: World) -> None:
    """The wish came while the attempt was failing: the next holder ends it at once."""
    held = await world.one()
    async with world.database.engine_tx() as connection:
        assert await wish_cancel(connection, held.run_id, "enough")
    await retry_later(world.database, held.fenced, delay_seconds=60, error=ERROR)
    assert [each.run_id for each in await world.claim()] == [held.run_id]


async def test_a_stale_holder_gives_nothing_back(world: World) -> None:
    held = await world.one()
    await world.lapse(held.run_id)
    await world.recover()
    await world.claim()
    assert await release(world.database, held.fenced, reason="stopping") == []
    assert await retry_later(world.database, held.fenced, delay_seconds=1, error=ERROR) == []
    assert (await world.run(held.run_id))["state"] == "running"
    await world.check()


# --- recovery ----------------------------------------------------------------------------------------------


async def test_a_lost_run_is_queued_again_once(world: World) -> None:
    held = await world.one()
    assert await world.recover() == []
    await world.lapse(held.run_id)
    found = await asyncio.gather(*(world.recover() for _ in range(4)))
    (lost,) = [each for some in found for each in some]
    assert (lost.run_id, lost.crash_count) == (held.run_id, 1)
    assert lost.events[0].data == (await world.events(held.conversation_id))[-1].data
    await world.check()


async def test_the_third_crash_is_poison(world: World) -> None:
    accepted = await world.queued()
    for crashes in (1, 2):
        (held,) = await world.claim()
        await world.lapse(held.run_id)
        assert [each.crash_count for each in await world.recover()] == [crashes]
    await world.claim()
    await world.lapse(accepted.run_id)
    assert await world.recover() == []
    (over,) = await overdue(world.database, lease_seconds=0, crash_cap=3)
    assert (over.run_id, over.code) == (accepted.run_id, "poison")


async def test_nothing_is_taken_within_a_lease_of_a_start_of_postgresql(world: World) -> None:
    held = await world.one()
    await world.lapse(held.run_id)
    assert await recover(world.database, lease_seconds=10**7, crash_cap=3) == []
    assert await overdue(world.database, lease_seconds=10**7, crash_cap=1) == []


async def test_an_outage_of_postgresql_counts_for_no_crash(world: World) -> None:
    """Claimed before the server started: the restart cut the holder off, not a fault of the run."""
    held = await world.one()
    await world.lapse(held.run_id)
    await world.database.execute("update runs set claimed_at = pg_postmaster_start_time() - interval '1 minute'")
    assert await overdue(world.database, lease_seconds=0, crash_cap=1) == []
    assert [each.crash_count for each in await world.recover(cap=1)] == [0]


# --- what runs out of time -----------------------------------------------------------------------------------


async def test_queue_timeout_and_deadline(world: World) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    slow = await world.queued("slow", run={"queue_timeout_seconds": 60.0})
    late = await world.queued("late", run={"deadline_at": soon})
    await world.queued("neither")
    assert await overdue(world.database, lease_seconds=0, crash_cap=3) == []
    await back(world, queue_deadline=1, deadline_at=1)
    await world.database.execute("update runs set queue_deadline = null where id <> $1", slow.run_id)
    await world.database.execute("update runs set deadline_at = null where id <> $1", late.run_id)
    found = await overdue(world.database, lease_seconds=0, crash_cap=3)
    assert {each.run_id: each.code for each in found} == {
        slow.run_id: "queue_timeout",
        late.run_id: "deadline_exceeded",
    }


async def test_queue_time_counts_until_the_first_start(world: World) -> None:
    held = await world.one(run={"queue_timeout_seconds": 60.0})
    await back(world, queue_deadline=1)
    await retry_later(world.database, held.fenced, delay_seconds=5, error=ERROR)
    assert await overdue(world.database, lease_seconds=0, crash_cap=3) == []


async def test_a_run_that_started_meanwhile_is_not_overdue(world: World) -> None:
    """The sweep looks without locks; what it ends it looks at again under the lock."""
    await world.queued(run={"queue_timeout_seconds": 60.0})
    await back(world, queue_deadline=1)
    (over,) = await overdue(world.database, lease_seconds=0, crash_cap=3)
    async with world.database.engine_tx() as connection:
        assert await still_overdue(connection, over, lease_seconds=0, crash_cap=3)
    await world.claim()
    async with world.database.engine_tx() as connection:
        assert not await still_overdue(connection, over, lease_seconds=0, crash_cap=3)


# --- turns ---------------------------------------------------------------------------------------------------


async def test_a_stranded_conversation_is_found_and_mended(world: World) -> None:
    conversation = await world.conversation()
    accepted = await world.say(conversation)
    await world.say(conversation, "next")
    await world.database.execute("update runs set ready = false")
    assert await stranded(world.database) == []  # not while somebody may be at it
    await world.database.execute("update heads set updated_at = now() - interval '1 minute'")
    assert await stranded(world.database) == [conversation]
    async with world.database.engine_tx() as connection:
        await connection.execute("select from heads where conversation_id = $1 for no key update", conversation)
        assert await hand_on(connection, conversation) == accepted.run_id
        assert await hand_on(connection, conversation) is None
    await world.check()


async def test_detaching_is_told_once(world: World) -> None:
    held = await world.one()
    async with world.database.engine_tx() as connection:
        assert len(await detach(connection, held.conversation_id, held.run_id)) == 1
        assert await detach(connection, held.conversation_id, held.run_id) == []
    await world.check()


# --- the table of moves --------------------------------------------------------------------------------------


async def in_state(world: World, state: RunState) -> Any:
    held = await world.one()
    if state is RunState.QUEUED:
        await release(world.database, held.fenced, reason="test")
    elif state is RunState.WAITING:
        await world.database.execute(
            "update runs set state = 'waiting', lease_until = null, owner = null where id = $1", held.run_id
        )
        await world.database.execute("update heads set state = 'waiting', active_run_id = null")
    elif state is not RunState.RUNNING:
        await world.settle(held, Outcome(state, error=ERROR))
    return held


@pytest.mark.parametrize("state", list(RunState))
async def test_the_statements_move_exactly_as_the_table_says(world: World, state: RunState) -> None:
    for target in TERMINAL_STATES:
        held = await in_state(world, state)
        settled = await world.settle(held, Outcome(target, error=ERROR))
        assert (settled is not None) == (target in TRANSITIONS[state]), target
        await world.database.execute("delete from runs where finished_at is null")

    held = await in_state(world, state)
    assert ([each.run_id for each in await world.claim()] == [held.run_id]) == (state is RunState.QUEUED)
    assert RunState.RUNNING in TRANSITIONS[state] if state is RunState.QUEUED else True
    await world.database.execute("delete from runs where finished_at is null")

    held = await in_state(world, state)
    moved = await release(world.database, held.fenced, reason="test")
    assert bool(moved) == (state is RunState.RUNNING)


def test_terminal_is_final() -> None:
    assert {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED} == TERMINAL_STATES
    assert sources(RunState.COMPLETED) == ["running"]
    assert sources(RunState.QUEUED) == ["running", "waiting"]
    assert sources(RunState.FAILED) == ["queued", "running", "waiting"]


async def test_an_ended_run_takes_no_more_writes(world: World) -> None:
    held = await world.one()
    await world.settle(held, cancelled("enough"))
    with pytest.raises(LeaseLost):
        await world.settle(held, Outcome(RunState.COMPLETED, result="late"), who=held.fenced)
    assert (await world.run(held.run_id))["state"] == "cancelled"
    await world.check()


# --- reasons -------------------------------------------------------------------------------------------------


async def test_reasons_in_plain_words(world: World) -> None:
    conversation = await world.conversation()
    first = await world.say(conversation)
    second = await world.say(conversation, "next")
    later = await world.queued(run={"run_at": datetime.now(UTC) + timedelta(hours=1)})
    said = await reasons(world.database, [first.run_id, second.run_id, later.run_id])
    assert said[first.run_id].reason == "no worker is running"
    assert said[second.run_id].reason == "behind 1 run of this conversation"
    assert (said[later.run_id].reason or "").startswith("starts ")
    told = await explain(world.database, first.run_id)
    assert told["next_action"]["command"] == "parley worker"
    assert told["last_event"]["type"] == "run.queued"
