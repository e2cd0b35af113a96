import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from app.db import Database
from app.errors import DatabaseUnavailable, LeaseLost
from app.events import EventType, NewEvent
from app.messages import prompt
from app.models import new_id
from app.runs import CallRecord, Checkpoints, Fenced, NewMessage, RunState, Usage, Write
from app.runs import write as module
from app.runs.lease import RENEW
from app.settings import Settings
from app.settle import Outcome
from tests.engine import World


def said(text: str) -> Write:
    """A write of one message and its event."""
    message = NewMessage("assistant", text, prompt(text), usage=Usage(1, 2, 3))
    return Write(
        messages=[message],
        events=[NewEvent(EventType.MESSAGE_COMPLETED, message=0)],
        usage=message.usage,
    )


def after(who: Fenced, writes: int = 1) -> Fenced:
    return Fenced(who.run_id, who.conversation_id, who.fence, who.write_no + writes)


async def renew(database: Database, who: Fenced) -> list[UUID]:
    rows = await database.fetch(RENEW, [{"id": str(who.run_id), "fence": who.fence}], 10.0)
    return [row["id"] for row in rows if row["held"]]


async def taken_over(world: World) -> tuple[Fenced, Fenced]:
    """A stale holder and the present one."""
    stale = await world.one()
    await world.lapse(stale.run_id)
    await world.recover()
    (fresh,) = await world.claim()
    return stale.fenced, fresh.fenced


# --- the fence ---------------------------------------------------------------------------------------------


async def test_a_write_adds_its_rows_and_totals(world: World) -> None:
    held = await world.one()
    written = await Checkpoints(world.database).checkpoint(held.fenced, said("Hi"))
    assert written.message_seq == 1
    row, head = await world.run(held.run_id), await world.head(held.conversation_id)
    assert (row["write_no"], row["requests"], row["input_tokens"]) == (1, 1, 2)
    assert (head["requests"], head["output_tokens"]) == (1, 3)
    assert await world.said(held.conversation_id) == [("user", "Hello"), ("assistant", "Hi")]
    await world.check()


async def test_a_stale_holder_writes_nothing(world: World) -> None:
    stale, fresh = await taken_over(world)
    before = await world.events(stale.conversation_id), dict(await world.run(stale.run_id))
    with pytest.raises(LeaseLost):
        await Checkpoints(world.database).checkpoint(stale, said("stale"))
    with pytest.raises(LeaseLost):
        await world.settle(_claim_like(stale), Outcome(RunState.COMPLETED, result="stale"), who=stale)
    assert await renew(world.database, stale) == []
    assert (await world.events(stale.conversation_id), dict(await world.run(stale.run_id))) == before
    assert await renew(world.database, fresh) == [fresh.run_id]
    await Checkpoints(world.database).checkpoint(fresh, said("fresh"))
    await world.check()


class _claim_like:
    def __init__(self, who: Fenced) -> None:
        self.run_id, self.conversation_id = who.run_id, who.conversation_id


@pytest.mark.parametrize("lock", ["heads", "runs"])
async def test_a_takeover_while_a_write_waits_for_the_row_stops_it(world: World, lock: str) -> None:
    """The write has its snapshot before the takeover commits: only the locked row tells the truth."""
    held = await world.one()
    column = "conversation_id" if lock == "heads" else "id"
    async with world.database.engine_tx() as connection:
        key = held.conversation_id if lock == "heads" else held.run_id
        await connection.execute(f"select from {lock} where {column} = $1 for no key update", key)
        writing = asyncio.create_task(Checkpoints(world.database).checkpoint(held.fenced, said("stale")))
        await _until_blocked(world.database)
        await connection.execute("update runs set fence = fence + 1 where id = $1", held.run_id)
    with pytest.raises(LeaseLost):
        await writing
    assert await world.said(held.conversation_id) == [("user", "Hello")]
    await world.check()


async def _until_blocked(database: Database) -> None:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with asyncio.timeout(5):
        while not await database.fetchval(waiting):
            await asyncio.sleep(0.01)


# --- unknown commits ----------------------------------------------------------------------------------------


async def test_a_write_that_had_landed_is_recognised(world: World) -> None:
    """The connection breaks after the commit: the second try finds its own work."""
    held = await world.one()
    connection = CutOff(world.database, after_statement=True)
    written = await Checkpoints(connection).checkpoint(held.fenced, said("once"))  # type: ignore[arg-type]
    assert connection.cuts == 1
    assert written.message_seq == 1
    assert written.event_seq is None
    await Checkpoints(world.database).checkpoint(after(held.fenced), said("twice"))
    assert await world.said(held.conversation_id) == [("user", "Hello"), ("assistant", "once"), ("assistant", "twice")]
    await world.check()


async def test_a_write_that_had_not_landed_is_made_again(world: World) -> None:
    held = await world.one()
    connection = CutOff(world.database, after_statement=False)
    written = await Checkpoints(connection).checkpoint(held.fenced, said("once"))  # type: ignore[arg-type]
    assert connection.cuts == 1
    assert written.event_seq is not None
    assert await world.said(held.conversation_id) == [("user", "Hello"), ("assistant", "once")]
    await world.check()


async def test_a_landed_write_of_a_lost_run_is_no_success(world: World) -> None:
    held = await world.one()
    await Checkpoints(world.database).checkpoint(held.fenced, said("once"))
    await world.lapse(held.run_id)
    await world.recover()
    with pytest.raises(LeaseLost):
        await Checkpoints(world.database).checkpoint(held.fenced, said("once"))


class CutOff:
    """A database whose first connection ends around its first statement, with the commit or without it."""

    def __init__(self, database: Database, *, after_statement: bool) -> None:
        self._database = database
        self._after = after_statement
        self.cuts = 0

    def connection(self, edge: str = "") -> "CutOff":
        return self

    async def __aenter__(self) -> "CutOff":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def fetchrow(self, query: str, *args: object) -> object:
        cut, self.cuts = self.cuts == 0, max(self.cuts, 1)
        if cut and not self._after:
            raise DatabaseUnavailable("cut off before the statement")
        row = await self._database.fetchrow(query, *args)
        if cut:
            raise DatabaseUnavailable("cut off after the commit")
        return row

    async def fetch(self, query: str, *args: object) -> object:
        return await self._database.fetch(query, *args)


# --- the coalescer ------------------------------------------------------------------------------------------


async def test_writes_that_come_together_share_a_statement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [await world.one() for _ in range(12)]
    statements: list[int] = []
    parameters = module.parameters

    def counted(writes: Sequence[tuple[Fenced, Write]]) -> object:
        statements.append(len(writes))
        return parameters(writes)

    monkeypatch.setattr(module, "parameters", counted)
    checkpoints = Checkpoints(world.database)
    await asyncio.gather(*(checkpoints.checkpoint(each.fenced, said("Hi")) for each in held))
    assert sum(statements) >= 11
    assert len(statements) <= 2
    await world.check()


async def test_only_the_guilty_of_a_batch_loses(world: World) -> None:
    stale, _ = await taken_over(world)
    held = [await world.one() for _ in range(5)]
    checkpoints = Checkpoints(world.database)
    callers = [
        checkpoints.checkpoint(who, said("Hi")) for who in (held[0].fenced, stale, *(h.fenced for h in held[1:]))
    ]
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answers[1], LeaseLost)
    assert [type(answer) for answer in answers].count(LeaseLost) == 1
    for each in held:
        assert await world.said(each.conversation_id) == [("user", "Hello"), ("assistant", "Hi")]
    await world.check()


async def test_a_write_that_postgres_refuses_spoils_nobody_elses(world: World) -> None:
    held = [await world.one() for _ in range(4)]
    bad = said("bad")
    bad.messages[0] = NewMessage("assistant", "not \x00 storable", prompt("x"))
    writes = [said("Hi"), bad, said("Hi"), said("Hi")]
    checkpoints = Checkpoints(world.database)
    answers = await asyncio.gather(
        *(checkpoints.checkpoint(each.fenced, write) for each, write in zip(held, writes, strict=True)),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False, False]
    await world.check()


async def test_a_stale_and_a_fresh_writer_of_one_run_in_one_batch(world: World) -> None:
    """A process that was frozen past its lease may hold both."""
    stale, fresh = await taken_over(world)
    checkpoints = Checkpoints(world.database)
    message = Write(messages=[NewMessage("tool", "stale", prompt("stale"))])
    progress = Write(events=[NewEvent(EventType.RUN_PROGRESS, {"text": "fresh"})])
    answers = await asyncio.gather(
        checkpoints.checkpoint(stale, message), checkpoints.checkpoint(fresh, progress), return_exceptions=True
    )
    assert isinstance(answers[0], LeaseLost)
    assert not isinstance(answers[1], BaseException)
    assert await world.said(fresh.conversation_id) == [("user", "Hello")]
    await world.check()


async def test_numbers_stay_whole_while_replies_move_the_heads(world: World) -> None:
    """Every checkpoint waits for heads that replies are moving, so it works on rows newer than its snapshot."""
    held = [await world.one() for _ in range(4)]
    checkpoints = Checkpoints(world.database)
    running = len(held)

    async def work(who: Fenced) -> None:
        nonlocal running
        for n in range(25):
            call = CallRecord(f"c{n}", "t", {}, "", "done", True, "read", 0, message=0, result=n)
            write = said(f"answer {n}")
            write.calls.append(call)
            await checkpoints.checkpoint(after(who, n), write)
        running -= 1

    async def talk(conversation_id: UUID) -> int:
        count = 0
        while running:
            await world.say(conversation_id, f"meanwhile {count}", run_id=new_id())
            count += 1
        return count

    talkers = [talk(each.conversation_id) for each in held for _ in range(2)]
    *_, spoken = await asyncio.gather(*(work(each.fenced) for each in held), asyncio.gather(*talkers))
    assert sum(spoken) > 20
    for each in held:
        assert [text for _, text in await world.said(each.conversation_id)][1:] == [f"answer {n}" for n in range(25)]
        row = await world.run(each.run_id)
        assert (row["write_no"], row["requests"]) == (25, 25)
        assert [
            event.fields["behind"]
            for event in await world.events(each.conversation_id)
            if event.type == "message.queued"
        ]
    await world.check()


async def test_a_finished_call_is_not_overwritten(world: World) -> None:
    held = await world.one()
    checkpoints = Checkpoints(world.database)
    done = CallRecord("c", "t", {}, "", "done", True, "read", 0, message_seq=1, result={"n": 1})
    await checkpoints.checkpoint(held.fenced, Write(calls=[done]))
    again = CallRecord("c", "t", {}, "", "done", True, "read", 0, message_seq=1, result={"n": 2})
    await checkpoints.checkpoint(after(held.fenced), Write(calls=[again]))
    (call,) = await world.calls(held.conversation_id)
    assert call["result"] == {"n": 1}


async def test_writing_waits_out_an_outage_for_about_a_lease(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01, 0.01))
    held = await world.one()
    away = await Database.open(settings, name="away")
    await away.close()
    with pytest.raises(DatabaseUnavailable):
        await Checkpoints(away).checkpoint(held.fenced, said("Hi"))
