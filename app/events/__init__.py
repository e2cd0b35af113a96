"""Events: the permanent log in PostgreSQL, the live bus over Redis, and the reader that joins both."""

from app.events.bus import Bus, Delta, Inbox
from app.events.follow import ServerEvent, follow
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
    "EPHEMERAL",
    "TERMINAL",
    "Bus",
    "Delta",
    "EventType",
    "Inbox",
    "NewEvent",
    "ServerEvent",
    "StoredEvent",
    "append",
    "dump_data",
    "follow",
    "replay",
    "rows_of",
    "stored",
]
