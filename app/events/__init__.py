"""Events: the permanent log in PostgreSQL, the live bus over Redis, and the reader that joins both."""

from app.events.bus import Bus, Delta, Inbox
from app.events.follow import BOUNDS, Bounds, ServerEvent, bursts, follow
from app.events.log import (
    EPHEMERAL,
    TERMINAL,
    EventType,
    NewEvent,
    StoredEvent,
    append,
    dump_data,
    replay,
    rows_of,
    stored,
)

__all__ = [
    "BOUNDS",
    "EPHEMERAL",
    "TERMINAL",
    "Bounds",
    "Bus",
    "Delta",
    "EventType",
    "Inbox",
    "NewEvent",
    "ServerEvent",
    "StoredEvent",
    "append",
    "bursts",
    "dump_data",
    "follow",
    "replay",
    "rows_of",
    "stored",
]
