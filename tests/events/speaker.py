"""A run that speaks over a bus, without an executor: each step by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from app.db import Database
from app.events import Bus, Delta, EventType, NewEvent, follow, stored
from app.messages import prompt
from app.runs import Checkpoints, Claim, Fenced, NewMessage, RunState, Write
from app.settle import Outcome
from tests.engine import World
from tests.events.client import Client


class Speaker:
    """Speaks for a claimed run in the process that owns `bus`."""

    def __init__(self, world: World, bus: Bus, held: Claim) -> None:
        self._world = world
        self._bus = bus
        self.held = held
        self.who = held.fenced
        self.seq = 0
        self.said = ""
        bus.publish(held.events)

    async def begin(self) -> "Speaker":
        self.seq = (await self._world.head(self.held.conversation_id))["message_seq"] + 1
        self.said = ""
        return self

    def say(self, text: str) -> None:
        self._bus.stream(
            Delta(
                self.held.conversation_id,
                self.held.run_id,
                self.seq,
                self.held.fence,
                part=0,
                kind="text",
                offset=len(self.said),
                text=text,
            )
        )
        self.said += text

    async def store(self) -> None:
        """The message is whole: its row and event, then the next one begins."""
        shown = {"message_seq": self.seq, "role": "assistant", "text": self.said, "interrupted": False}
        events = [NewEvent(EventType.MESSAGE_COMPLETED, message=0, shown=shown)]
        write = Write([NewMessage("assistant", self.said, prompt(self.said))], events=events)
        written = await Checkpoints(self._world.database).checkpoint(self.who, write)
        assert written.event_seq is not None
        self.who = Fenced(self.who.run_id, self.who.conversation_id, self.who.fence, self.who.write_no + 1)
        self._bus.publish(
            stored(
                events,
                run_id=self.held.run_id,
                conversation_id=self.held.conversation_id,
                first=written.event_seq + 1,
                at=written.at,
            )
        )
        await self.begin()

    async def end(self, state: RunState = RunState.COMPLETED) -> None:
        settled = await self._world.settle(self.held, Outcome(state, result="done", error={"code": "x"}), self.who)
        assert settled
        self._bus.forget_text(self.held.conversation_id, self.held.run_id, self.held.fence)
        self._bus.publish(settled.events)


class Watcher:
    """A client that follows a stream until told to stop, or until the stream ends."""

    def __init__(
        self, bus: Bus, database: Database, conversation_id: UUID, run_id: UUID | None, after: int | None
    ) -> None:
        self.client = Client(cursor=after or 0)
        self._stream = follow(bus, database, conversation_id, after=after, run_id=run_id)
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for event in self._stream:
            self.client.take(event)
            self._changed.set()

    async def until(self, met: Callable[[Client], bool], seconds: float = 8) -> Client:
        async with asyncio.timeout(seconds):
            while not met(self.client):
                if self.task.done():
                    self.task.result()
                    raise AssertionError(f"the stream ended: {self.client}")
                self._changed.clear()
                await self._changed.wait()
        return self.client

    async def finished(self, seconds: float = 8) -> Client:
        await asyncio.wait_for(self.task, seconds)
        return self.client

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._stream.aclose()


@asynccontextmanager
async def running_bus(database: Database, redis_url: str | None) -> AsyncIterator[Bus]:
    """A started bus, connected if it has somewhere to connect to."""
    bus = Bus(database, redis_url)
    await bus.start()
    try:
        if redis_url:
            async with asyncio.timeout(5):
                while not bus.connected:
                    await asyncio.sleep(0.005)
        yield bus
    finally:
        await bus.stop()
