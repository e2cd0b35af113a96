"""What a webhook call is about: its delivery id, and values in its payload."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast

from app.messages import Json
from app.triggers.verify import Call

# Where senders put the id of a delivery, the most specific first.
DELIVERY_HEADERS = (
    "webhook-id",
    "svix-id",
    "x-github-delivery",
    "x-gitlab-event-uuid",
    "x-shopify-webhook-id",
    "x-delivery-id",
    "x-event-id",
    "idempotency-key",
)
STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]|\['([^']*)'\]")
LONGEST_KEY = 200
NOTHING = object()


def receipt_key(call: Call, *, dedup: str) -> str | None:
    """What makes two calls the same; None when nothing does."""
    if dedup == "body":
        return f"sha256:{hashlib.sha256(call.body).hexdigest()}"
    for header in DELIVERY_HEADERS:
        if value := call.headers.get(header):
            return f"{header}:{_short(value)}"
    return None


def passes(wanted: Mapping[str, Any] | None, payload: Any) -> bool:
    """Whether the payload holds what a filter wants; without a filter everything passes."""
    if wanted is None:
        return True
    found, equals = value_at(wanted["path"], payload), wanted["equals"]
    # JSON's true is not its 1.
    return found == equals and isinstance(found, bool) == isinstance(equals, bool)


def correlation_of(path: str | None, payload: Any) -> str | None:
    """The key of the conversation the call belongs to; None when it begins one of its own."""
    found = value_at(path, payload) if path else NOTHING
    if found is NOTHING or found is None:
        return None
    return _short(found if isinstance(found, str) else json.dumps(found, sort_keys=True, separators=(",", ":")))


def value_at(path: str, payload: Any) -> Any:
    """The value at a path such as `$.pull_request.number`; `NOTHING` where there is none."""
    value = payload
    for name, index, quoted in STEP.findall(path):
        value = _item(value, int(index)) if index else _member(value, name or quoted)
    return value


def _item(value: Any, index: int) -> Any:
    if not isinstance(value, list):
        return NOTHING
    items = cast("list[Any]", value)
    return items[index] if index < len(items) else NOTHING


def _member(value: Any, name: str) -> Any:
    return cast("Json", value).get(name, NOTHING) if isinstance(value, dict) else NOTHING


def _short(text: str) -> str:
    if len(text) <= LONGEST_KEY and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"
