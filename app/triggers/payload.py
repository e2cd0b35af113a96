"""What a verified webhook call is about: its delivery id, and values in its payload."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from app.db import dump_json
from app.messages import Json
from app.paths import values_at
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
# Senders of known ways have their ids in one place, and nothing else of their calls counts: what a signature leaves out
# anybody may change.
ID_HEADERS = {"standard": ("webhook-id", "svix-id"), "github": ("x-github-delivery",)}
ID_MEMBERS = {"stripe": "id", "slack": "event_id"}
LONGEST_KEY = 200
# About 25,000 tokens: what an agent can read and still think about.
MOST_CHARACTERS = 100_000


def receipt_key(call: Call, payload: Any, config: Mapping[str, Any]) -> str | None:
    """What makes two calls the same; None when nothing does."""
    if config["dedup"] == "body":
        return f"sha256:{hashlib.sha256(call.body).hexdigest()}"
    verifier = config["verifier"]
    if verifier in ID_MEMBERS:
        return _member_key(payload, ID_MEMBERS[verifier])
    if verifier in ID_HEADERS:
        # Under one name: a captured call is no other one when its headers are renamed.
        first, *_ = names = ID_HEADERS[verifier]
        return next((f"{first}:{_short(call.headers[name])}" for name in names if call.headers.get(name)), None)
    return next((f"{name}:{_short(call.headers[name])}" for name in DELIVERY_HEADERS if call.headers.get(name)), None)


def _member_key(payload: Any, name: str) -> str | None:
    value = cast("Json", payload).get(name) if isinstance(payload, dict) else None
    return f"{name}:{_short(value)}" if isinstance(value, str) and value else None


def passes(wanted: Mapping[str, Any] | None, payload: Any) -> bool:
    """Whether the payload holds what a filter wants, at one place at least; without a filter everything passes."""
    if wanted is None:
        return True
    equals = wanted["equals"]
    # JSON's true is not its 1.
    return any(
        found == equals and isinstance(found, bool) == isinstance(equals, bool)
        for found in values_at(wanted["path"], payload)
    )


def correlation_of(path: str | None, payload: Any) -> str | None:
    """The key of the conversation the call belongs to; None when it begins one of its own."""
    found = next((each for each in values_at(path, payload) if each is not None), None) if path else None
    if found is None:
        return None
    return _short(found if isinstance(found, str) else json.dumps(found, sort_keys=True, separators=(",", ":")))


def challenge_of(config: Mapping[str, Any], payload: Any) -> str | None:
    """What Slack wants to read again when it is given the URL of a webhook."""
    if config["verifier"] != "slack" or not isinstance(payload, dict):
        return None
    asked = cast("Json", payload)
    challenge = asked.get("challenge") if asked.get("type") == "url_verification" else None
    return challenge if isinstance(challenge, str) else None


def told(payload: Any) -> Any:
    """The payload as the model gets it: whole, or the beginning of its text when it is too long."""
    text = dump_json(payload)
    if len(text) <= MOST_CHARACTERS:
        return payload
    return {
        "beginning": text[:MOST_CHARACTERS],
        "characters": len(text),
        "note": "Too long: only the beginning is here.",
    }


def _short(text: str) -> str:
    if len(text) <= LONGEST_KEY and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"
