"""The reader of a stream: the stored log first, then live, each event once."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID

from app.db import Database
from app.events.bus import Bus, Inbox
from app.events.live import Delta
from app.events.log import StoredEvent, replay
from app.messages import Json

PAGE = 500
SPEAKS = "select exists (select from runs where id = $1 and fence = $2 and state = 'running')"


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event.

    Attributes:
        event: Its name.
        data: Its JSON object.
        id: The conversation's event number; None for ephemeral ones.
    """

    event: str
    data: Json
    id: int | None = None


class Reader:
    """Follows one conversation's numbers; a run's reader filters when it sends."""

    def __init__(self, bus: Bus, database: Database, conversation_id: UUID, after: int, run_id: UUID | None) -> None:
        """Begin after a number."""
        self._bus = bus
        self._database = database
        self._conversation_id = conversation_id
        self._run_id = run_id
        self._last = after
        self._messages = 0  # The highest message number whose end was sent.
        self._sent: dict[tuple[int, int, int], int] = {}  # (seq, part, fence) -> code points sent
        self.ended = False

    async def events(self, inbox: Inbox) -> AsyncGenerator[ServerEvent]:
        """Replay, snapshot, then live; ends after the terminal event of a run's stream."""
        async for sent in self._catch_up():
            yield sent
        while not self.ended:
            item = await inbox.get()
            if isinstance(item, Delta):
                for sent in await self._take_text(item):
                    yield sent
            elif item is not None and item.seq == self._last + 1:
                for sent in self._take(item):
                    yield sent
            elif item is None or item.seq > self._last:
                async for sent in self._catch_up():
                    yield sent

    async def _catch_up(self) -> AsyncGenerator[ServerEvent]:
        while not self.ended:
            page = await replay(self._database, self._conversation_id, self._last, limit=PAGE)
            for event in page:
                for sent in self._take(event):
                    yield sent
                if self.ended:
                    return
            if len(page) < PAGE:
                break
        for text in await self._texts():
            for sent in self._pass_on(text):
                yield sent

    async def _texts(self) -> list[Delta]:
        """The text of a message in the making; what a dead process left behind in Redis is none."""
        texts = [text for text in await self._bus.texts(self._conversation_id) if text.seq > self._messages]
        if not texts or await self._database.fetchval(SPEAKS, texts[0].run_id, texts[0].fence):
            return texts
        return []

    def _take(self, event: StoredEvent) -> list[ServerEvent]:
        self._last = event.seq
        self._messages = max(self._messages, event.fields.get("message_seq") or 0)
        if self._run_id is None:
            return [ServerEvent(event.type, event.data, event.seq)]
        if event.run_id != self._run_id:
            return []
        self.ended = event.is_terminal
        return [ServerEvent(event.type, event.data, event.seq)]

    async def _take_text(self, delta: Delta) -> list[ServerEvent]:
        """A live delta; when some before it were lost, the whole text so far instead."""
        sent = self._sent.get((delta.seq, delta.part, delta.fence), 0)
        if delta.whole or delta.offset <= sent:
            return self._pass_on(delta)
        return [event for text in await self._texts() for event in self._pass_on(text)]

    def _pass_on(self, delta: Delta) -> list[ServerEvent]:
        """A delta, unless it was sent before as part of a snapshot, or its message has ended."""
        if (self._run_id and delta.run_id != self._run_id) or delta.seq <= self._messages:
            return []
        place = (delta.seq, delta.part, delta.fence)
        sent, end = self._sent.get(place, 0), delta.offset + len(delta.text)
        if end <= sent:
            return []
        self._sent[place] = end
        return [ServerEvent(delta.event, delta.data)]


# Where the log ends, and the number before the run's first event; 0 without a run.
BOUNDS = """
select event_seq, (select coalesce(min(seq), 1) - 1 from events where run_id = $2) as before_run
from heads where conversation_id = $1
"""


async def follow(
    bus: Bus, database: Database, conversation_id: UUID, *, after: int | None, run_id: UUID | None = None
) -> AsyncGenerator[ServerEvent]:
    """Every event after a number, stored or live, each once.

    Args:
        bus: The live bus of this process.
        database: Where the log is.
        conversation_id: Whose events.
        after: The last number the reader has; None reads from the stream's first. A number above the
            conversation's head gets `stream.reset` and then everything.
        run_id: Only this run's events; the stream then ends after its terminal one.
    """
    bounds = await database.fetchrow(BOUNDS, conversation_id, run_id)
    head, before_run = (bounds["event_seq"], bounds["before_run"]) if bounds else (0, 0)
    if after is not None and after > head:
        yield ServerEvent("stream.reset", {"conversation_id": str(conversation_id), "head": head})
        after = None
    async with bus.subscribe(conversation_id) as inbox:
        reader = Reader(bus, database, conversation_id, before_run if after is None else after, run_id)
        async for event in reader.events(inbox):
            yield event
