import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from redis.asyncio import Redis

from app.events import Bus, follow
from app.events import bus as module
from app.events.bus import text_key
from app.runs import RunState
from app.settings import Settings
from app.settle import cancelled
from tests.engine import World
from tests.events.client import Client
from tests.events.speaker import Speaker, Watcher, running_bus


@pytest.fixture
async def here(world: World, redis_url: str) -> AsyncIterator[Bus]:
    """The bus of the process that speaks."""
    async with running_bus(world.database, redis_url) as bus:
        yield bus


@pytest.fixture
async def there(world: World, redis_url: str) -> AsyncIterator[Bus]:
    """The bus of another process."""
    async with running_bus(world.database, redis_url) as bus:
        yield bus


@pytest.fixture
async def watchers() -> AsyncIterator[list[Watcher]]:
    made: list[Watcher] = []
    yield made
    for each in made:
        await each.leave()


async def equal(world: World, watcher: Watcher, conversation: UUID) -> None:
    """What the client shows is what is stored."""
    assert watcher.client.shown() == [text for _, text in await world.said(conversation)]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_reader_sees_the_text_grow_and_the_stream_end(
    world: World, here: Bus, there: Bus, watchers: list[Watcher], elsewhere: bool
) -> None:
    held = await world.one()
    watcher = Watcher(there if elsewhere else here, world.database, held.conversation_id, held.run_id, None)
    watchers.append(watcher)
    await watcher.until(lambda client: len(client.ids) == 3)
    speaker = await Speaker(world, here, held).begin()
    for word in ("Paris ", "is ", "🗼 it."):
        speaker.say(word)
        await watcher.until(lambda client: client.shown()[-1] == speaker.said)
    await speaker.store()
    await speaker.end()
    client = await watcher.finished()
    assert client.ids == list(range(1, 6))
    assert client.names.count("text.delta") == 3
    await equal(world, watcher, held.conversation_id)


@pytest.mark.parametrize("after", [None, *range(6)])
async def test_a_reader_may_come_at_any_time_with_any_cursor(
    world: World, here: Bus, there: Bus, watchers: list[Watcher], after: int | None
) -> None:
    held = await world.one()
    speaker = await Speaker(world, here, held).begin()
    speaker.say("First. ")
    await speaker.store()  # event 4
    speaker.say("Second")
    await asyncio.sleep(0.05)
    watcher = Watcher(there, world.database, held.conversation_id, None, after)
    watchers.append(watcher)
    if after == 5:
        await watcher.until(lambda client: "stream.reset" in client.names)
    await watcher.until(lambda client: client.shown()[-1:] == ["Second"])
    speaker.say(" and last")
    await watcher.until(lambda client: client.shown()[-1] == "Second and last")
    await speaker.store()
    await speaker.end()
    await watcher.until(lambda client: "run.completed" in client.names)
    first = 1 if after is None or after == 5 else after + 1
    assert watcher.client.ids == list(range(first, 7))


async def test_readers_join_at_random_while_a_run_speaks(
    world: World, here: Bus, there: Bus, watchers: list[Watcher]
) -> None:
    held = await world.one()
    speaker = await Speaker(world, here, held).begin()
    for message in range(4):
        for word in range(20):
            speaker.say(f"{message}.{word} ")
            if word % 5 == 0:
                bus = (here, there)[(word // 5) % 2]
                watchers.append(Watcher(bus, world.database, held.conversation_id, held.run_id, None))
            await asyncio.sleep(0)
        await speaker.store()
    await speaker.end()
    for watcher in watchers:
        client = await watcher.finished()
        assert client.ids == list(range(1, 9))
        await equal(world, watcher, held.conversation_id)


async def test_a_run_stream_shows_one_run_and_follows_all_numbers(
    world: World, here: Bus, there: Bus, watchers: list[Watcher]
) -> None:
    held = await world.one()
    second = await world.say(held.conversation_id, "next")
    here.publish(second.events)
    watcher = Watcher(there, world.database, held.conversation_id, second.run_id, None)
    watchers.append(watcher)
    speaker = await Speaker(world, here, held).begin()
    speaker.say("not for you")
    await speaker.store()
    await speaker.end()
    (claimed,) = await world.claim()
    other = await Speaker(world, here, claimed).begin()
    other.say("for you")
    await other.store()
    await other.end()
    client = await watcher.finished()
    assert client.ids == sorted(set(client.ids))
    assert client.shown() == ["next", "for you"]
    assert client.names[0] == "message.queued"
    assert client.names[-1] == "run.completed"


# --- Redis away ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0"])
async def test_without_redis_readers_elsewhere_poll(world: World, watchers: list[Watcher], url: str | None) -> None:
    here, there = Bus(world.database, url), Bus(world.database, url)
    for bus in (here, there):
        await bus.start()
    held = await world.one()
    watchers.append(Watcher(there, world.database, held.conversation_id, held.run_id, None))
    watchers.append(Watcher(here, world.database, held.conversation_id, held.run_id, None))
    speaker = await Speaker(world, here, held).begin()
    speaker.say("Hi")
    await watchers[1].until(lambda client: client.shown()[-1:] == ["Hi"])  # readers beside the speaker see it live
    await speaker.store()
    await speaker.end()
    for watcher in watchers:
        await watcher.finished(4)
        await equal(world, watcher, held.conversation_id)
    for bus in (here, there):
        await bus.stop()


async def test_redis_emptied_while_a_message_is_made(
    world: World, here: Bus, there: Bus, watchers: list[Watcher], redis_url: str
) -> None:
    held = await world.one()
    speaker = await Speaker(world, here, held).begin()
    early = Watcher(there, world.database, held.conversation_id, held.run_id, None)
    watchers.append(early)
    speaker.say("The beginning, ")
    await early.until(lambda client: client.shown()[-1:] == ["The beginning, "])
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
        speaker.say("the middle, ")
        await early.until(lambda client: client.shown()[-1] == "The beginning, the middle, ")
        async with asyncio.timeout(3):
            while b"The beginning" not in b"".join(await redis.lrange(text_key(held.conversation_id), 0, -1)):
                await asyncio.sleep(0.01)
    late = Watcher(there, world.database, held.conversation_id, held.run_id, None)
    watchers.append(late)
    await late.until(lambda client: client.shown()[-1:] == ["The beginning, the middle, "])
    speaker.say("the end.")
    for watcher in watchers:
        await watcher.until(lambda client: client.shown()[-1] == "The beginning, the middle, the end.")
    await speaker.store()
    await speaker.end()
    for watcher in watchers:
        await watcher.finished()
        await equal(world, watcher, held.conversation_id)


async def test_a_lost_live_event_is_found_by_the_watchdog(
    world: World, there: Bus, watchers: list[Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.2)
    held = await world.one()
    async with running_bus(world.database, None) as mute:  # commits, and tells nobody elsewhere
        watcher = Watcher(there, world.database, held.conversation_id, held.run_id, None)
        watchers.append(watcher)
        await watcher.until(lambda client: len(client.ids) == 3)
        speaker = await Speaker(world, mute, held).begin()
        speaker.say("Hi")
        await speaker.store()
        await speaker.end()
        await watcher.finished(9)
        await equal(world, watcher, held.conversation_id)


async def test_events_heard_out_of_order_are_sent_in_order(
    world: World, here: Bus, there: Bus, watchers: list[Watcher]
) -> None:
    """Two writers commit one after the other and publish the other way round; one publication may be lost."""
    held = await world.one()
    watcher = Watcher(there, world.database, held.conversation_id, None, None)
    watchers.append(watcher)
    await watcher.until(lambda client: len(client.ids) == 3)
    first, second, third = [await world.say(held.conversation_id, str(n)) for n in range(3)]
    here.publish(second.events)
    here.publish(third.events)
    await watcher.until(lambda client: len(client.ids) == 9, 2)
    here.publish(first.events)
    here.publish(second.events)
    await asyncio.sleep(0.1)
    assert watcher.client.ids == list(range(1, 10))


# --- what readers must survive -------------------------------------------------------------------------------


async def test_a_slow_reader_goes_back_to_replay(world: World, here: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_ITEMS", 5)
    held = await world.one()
    client = Client()
    stream = follow(here, world.database, held.conversation_id, after=None, run_id=held.run_id)
    client.take(await anext(stream))  # reads one, then sleeps
    speaker = await Speaker(world, here, held).begin()
    for n in range(50):
        speaker.say(f"{n} ")
    await speaker.store()
    speaker.say("more")
    await speaker.store()
    await speaker.end()
    async for event in stream:
        client.take(event)
    assert client.ids == list(range(1, 7))
    assert client.shown() == [text for _, text in await world.said(held.conversation_id)]


async def test_a_dropped_attempt_disappears_and_the_next_speaks_anew(
    world: World, here: Bus, there: Bus, watchers: list[Watcher]
) -> None:
    held = await world.one()
    watcher = Watcher(there, world.database, held.conversation_id, held.run_id, None)
    watchers.append(watcher)
    first = await Speaker(world, here, held).begin()
    first.say("I was saying something long")
    await watcher.until(lambda client: client.shown()[-1:] == ["I was saying something long"])
    await world.lapse(held.run_id)
    (lost,) = await world.recover()
    there.publish(lost.events)
    await watcher.until(lambda client: client.shown() == ["Hello"])
    (claimed,) = await world.claim()
    second = await Speaker(world, there, claimed).begin()
    second.say("New")
    first.say(", still talking")  # the stale claim does not know yet
    await watcher.until(lambda client: client.shown()[-1] == "New")
    second.say(" words")
    await watcher.until(lambda client: client.shown()[-1] == "New words")
    await second.store()
    await second.end()
    await watcher.finished()
    await equal(world, watcher, held.conversation_id)


async def test_text_left_behind_by_a_dead_process_is_not_shown(
    world: World, there: Bus, watchers: list[Watcher], redis_url: str
) -> None:
    """A worker is killed while it speaks, the run fails elsewhere without a word: its text must not come back."""
    held = await world.one()
    async with running_bus(world.database, redis_url) as dead:
        speaker = await Speaker(world, dead, held).begin()
        speaker.say("Half a sen")
        await asyncio.sleep(0.05)
        dead._texts.clear()  # what a killed process knew is gone; what it had written to Redis is not
    await world.lapse(held.run_id)
    await world.recover()
    (claimed,) = await world.claim()
    other = await Speaker(world, there, claimed).begin()
    await other.end(RunState.FAILED)
    watcher = Watcher(there, world.database, held.conversation_id, None, None)
    watchers.append(watcher)
    await watcher.until(lambda client: "run.failed" in client.names)
    await asyncio.sleep(0.1)
    assert watcher.client.shown() == ["Hello"]
    assert "text.snapshot" not in watcher.client.names
    # Nor to a reader who has read all of that before.
    again = Watcher(there, world.database, held.conversation_id, None, watcher.client.cursor)
    watchers.append(again)
    await asyncio.sleep(0.1)
    assert again.client.names == []


async def test_a_reader_that_comes_while_the_bus_connects_is_served(world: World, redis_url: str) -> None:
    held = await world.one()
    async with running_bus(world.database, redis_url) as here:
        late = Bus(world.database, redis_url)
        await late.start()
        watcher = Watcher(late, world.database, held.conversation_id, held.run_id, None)
        await watcher.until(lambda client: len(client.ids) == 3)
        async with asyncio.timeout(5):
            while not late.connected:
                await asyncio.sleep(0.005)
        speaker = await Speaker(world, here, held).begin()
        speaker.say("Hi")
        await watcher.until(lambda client: client.shown()[-1] == "Hi", 2)
        await watcher.leave()
        await late.stop()


async def test_control_messages_reach_every_process(world: World, redis_url: str, settings: Settings) -> None:
    heard: list[str] = []
    one, two = Bus(world.database, redis_url), Bus(world.database, redis_url)
    await one.start(lambda message: heard.append(f"one {message['cancel']}"))
    await two.start(lambda message: heard.append(f"two {message['cancel']}"))
    async with asyncio.timeout(5):
        while not (one.connected and two.connected):
            await asyncio.sleep(0.005)
        one.control({"cancel": "x"})
        while len(heard) < 2:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert sorted(heard) == ["one x", "two x"]
    for bus in (one, two):
        await bus.stop()


async def test_rubbish_on_the_channel_harms_nobody(
    world: World, here: Bus, there: Bus, watchers: list[Watcher], redis_url: str
) -> None:
    held = await world.one()
    watcher = Watcher(there, world.database, held.conversation_id, held.run_id, None)
    watchers.append(watcher)
    await watcher.until(lambda client: len(client.ids) == 3)
    async with Redis.from_url(redis_url) as redis:
        for rubbish in (b"", b"{}", b"[]", b'{"origin":"x","events":[]}', b'{"origin":"x","delta":{}}', b"\xff"):
            await redis.publish(module.channel_of(held.conversation_id), rubbish)
            await redis.publish(module.CONTROL, rubbish)
    speaker = await Speaker(world, here, held).begin()
    speaker.say("Hi")
    await watcher.until(lambda client: client.shown()[-1] == "Hi", 3)


async def test_the_end_of_another_run_does_not_hide_the_text_in_the_making(world: World) -> None:
    async with running_bus(world.database, None) as bus:
        held = await world.one()
        speaker = await Speaker(world, bus, held).begin()
        queued = await world.say(held.conversation_id, "and another")
        settled = await world.settle(queued, cancelled("changed my mind"))
        assert settled
        bus.publish(settled.events)
        speaker.say("Once upon a time")
        for run_id in (None, held.run_id):
            watcher = Watcher(bus, world.database, held.conversation_id, run_id, None)
            await watcher.until(
                lambda client: any(part.text == "Once upon a time" for part in client.partials.values())
            )
            await watcher.leave()
