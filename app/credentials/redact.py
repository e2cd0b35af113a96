"""Takes secrets out of what others will read."""

import base64
import json
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import quote, quote_plus

from app.credentials.box import MASK

SHORTEST = 4  # Anything shorter stands in half of all texts by chance.


def spellings(secrets: Iterable[str]) -> list[str]:
    """Each secret as it may stand in a text: as it is, in a URL, in JSON, in base64; the longest first."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) >= SHORTEST:
            encoded = base64.b64encode(secret.encode()).decode()
            found |= {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], encoded}
    return sorted(found, key=len, reverse=True)


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value without any of these secrets, in keys as in values."""
    found = spellings(secrets)
    return _redacted(value, found) if found else value


def _redacted(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return {_redacted(key, secrets): _redacted(each, secrets) for key, each in members}
    if isinstance(value, list):
        return [_redacted(each, secrets) for each in cast("list[Any]", value)]
    return value
