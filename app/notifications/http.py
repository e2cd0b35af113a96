"""Calls to other systems, and what their answers mean for a delivery: the same for every channel that calls a URL."""

from collections.abc import Mapping
from typing import Any

import httpx

from app.egress import Egress, Response
from app.errors import DeliveryFailed, DeliveryRefused, EgressFailed, EgressRefused, ResponseTooLarge
from app.notifications.text import one_line

TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 500_000
RETRYABLE_STATUSES = frozenset({408, 425, 429})


async def post(
    egress: Egress,
    url: str,
    who: str,
    *,
    json: Any = None,
    content: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    operator_url: bool = False,
) -> Response:
    """Hand something over by a POST; `who` answers it, in words.

    Raises:
        DeliveryFailed: it may work later, and not before `Retry-After`.
        DeliveryRefused: it never will.
    """
    try:
        response = await egress.fetch(
            "POST",
            url,
            json=json,
            content=content,
            headers=headers,
            timeout_seconds=TIMEOUT_SECONDS,
            max_bytes=MAX_ANSWER_BYTES,
            operator_url=operator_url,
        )
    except EgressRefused as error:
        raise DeliveryRefused(error.detail) from error
    except EgressFailed as error:
        raise DeliveryFailed(error.detail) from error
    except ResponseTooLarge as error:
        # What it said is of no use, but whether it took the call is.
        response = Response(error.extra["answered"], httpx.Headers(), b"", url)
    _judge(response, who)
    return response


def _judge(response: Response, who: str) -> None:
    status = response.status
    if 200 <= status < 300:
        return
    said = f"{who} answered {status} {one_line(response.text, 200)}".rstrip()
    if status in RETRYABLE_STATUSES or status >= 500:
        raise DeliveryFailed(said, retry_after=response.retry_after)
    raise DeliveryRefused(said)
