"""The reader of a stream: the stored log first, then live, each event once."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID

from app.db import Database
from app.events.bus import Bus, Inbox
from app.events.live import Delta
from app.events.log import TERMINAL, EventType, StoredEvent, replay
from app.messages import Json

PAGE = 500
# After these events their run makes no message.
SILENT = TERMINAL | {EventType.RUN_WAITING, EventType.RUN_RETRYING, EventType.RUN_RECOVERED}
UNKNOWN = UUID(int=0)
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
        # The run that may be making a message; which one was at it before the cursor is not known.
        self._speaking: UUID | None = UNKNOWN if after > 0 else None
        self.ended = False

    async def bursts(self, inbox: Inbox) -> AsyncGenerator[list[ServerEvent]]:
        """Replay, snapshot, then live; ends after the terminal event of a run's stream."""
        async for burst in self._catch_up():
            yield burst
        while not self.ended:
            burst = list[ServerEvent]()
            for item in await inbox.take():
                if isinstance(item, Delta):
                    burst += await self._take_text(item)
                elif item is not None and item.seq == self._last + 1:
                    burst += self._take(item)
                elif item is None or item.seq > self._last:
                    async for caught_up in self._catch_up():
                        yield [*burst, *caught_up]
                        burst = []
                if self.ended:
                    break
            if burst:
                yield burst

    async def _catch_up(self) -> AsyncGenerator[list[ServerEvent]]:
        while not self.ended:
            page = await replay(self._database, self._conversation_id, self._last, limit=PAGE)
            burst = [sent for event in page if not self.ended for sent in self._take(event)]
            if burst:
                yield burst
            if len(page) < PAGE:
                break
        if not self.ended and self._speaking:
            texts = [sent for text in await self._texts() for sent in self._pass_on(text)]
            if texts:
                yield texts

    async def _texts(self) -> list[Delta]:
        """The text of a message in the making; what a dead process left behind in Redis is none."""
        texts = [text for text in await self._bus.texts(self._conversation_id) if text.seq > self._messages]
        if not texts or await self._database.fetchval(SPEAKS, texts[0].run_id, texts[0].fence):
            return texts
        return []

    def _take(self, event: StoredEvent) -> list[ServerEvent]:
        self._last = event.seq
        if event.type is EventType.RUN_STARTED:
            self._speaking = event.run_id
        elif event.type in SILENT and self._speaking == event.run_id:
            self._speaking = None
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


@dataclass(frozen=True)
class Bounds:
    """Where a conversation's log ends, and the number before a run's first event; 0 without a run."""

    head: int = 0
    before_run: int = 0


# The columns of the bounds, for a conversation's head `h` and the run `$1`.
BOUNDS = "h.event_seq, (select coalesce(min(seq), 1) - 1 from events where run_id = $1) as before_run"
FIND_BOUNDS = f"select {BOUNDS} from heads h where h.conversation_id = $2"


async def follow(
    bus: Bus,
    database: Database,
    conversation_id: UUID,
    *,
    after: int | None,
    run_id: UUID | None = None,
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
    async for burst in bursts(bus, database, conversation_id, after=after, run_id=run_id):
        for event in burst:
            yield event


async def bursts(
    bus: Bus,
    database: Database,
    conversation_id: UUID,
    *,
    after: int | None,
    run_id: UUID | None = None,
    bounds: Bounds | None = None,
    here: bool = False,
) -> AsyncGenerator[list[ServerEvent]]:
    """As `follow`, but what is there together comes together.

    Args:
        bus: The live bus of this process.
        database: Where the log is.
        conversation_id: Whose events.
        after: The last number the reader has, as for `follow`.
        run_id: Only this run's events.
        bounds: Of the log, where the caller knows them.
        here: Whether this process executes what is followed.
    """
    if bounds is None:
        row = await database.fetchrow(FIND_BOUNDS, run_id, conversation_id)
        bounds = Bounds(row["event_seq"], row["before_run"]) if row else Bounds()
    if after is not None and after > bounds.head:
        yield [ServerEvent("stream.reset", {"conversation_id": str(conversation_id), "head": bounds.head})]
        after = None
    async with bus.subscribe(conversation_id, here=here) as inbox:
        reader = Reader(bus, database, conversation_id, bounds.before_run if after is None else after, run_id)
        async for burst in reader.bursts(inbox):
            yield burst
