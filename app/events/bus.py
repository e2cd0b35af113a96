"""The live bus: what happens now, to whoever watches, in this process and in others.

Nothing here is truth. Readers in this process are served directly; others over one Redis subscription per
process. What Redis loses, a reader finds in PostgreSQL: a gap in the numbers, or the watchdog, sends it there.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson

from app.db import Database
from app.errors import DatabaseUnavailable
from app.events.live import Delta, LiveText, assemble
from app.events.log import StoredEvent, decode, encode
from app.messages import Json
from app.models import new_id
from app.redis import AWAY, connect

log = logging.getLogger(__name__)

CONTROL = "parley:control"
INBOX_ITEMS = 1000  # A reader further behind than this goes back to replay.
OUTBOX_ITEMS = 10_000  # Beyond this, live items are dropped: their readers replay.
LIVE_SECONDS = 3600  # How long the text of a message in the making is kept in Redis.
WATCH_SECONDS = 5.0  # How often watched conversations are compared with PostgreSQL while Redis is up ...
WATCH_ALONE_SECONDS = 1.0  # ... and while it is away.
CONFIRM_SECONDS = 0.5
LATER_SECONDS = 0.5
BATCH = 200

Item = StoredEvent | Delta | None  # None: something was missed; replay.


def channel_of(conversation_id: UUID) -> str:
    """The Redis channel of a conversation's live items."""
    return f"parley:live:{conversation_id}"


def text_key(conversation_id: UUID) -> str:
    """The Redis list that holds the text of the message in the making."""
    return f"parley:text:{conversation_id}"


class Inbox:
    """What one reader has not taken yet; bounded."""

    def __init__(self) -> None:
        """Begin empty."""
        self._queue: asyncio.Queue[Item] = asyncio.Queue(INBOX_ITEMS)

    def put(self, item: Item) -> None:
        """Add an item; a reader that is too slow loses all of them and replays instead."""
        if self._queue.full():
            while not self._queue.empty():
                self._queue.get_nowait()
            item = None
        self._queue.put_nowait(item)

    async def take(self) -> list[Item]:
        """All that is there, and at least one item; None says that some were missed."""
        items = [await self._queue.get()]
        while not self._queue.empty():
            items.append(self._queue.get_nowait())
        return items


class Bus:
    """Publishes live items and hands them to this process's readers."""

    def __init__(self, database: Database, redis_url: str | None) -> None:
        """Make a bus that is not running yet.

        Args:
            database: Where the watchdog compares heads.
            redis_url: None works too: readers then see this process's items live and others' by polling.
        """
        self._database = database
        self._url = redis_url
        self._client = connect(redis_url) if redis_url else None
        self._origin = str(new_id())
        self._inboxes: dict[UUID, set[Inbox]] = {}
        self._seen: dict[UUID, int] = {}
        self._texts: dict[UUID, LiveText] = {}
        self._outbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(OUTBOX_ITEMS)
        self._pubsub: Any = None
        self._confirming: dict[str, asyncio.Event] = {}
        self._later: dict[UUID, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._on_control: Callable[[Json], None] = lambda _: None
        self.connected = False

    async def start(self, on_control: Callable[[Json], None] | None = None) -> None:
        """Begin to publish and listen.

        Args:
            on_control: Called with every control message of any process (such as `{"cancel": run id}`).
        """
        self._on_control = on_control or self._on_control
        loops = [self._watch()] + ([self._publish(), self._listen()] if self._client else [])
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Hand out what is waiting, then end."""
        if self._client and self.connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._outbox.join(), timeout=1.0)
        tasks = [*self._tasks, *self._later.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client:
            with contextlib.suppress(*AWAY):
                await self._client.aclose()

    # --- publishing: never waits -----------------------------------------------------------------

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Tell everyone about committed events of one conversation."""
        if not events:
            return
        conversation_id = events[0].conversation_id
        self._deliver(conversation_id, events)
        self._send("events", (conversation_id, events))

    def stream(self, delta: Delta) -> None:
        """Tell everyone about text of a message in the making."""
        text = self._texts.get(delta.conversation_id)
        if text is None or not text.continues(delta):
            text = self._texts[delta.conversation_id] = LiveText(delta.run_id, delta.seq, delta.fence)
        text.add(delta)
        self._deliver(delta.conversation_id, [delta])
        self._send("delta", (text, delta))

    def forget_text(self, conversation_id: UUID, run_id: UUID, fence: int) -> None:
        """The message that this claim was making was stored, or is given up."""
        text = self._texts.get(conversation_id)
        if text is not None and (text.run_id, text.fence) == (run_id, fence):
            del self._texts[conversation_id]
            self._send("forget", conversation_id)

    def control(self, message: Json) -> None:
        """Tell every process something, such as which run to cancel."""
        self._on_control(message)
        self._send("control", message)

    def _send(self, kind: str, value: Any) -> None:
        if self._client and not self._outbox.full():
            self._outbox.put_nowait((kind, value))

    def _deliver(self, conversation_id: UUID, items: Sequence[StoredEvent | Delta]) -> None:
        inboxes = self._inboxes.get(conversation_id)
        if not inboxes:
            return
        for item in items:
            if isinstance(item, StoredEvent):
                self._seen[conversation_id] = max(item.seq, self._seen.get(conversation_id, 0))
            for inbox in inboxes:
                inbox.put(item)

    async def _publish(self) -> None:
        assert self._client
        while True:
            items = [await self._outbox.get()]
            while len(items) < BATCH and not self._outbox.empty():
                items.append(self._outbox.get_nowait())
            try:
                await self._write(items)
            except AWAY as error:
                log.debug("live items were not published: %s", error)
                await asyncio.sleep(0.2)
            except Exception:  # one item that can't be written must not silence the process
                log.exception("live items could not be written")
            finally:
                for _ in items:
                    self._outbox.task_done()

    async def _write(self, items: list[tuple[str, Any]]) -> None:
        assert self._client
        pipe = self._client.pipeline(transaction=False)
        pushed: list[tuple[int, LiveText]] = []
        for kind, value in items:
            if kind == "delta":
                text, delta = value
                if text.length == 0:
                    pipe.delete(text_key(delta.conversation_id))
                text.length += 1
                pipe.rpush(text_key(delta.conversation_id), orjson.dumps(delta.record()))
                pushed.append((len(pipe) - 1, text))
                if text.length == 1:
                    pipe.expire(text_key(delta.conversation_id), LIVE_SECONDS)
                pipe.publish(channel_of(delta.conversation_id), self._pack({"delta": delta.record()}))
            elif kind == "events":
                conversation_id, events = value
                pipe.publish(channel_of(conversation_id), self._pack({"events": [encode(event) for event in events]}))
            elif kind == "forget":
                pipe.delete(text_key(value))
            else:
                pipe.publish(CONTROL, self._pack({"control": value}))
        results = await pipe.execute()
        self._rewrite_flushed([text for index, text in pushed if results[index] < text.length])

    def _rewrite_flushed(self, texts: list[LiveText]) -> None:
        """Redis lost the beginning of a text: start its list again with the whole."""
        for text in dict.fromkeys(texts):
            text.length = 0
            for snapshot in text.snapshots():
                self._send("delta", (text, snapshot))

    def _pack(self, message: Json) -> bytes:
        return orjson.dumps({"origin": self._origin, **message})

    # --- listening ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except AWAY as error:
                log.debug("the live subscription broke: %s", error)
            except Exception:  # a defect in one message must not deafen the process
                log.exception("the live subscription broke")
            self.connected = False
            self._pubsub = None
            await asyncio.sleep(0.5)

    async def _listen_once(self) -> None:
        assert self._url
        async with connect(self._url) as client, client.pubsub() as pubsub:
            await pubsub.subscribe(CONTROL)
            self._pubsub = pubsub  # From here on readers subscribe by themselves; those that came before, here.
            if self._inboxes:
                await pubsub.subscribe(*(channel_of(conversation_id) for conversation_id in self._inboxes))
            self.connected = True
            self._miss_everything()
            while True:
                message: Any = await pubsub.get_message(timeout=5.0)
                if message is None:
                    continue
                if message["type"] == "message":
                    self._receive(message["data"])
                elif message["type"] == "subscribe":
                    self._confirm(message["channel"].decode())

    def _receive(self, data: bytes) -> None:
        try:
            message = orjson.loads(data)
            if message["origin"] == self._origin:
                return
            if "control" in message:
                self._on_control(message["control"])
            elif "delta" in message:
                delta = Delta.of(message["delta"])
                self._deliver(delta.conversation_id, [delta])
            else:
                events = [decode(record) for record in message["events"]]
                self._deliver(events[0].conversation_id, events)
        except (ValueError, KeyError, TypeError, IndexError):
            log.warning("a live message could not be read")

    def _miss_everything(self) -> None:
        for inboxes in self._inboxes.values():
            for inbox in inboxes:
                inbox.put(None)

    @asynccontextmanager
    async def subscribe(self, conversation_id: UUID, *, here: bool = False) -> AsyncGenerator[Inbox]:
        """An inbox that receives the conversation's live items from now on.

        Args:
            conversation_id: Whose items.
            here: Whether they will be made by this process: others are listened to only if that takes a while.
        """
        inbox = Inbox()
        inboxes = self._inboxes.setdefault(conversation_id, set())
        inboxes.add(inbox)
        if here and len(inboxes) == 1:
            self._later[conversation_id] = asyncio.create_task(self._follow_later(conversation_id))
        elif len(inboxes) == 1 or self._cancel_later(conversation_id):
            await self._follow_channel(conversation_id)
        try:
            yield inbox
        finally:
            inboxes.discard(inbox)
            if not inboxes and self._inboxes.get(conversation_id) is inboxes:
                del self._inboxes[conversation_id]
                self._seen.pop(conversation_id, None)
                self._cancel_later(conversation_id)
                await self._leave_channel(conversation_id)

    async def _follow_later(self, conversation_id: UUID) -> None:
        await asyncio.sleep(LATER_SECONDS)
        await self._follow_channel(conversation_id)
        for inbox in self._inboxes.get(conversation_id, ()):
            inbox.put(None)
        self._later.pop(conversation_id, None)

    def _cancel_later(self, conversation_id: UUID) -> bool:
        """Do not follow a channel later; whether that was to be done."""
        later = self._later.pop(conversation_id, None)
        return later is not None and later.cancel()

    async def _follow_channel(self, conversation_id: UUID) -> None:
        """Subscribe, and wait a moment for Redis to say so: what is published later can't be missed."""
        if self._pubsub is None:
            return
        channel = channel_of(conversation_id)
        confirmed = self._confirming.setdefault(channel, asyncio.Event())
        with contextlib.suppress(TimeoutError, *AWAY):
            await self._pubsub.subscribe(channel)
            await asyncio.wait_for(confirmed.wait(), timeout=CONFIRM_SECONDS)
        self._confirming.pop(channel, None)

    def _confirm(self, channel: str) -> None:
        if channel in self._confirming:
            self._confirming[channel].set()

    async def _leave_channel(self, conversation_id: UUID) -> None:
        channel = channel_of(conversation_id)
        if self._pubsub is not None and channel.encode() in self._pubsub.channels:
            with contextlib.suppress(*AWAY):
                await self._pubsub.unsubscribe(channel)

    async def texts(self, conversation_id: UUID) -> list[Delta]:
        """The text so far of the message in the making, one snapshot per part; empty when none is."""
        mine = self._texts.get(conversation_id)
        if mine is not None:
            return mine.snapshots()
        if self._client is None or not self.connected:
            return []
        try:
            records: list[bytes] = await self._client.lrange(text_key(conversation_id), 0, -1)
        except AWAY:
            return []
        return assemble([Delta.of(orjson.loads(record)) for record in records])

    # --- the net below ---------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Send readers to replay whose conversation has moved on without a live message."""
        while True:
            await asyncio.sleep(WATCH_SECONDS if self.connected else WATCH_ALONE_SECONDS)
            if self._inboxes:
                with contextlib.suppress(DatabaseUnavailable):
                    await self._compare_heads()

    async def _compare_heads(self) -> None:
        rows = await self._database.fetch(
            "select conversation_id, event_seq from heads where conversation_id = any($1::uuid[])", list(self._inboxes)
        )
        for row in rows:
            conversation_id = row["conversation_id"]
            if row["event_seq"] > self._seen.get(conversation_id, -1):
                self._seen[conversation_id] = row["event_seq"]
                for inbox in self._inboxes.get(conversation_id, ()):
                    inbox.put(None)
