"""What an HTTP answer means for a delivery, the same for every channel that calls a URL."""

from app.egress import Response
from app.errors import DeliveryFailed, DeliveryRefused
from app.notifications.channel import SendResult
from app.notifications.text import one_line

RETRYABLE_STATUSES = frozenset({408, 425, 429})


def judge(response: Response, who: str) -> SendResult:
    """What an HTTP answer means for a delivery.

    Raises:
        DeliveryFailed: it may work later, and not before `Retry-After`.
        DeliveryRefused: it never will.
    """
    status = response.status
    if 200 <= status < 300:
        return SendResult()
    said = f"{who} answered {status} {one_line(response.text, 200)}".rstrip()
    if status in RETRYABLE_STATUSES or status >= 500:
        raise DeliveryFailed(said, retry_after=retry_after(response))
    raise DeliveryRefused(said)


def retry_after(response: Response) -> float | None:
    """The seconds of a `Retry-After`; a date in it is left to our own backoff."""
    value = response.headers.get("retry-after", "").strip()
    return float(value) if value.isascii() and value.isdigit() else None
