"""Server-sent events, and the ways a stream may end."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.responses import StreamingResponse

from tests.provider_server.scripts import Answer

Event = tuple[str | None, dict[str, Any] | str]


class Cut(Exception):
    """The script ends the connection in the middle."""


def stream(events: Iterator[Event], answer: Answer) -> StreamingResponse:
    """Send events one by one; `Cut` in their midst breaks the connection off."""
    return StreamingResponse(_lines(events, answer.pause), media_type="text/event-stream")


async def _lines(events: Iterator[Event], pause: float) -> AsyncIterator[str]:
    for name, data in events:
        if pause:
            await asyncio.sleep(pause)
        text = data if isinstance(data, str) else json.dumps(data)
        yield f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n"
        # A turn of the loop per event, so that a reader sees them arrive apart.
        await asyncio.sleep(0)


def spoken(answer: Answer) -> list[str]:
    """The words that go out before a fault ends the stream; all of them without one."""
    words = answer.words()
    return words[:3] if answer.cut or answer.stream_error else words
