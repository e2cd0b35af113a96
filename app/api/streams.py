"""Server-sent events: readers of the log. A request never owns an executor; closing one stops nothing."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse

from app.api.pages import Page
from app.errors import DatabaseUnavailable, InvalidCursor
from app.events import Bounds, ServerEvent, bursts, dump_data, replay
from app.executor import Engine
from app.messages import Json

log = structlog.stdlib.get_logger(__name__)

HEARTBEAT_SECONDS = 15
SEND_SECONDS = 30.0  # A reader that takes nothing for this long is let go; it resumes from its cursor.

# One event of a stream, as FastAPI describes its own streams.
STREAM = {
    "itemSchema": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The event's number; what is not kept has none."},
            "event": {"type": "string", "description": "The event's name, such as `run.completed`."},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": {"type": "object"}},
        },
        "required": ["event", "data"],
    }
}


class EventOut(BaseModel):
    """A stored event."""

    seq: int = Field(description="Its number in the conversation.")
    event: str = Field(description="Its name.", examples=["run.completed"])
    data: Json


class EventPage(Page[EventOut]):
    """A page of events, oldest first; `next_cursor` is the last number when there may be more: send it as `after`."""


STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: `id` is the conversation's event number, `event` its name, `data` a JSON object. With "
        "`Accept: application/json` a page of them instead.",
        "content": {"text/event-stream": STREAM},
        "model": EventPage,
    },
    204: {"description": "The run has ended and every event of it was read."},
}


def cursor_of(last_event_id: str | None, after: str | None) -> int | None:
    """The number to resume after; None reads from the first.

    Raises:
        InvalidCursor: when it is not a non-negative integer.
    """
    raw = last_event_id if last_event_id is not None else after
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 18):
        raise InvalidCursor("the position must be the number of an event", field="after")
    return int(raw)


@dataclass(frozen=True)
class Wanted:
    """Which events a request wants, and how.

    Attributes:
        after: Those after this number; None for all.
        limit: How many, of a page.
        as_page: A JSON page and not a stream.
    """

    after: int | None
    limit: int
    as_page: bool


async def _wanted(
    request: Request,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", description="The last event's number.")] = None,
    after: Annotated[
        str | None, Query(description="Resume after this event number; `Last-Event-ID` goes first.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events of one JSON page.")] = 100,
) -> Wanted:
    accept = request.headers.get("accept", "")
    as_page = "application/json" in accept and "text/event-stream" not in accept
    return Wanted(cursor_of(last_event_id, after), limit, as_page)


Events = Annotated[Wanted, Depends(_wanted)]


def sse(
    engine: Engine,
    conversation_id: UUID,
    *,
    after: int | None,
    run_id: UUID | None = None,
    bounds: Bounds | None = None,
) -> Response:
    """A stream of the conversation's events, or of one run's alone."""
    here = run_id in engine.running
    events = bursts(engine.bus, engine.database, conversation_id, after=after, run_id=run_id, bounds=bounds, here=here)
    return EventSourceResponse(
        _lines(events, conversation_id),
        ping=HEARTBEAT_SECONDS,
        send_timeout=SEND_SECONDS,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        sep="\n",
    )


async def _lines(events: AsyncGenerator[list[ServerEvent]], conversation_id: UUID) -> AsyncGenerator[bytes]:
    """The stream as bytes; without PostgreSQL it ends, and its reader comes back with its cursor."""
    try:
        async with aclosing(events):
            async for burst in events:
                yield "".join(map(_line, burst)).encode()
    except DatabaseUnavailable as error:
        log.warning("stream.cut", conversation_id=str(conversation_id), detail=error.detail)


def _line(event: ServerEvent) -> str:
    number = "" if event.id is None else f"id: {event.id}\n"
    return f"{number}event: {event.event}\ndata: {dump_data(event.data)}\n\n"


async def event_page(
    engine: Engine, conversation_id: UUID, *, after: int | None, limit: int, run_id: UUID | None = None
) -> EventPage:
    """A page of stored events."""
    events = await replay(engine.database, conversation_id, after or 0, limit=limit, run_id=run_id)
    items = [EventOut(seq=event.seq, event=str(event.type), data=event.data) for event in events]
    return EventPage(items=items, next_cursor=str(events[-1].seq) if len(events) == limit else None)
