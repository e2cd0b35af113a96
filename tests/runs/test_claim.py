import asyncio
from datetime import UTC, datetime, timedelta

from app import failpoints
from app.messages import prompt
from app.runs import Inline, claim
from tests.engine import World


async def test_a_batch_takes_each_run_once_and_writes_its_message(world: World) -> None:
    accepted = [await world.queued(f"Question {n}") for n in range(5)]
    claims = await world.claim(limit=3)
    rest = await world.claim(limit=10)
    assert len(claims) == 3
    assert {each.run_id for each in claims + rest} == {each.run_id for each in accepted}
    for each in claims + rest:
        assert each.fence == 1
        ((role, text),) = await world.said(each.conversation_id)
        assert role == "user"
        assert text.startswith("Question")
        live = [event.data for event in each.events]
        assert live == [event.data for event in await world.events(each.conversation_id)][1:]
    await world.check()


async def test_higher_priority_first_then_the_older(world: World) -> None:
    first = await world.queued("normal")
    second = await world.queued("normal, later")
    urgent = await world.queued("urgent", run={"priority": 5})
    order = [(await world.claim(limit=1))[0].run_id for _ in range(3)]
    assert order == [urgent.run_id, first.run_id, second.run_id]


async def test_a_delayed_run_waits_for_its_time(world: World) -> None:
    later = await world.queued("later", run={"run_at": datetime.now(UTC) + timedelta(hours=1)})
    assert await world.claim() == []
    assert not later.ready
    await world.database.execute("update runs set run_at = now()")
    assert len(await world.claim()) == 1


async def test_only_the_next_run_of_a_conversation_is_taken(world: World) -> None:
    conversation = await world.conversation()
    first = await world.say(conversation, "one")
    second = await world.say(conversation, "two")
    assert (first.ready, second.ready) == (True, False)
    assert [each.run_id for each in await world.claim()] == [first.run_id]
    assert await world.claim() == []
    await world.check()


async def test_other_lanes_are_left_alone(world: World) -> None:
    await world.queued("slow", run={"lane": "slow"})
    assert await world.claim() == []
    assert len(await world.claim(lane="slow")) == 1


async def test_concurrent_claimers_never_take_the_same_run(world: World) -> None:
    accepted = [await world.queued(str(n)) for n in range(60)]

    async def drain(owner: str) -> list[object]:
        taken: list[object] = []
        while got := await world.claim(limit=4, owner=owner):
            taken += [each.run_id for each in got]
        return taken

    taken = await asyncio.gather(*(drain(f"worker:{n}") for n in range(4)))
    everything = [run_id for part in taken for run_id in part]
    # SKIP LOCKED may let a claimer stop early; nothing is taken twice and the next look finds the rest.
    everything += [each.run_id for each in await world.claim()]
    assert sorted(everything) == sorted(each.run_id for each in accepted)
    await world.check()


async def test_a_locked_conversation_is_skipped_and_not_waited_for(world: World) -> None:
    locked = await world.queued("locked")
    free = await world.queued("free")
    async with world.database.engine_tx() as connection:
        await connection.execute("select from heads where conversation_id = $1 for update", locked.conversation_id)
        claims = await asyncio.wait_for(world.claim(), timeout=3)
        assert [each.run_id for each in claims] == [free.run_id]
    assert [each.run_id for each in await world.claim()] == [locked.run_id]


async def test_an_inline_run_is_born_claimed(world: World) -> None:
    conversation = await world.conversation()
    accepted = await world.say(conversation, "Hi", inline=Inline("api:1", 5.0))
    assert accepted.claim is not None
    assert accepted.claim.fence == 1
    row = await world.run(accepted.run_id)
    assert (row["state"], row["owner"], row["fence"]) == ("running", "api:1", 1)
    assert row["agent_version"] == 1  # a run keeps its version even if another process has to take it over
    assert await world.claim() == []
    assert [event.data for event in accepted.events] == [event.data for event in await world.events(conversation)]
    await world.check()


async def test_claims_under_contention_with_replies_keep_the_numbers(world: World) -> None:
    """Heads move between the claim's snapshot and its lock: the numbers must be those of the locked row."""
    conversations = [await world.conversation() for _ in range(8)]
    for conversation in conversations:
        await world.say(conversation, "first")
    done = asyncio.Event()

    async def talk(conversation: object) -> None:
        while not done.is_set():
            await world.say(conversation, "more", on_message="enqueue")  # type: ignore[arg-type]

    talkers = [asyncio.create_task(talk(conversation)) for conversation in conversations[:4]]
    claimed = 0
    for _ in range(200):
        claimed += len(await claim(world.database, lane="default", limit=3, owner="w", lease_seconds=30))
        if claimed == 8:
            break
        await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*talkers)
    assert claimed + len(await world.claim()) == 8
    await world.check()
    for conversation in conversations:
        assert await world.said(conversation) == [("user", "first")]
        (row,) = await world.messages(conversation)
        assert row["body"] == prompt("first")


async def test_a_claim_reaches_its_edge(world: World) -> None:
    reached = list[str]()
    await world.queued()
    failpoints.arm(reached.append)
    try:
        assert len(await world.claim()) == 1
    finally:
        failpoints.arm(None)
    assert reached == ["before claim", "after claim"]
