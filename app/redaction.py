"""Takes secrets out of what others will read: those that a call used, and those that this process knows.

A process knows what it was set up with, and what it has sealed or opened; of these the log shows none. What a workspace
gets to see is cleaned of its own alone: else it could guess at others' by looking what is blanked out.
"""

import base64
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, cast
from urllib.parse import quote, quote_plus
from uuid import UUID

MASK = "****"
SHORTEST = 4  # Anything shorter stands in half of all texts by chance.
SHORTEST_KNOWN = 8  # The same of what is taken out of every text there is.
MOST_KNOWN = 1000  # Those used last; looking for more in every line of the log takes too long.

_OPERATOR = ""  # In the place of a workspace.
_known: OrderedDict[tuple[str, str], list[str]] = OrderedDict()
_sorted: dict[str | None, list[str]] = {}
_lock = threading.Lock()  # Every thread writes log lines.


def spellings(secrets: Iterable[str]) -> list[str]:
    """Each secret as it may stand in a text: as it is, in a URL, in JSON, in base64; the longest first."""
    found: set[str] = set()
    for secret in secrets:
        if len(secret) >= SHORTEST:
            once = json.dumps(secret)[1:-1]
            # Without the padding, which some leave away.
            encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
            found |= {secret, quote(secret, safe=""), quote_plus(secret), once, json.dumps(once)[1:-1], encoded}
            found.add(encoded.replace("+", "-").replace("/", "_"))
    return sorted(found, key=len, reverse=True)


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value without any of these secrets, in keys as in values."""
    return _without(value, spellings(secrets))


def remember(secrets: Any, workspace: UUID | str = _OPERATOR) -> None:
    """Know the texts of a JSON value as secrets of a workspace; of the operator when none is named."""
    with _lock:
        for secret in _texts(secrets):
            place = str(workspace), secret
            if place in _known:
                _known.move_to_end(place)
            elif len(secret) >= SHORTEST_KNOWN:
                _known[place] = spellings([secret])
                _sorted.clear()
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)


def without_known(value: Any, workspace: UUID | None = None) -> Any:
    """A JSON value without the secrets known of a workspace; without all that are known when none is named."""
    whose = None if workspace is None else str(workspace)
    with _lock:
        if whose not in _sorted:
            texts = [text for (owner, _), each in _known.items() if whose in (None, owner) for text in each]
            _sorted[whose] = sorted(texts, key=len, reverse=True)
        found = _sorted[whose]
    return _without(value, found)


def _without(value: Any, secrets: list[str]) -> Any:
    if not secrets:
        return value
    if isinstance(value, str):
        for secret in secrets:
            if secret in value:
                value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        members = cast("dict[Any, Any]", value).items()
        return {_without(key, secrets): _without(each, secrets) for key, each in members}
    if isinstance(value, list):
        return [_without(each, secrets) for each in cast("list[Any]", value)]
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from _texts(each)
