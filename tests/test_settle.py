import asyncio
import contextlib
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from app.conversations import lock
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL
from app.errors import DatabaseUnavailable, DeadlineExceeded, LeaseLost, ModelFailed
from app.events import EventType, NewEvent
from app.executor.engine import LOCK_HEAD
from app.messages import prompt
from app.models import new_id
from app.runs import Claim, NewMessage, RunState, Usage, Write, detach, park
from app.settle import Outcome, Settlement, Settlements, announce_steps, cancelled, failed, settle
from tests.engine import World, world

__all__ = ["world"]

DONE = Outcome(RunState.COMPLETED, result="Done")


def answered(text: str) -> Outcome:
    message = NewMessage("assistant", text, prompt(text), usage=Usage(1, 5, 7, Decimal("0.25")))
    write = Write(
        messages=[message], events=[NewEvent(EventType.MESSAGE_COMPLETED, message=0)], usage=message.usage, model="m"
    )
    return Outcome(RunState.COMPLETED, result=text, write=write)


async def cut_off(world: World, held: Claim, outcome: Outcome) -> None:
    """An ending whose process dies before the commit."""
    async with world.database.engine_tx() as connection:
        await settle(connection, world.settings, held.run_id, held.conversation_id, outcome, who=held.fenced)
        raise RuntimeError("dead")


async def a_task(world: World, **columns: Any) -> UUID:
    """A task's row; what else a task is does not matter here."""
    fields = {
        "id": new_id(),
        "workspace_id": DEFAULT_WORKSPACE,
        "title": "Report",
        "notification_config": {"channels": ["email"], "email_address": ["a@example.com"]},
        **columns,
    }
    async with world.database.engine_tx() as connection:
        agent = await connection.fetchval("select id from agents limit 1")
        needed = await connection.fetch(
            "select column_name, data_type from information_schema.columns where table_name = 'tasks' "
            "and is_nullable = 'NO' and column_default is null"
        )
        defaults = {"text": "", "uuid": agent, "boolean": True, "json": {}, "jsonb": {}, "bigint": 0, "integer": 0}
        for column in needed:
            fields.setdefault(column["column_name"], defaults.get(column["data_type"]))
        names = ", ".join(fields)
        places = ", ".join(f"${n}" for n in range(1, len(fields) + 1))
        await connection.execute(f"insert into tasks ({names}) values ({places})", *fields.values())
    return fields["id"]


async def test_an_ending_is_one_commit(world: World) -> None:
    held = await world.one()
    settled = await world.settle(held, answered("Hi"), held.fenced)
    assert settled is not None
    row, head = await world.run(held.run_id), await world.head(held.conversation_id)
    assert (row["state"], row["result"], row["model"], row["cost_usd"]) == ("completed", "Hi", "m", Decimal("0.25"))
    assert row["lease_until"] is None
    assert row["finished_at"] is not None
    assert (head["state"], head["open_runs"], head["requests"], head["cost_usd"]) == ("idle", 0, 1, Decimal("0.25"))
    assert await world.said(held.conversation_id) == [("user", "Hello"), ("assistant", "Hi")]
    assert await world.types(held.conversation_id) == [
        "run.queued",
        "run.started",
        "message.created",
        "message.completed",
        "run.completed",
    ]
    assert (await world.events(held.conversation_id))[-1].fields == {"result": "Hi", "output": None}
    await world.check()


@pytest.mark.parametrize("seed", range(12))
async def test_one_outcome_however_many_want_one(world: World, seed: int) -> None:
    """The executor completes, a person cancels and the deadline strikes at the same moment."""
    held = await world.one()
    await world.say(held.conversation_id, "next")
    tries = [
        world.settle(held, answered("Hi"), held.fenced),
        world.settle(held, cancelled("by a person")),
        world.settle(held, failed(DeadlineExceeded())),
        world.settle(held, cancelled("by another")),
    ]
    order = tries[seed % 4 :] + tries[: seed % 4]
    ends = await asyncio.gather(*order, return_exceptions=True)
    won = [end for end in ends if end is not None and not isinstance(end, BaseException)]
    assert len(won) == 1
    assert all(isinstance(end, LeaseLost) for end in ends if isinstance(end, BaseException))
    await world.check()
    assert (await world.head(held.conversation_id))["open_runs"] == 1
    assert len(await world.claim()) == 1


async def test_the_next_run_gets_its_turn(world: World) -> None:
    held = await world.one()
    second = await world.say(held.conversation_id, "two")
    third = await world.say(held.conversation_id, "three")
    settled = await world.settle(held, DONE, held.fenced)
    assert settled
    assert settled.work_is_due
    await world.check()
    assert [each.run_id for each in await world.claim()] == [second.run_id]
    await world.settle(third, cancelled("not needed"))  # not next in line: the turn stays where it is
    await world.check()
    last = await world.settle(second, cancelled("not needed"))
    assert last
    assert not last.work_is_due
    assert (await world.head(held.conversation_id))["state"] == "idle"
    await world.check()


async def test_the_run_behind_one_that_waited_is_queued(world: World) -> None:
    held = await world.one()
    await world.say(held.conversation_id, "two")
    async with world.database.engine_tx() as connection:
        await lock(connection, DEFAULT_WORKSPACE, held.conversation_id)
        await park(connection, held.fenced, 1)
    await world.check()
    assert await world.settle(held, cancelled("enough"))
    assert (await world.head(held.conversation_id))["state"] == "queued"
    await world.check()


async def test_a_run_sent_to_the_background_as_it_ends_is_told_of(world: World) -> None:
    """The ending waits for the head while the run is detached: what it read before is old."""
    held = await world.one(principal_id=SYSTEM_PRINCIPAL)
    await world.database.execute("update principals set email = 'a@example.com' where id = $1", SYSTEM_PRINCIPAL)
    async with world.database.engine_tx() as connection:
        await lock(connection, DEFAULT_WORKSPACE, held.conversation_id)
        ending = asyncio.create_task(world.settle(held, DONE, held.fenced))
        while not await world.database.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.01)
        await detach(connection, held.conversation_id, held.run_id)
    assert await ending
    (delivery,) = await world.database.fetch("select address, event from deliveries")
    assert (delivery["address"], delivery["event"]) == ("a@example.com", "run.completed")


async def test_endings_of_many_runs_of_one_conversation_at_once(world: World) -> None:
    conversation = await world.conversation()
    accepted = [await world.say(conversation, str(n)) for n in range(12)]
    await asyncio.gather(*(world.settle(each, cancelled(None)) for each in accepted for _ in range(2)))
    head = await world.head(conversation)
    assert (head["open_runs"], head["state"]) == (0, "idle")
    await world.check()


async def test_replies_and_endings_at_once_leave_one_next_run(world: World) -> None:
    """A reply decides `ready` from the head while the run before it ends."""
    for _ in range(15):
        held = await world.one()
        await asyncio.gather(
            world.settle(held, DONE, held.fenced),
            world.say(held.conversation_id, "a"),
            world.say(held.conversation_id, "b"),
        )
        await world.check()
        for _ in range(2):
            (next_run,) = await world.claim()
            await world.settle(next_run, DONE, next_run.fenced)
        await world.check()


async def test_a_message_that_came_too_late_to_steer_gets_a_run(world: World) -> None:
    held = await world.one()
    for text in ("also this", "and that"):
        steered = await world.say(held.conversation_id, text, on_message="steer")
        assert steered.run_id == held.run_id
        assert not steered.ready
    settled = await world.settle(held, answered("Hi"), held.fenced)
    assert settled
    assert settled.work_is_due
    await world.check()
    (follow_up,) = await world.claim()
    assert follow_up.run_id != held.run_id
    assert [text for _, text in await world.said(held.conversation_id)] == ["Hello", "Hi", "also this", "and that"]
    await world.check()


async def test_late_steers_wait_behind_queued_runs(world: World) -> None:
    held = await world.one()
    queued = await world.say(held.conversation_id, "queued", on_message="enqueue")
    await world.say(held.conversation_id, "late", on_message="steer")
    await world.settle(held, DONE, held.fenced)
    await world.check()
    (first,) = await world.claim()
    assert first.run_id == queued.run_id
    await world.settle(first, DONE, first.fenced)
    assert len(await world.claim()) == 1
    await world.check()


async def test_a_tasks_ending_plans_its_deliveries_in_the_same_transaction(world: World) -> None:
    task = await a_task(world)
    held = await world.one(run={"task_id": task})
    with contextlib.suppress(RuntimeError):
        await cut_off(world, held, answered("Hi"))
    assert await world.database.fetch("select * from deliveries") == []
    assert (await world.run(held.run_id))["state"] == "running"
    settled = await world.settle(held, answered("Hi"), held.fenced)
    assert settled
    assert settled.work_is_due
    (delivery,) = await world.database.fetch("select * from deliveries")
    assert (delivery["channel"], delivery["address"], delivery["state"]) == ("email", "a@example.com", "pending")
    assert delivery["event_seq"] == (await world.events(held.conversation_id))[-1].seq


async def test_a_queued_run_that_is_cancelled_is_told_of_too(world: World) -> None:
    told = {"channels": ["email"], "email_address": ["a@example.com"], "on": ["cancelled"]}
    accepted = await world.queued(run={"task_id": await a_task(world, notification_config=told)})
    settled = await world.settle(accepted, cancelled("not needed"))
    assert settled
    assert settled.work_is_due
    (delivery,) = await world.database.fetch("select * from deliveries")
    assert (delivery["event"], delivery["run_id"]) == ("run.cancelled", accepted.run_id)


async def test_a_run_ends_whose_task_tells_by_a_channel_that_is_gone(world: World) -> None:
    gone = {"channels": ["pager"], "on": ["started", "completed"]}
    task = await a_task(world, notification_config=gone)
    held = await world.one(run={"task_id": task})
    async with world.database.engine_tx() as connection:
        assert not await announce_steps(connection, world.settings, held.run_id, held.conversation_id)
    await world.settle(held, DONE, held.fenced)
    assert (await world.run(held.run_id))["state"] == "completed"
    rows = await world.database.fetch("select event, channel, state, reason from deliveries order by event_seq")
    why = "this version has no channel 'pager'"
    assert [tuple(row) for row in rows] == [
        ("run.started", "pager", "suppressed", why),
        ("run.completed", "pager", "suppressed", why),
    ]


@pytest.mark.parametrize(
    "kept", [{"channels": ["email"], "email_address": "\u212aate@example.com"}, {"channels": 7}, None]
)
async def test_a_run_ends_whatever_is_kept_about_whom_to_tell(world: World, kept: Any) -> None:
    """Nobody is told, and that is all: no end waits for whoever wrote that."""
    held = await world.one(run={"notification": {"config": kept, "thread": {}}})
    await world.settle(held, DONE, held.fenced)
    task = await a_task(world, notification_config=kept or {"on": 7})
    told = await world.one(run={"task_id": task})
    async with world.database.engine_tx() as connection:
        assert not await announce_steps(connection, world.settings, told.run_id, told.conversation_id)
    await world.settle(told, DONE, told.fenced)
    for each in (held, told):
        assert (await world.run(each.run_id))["state"] == "completed"
    assert await world.database.fetchval("select count(*) from deliveries") == 0


async def test_a_task_is_paused_after_so_many_failures(world: World) -> None:
    task = await a_task(world, auto_pause_after=2)
    for expected in ((1, True), (2, False)):
        held = await world.one(run={"task_id": task})
        await world.settle(held, failed(ModelFailed("no")), held.fenced)
        row = await world.database.fetchrow("select * from tasks where id = $1", task)
        assert row
        assert (row["consecutive_failures"], row["enabled"]) == expected
    assert (await world.types(held.conversation_id))[-2:] == ["task.auto_paused", "run.failed"]
    await world.check()


async def test_a_success_forgets_the_failures_and_a_cancel_does_not(world: World) -> None:
    task = await a_task(world, auto_pause_after=3)
    counts = []
    for outcome in (failed(ModelFailed("no")), cancelled(None), DONE):
        held = await world.one(run={"task_id": task})
        await world.settle(held, outcome)
        counts.append(await world.database.fetchval("select consecutive_failures from tasks"))
    assert counts == [1, 1, 0]


async def test_failures_at_once_pause_a_task_once(world: World) -> None:
    task = await a_task(world, auto_pause_after=3)
    held = [await world.one(run={"task_id": task}) for _ in range(5)]
    await asyncio.gather(*(world.settle(each, failed(ModelFailed("no")), each.fenced) for each in held))
    row = await world.database.fetchrow("select * from tasks")
    assert row
    assert (row["consecutive_failures"], row["enabled"]) == (5, False)
    paused = [kind for each in held for kind in await world.types(each.conversation_id) if kind == "task.auto_paused"]
    assert len(paused) == 1


async def test_an_outcome_can_be_tried_again(world: World) -> None:
    """The first try was rolled back: the second writes each event once."""
    held = await world.one()
    outcome = answered("Hi")
    with contextlib.suppress(RuntimeError):
        await cut_off(world, held, outcome)
    await world.settle(held, outcome, held.fenced)
    assert (await world.types(held.conversation_id)).count("run.completed") == 1
    await world.check()


# --- ends that come together ---------------------------------------------------------------------------


def ends(claim: Claim) -> Settlement:
    return Settlement(claim.run_id, claim.conversation_id, DONE, claim.fenced)


async def test_ends_share_a_transaction_and_a_held_head_holds_up_nobody_else(world: World) -> None:
    held = [await world.one() for _ in range(4)]
    seam, ended = Settlements(world.database, world.settings), list[int]()

    async def end(number: int) -> None:
        assert await seam.settle(ends(held[number]))
        ended.append(number)

    async with world.database.engine_tx() as connection:
        await connection.execute(LOCK_HEAD, held[2].conversation_id)
        endings = [asyncio.create_task(end(number)) for number in range(4)]
        async with asyncio.timeout(5):
            while len(ended) < 3:
                await asyncio.sleep(0.01)
        assert 2 not in ended
    await asyncio.gather(*endings)
    assert sorted(ended) == [0, 1, 2, 3]
    await world.check()


async def test_ends_whose_answer_was_lost_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [await world.one() for _ in range(3)]
    seam = Settlements(world.database, world.settings)
    together = seam._together

    async def cut_off(settlements: list[Settlement]) -> Any:
        await together(settlements)
        raise DatabaseUnavailable

    monkeypatch.setattr(seam._seam, "_together", cut_off)
    settled = await asyncio.gather(*(seam.settle(ends(each)) for each in held))
    for each, told in zip(held, settled, strict=True):
        assert told
        assert [event.type for event in told.events] == ["run.completed"]
        assert told.events == (await world.events(each.conversation_id))[-1:]
    with pytest.raises(LeaseLost):
        await seam.settle(replace(ends(held[0]), who=replace(held[0].fenced, fence=7)))
    await world.check()
