"""Takes secrets out of what others will read: those that a call used, and those that this process knows.

A process knows what it was set up with, and what it has sealed or opened; of these the log shows none. What a workspace
gets to see is cleaned of its own alone: else it could guess at others' by looking what is blanked out.
"""

import base64
import html
import json
import re
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
    """Each secret as it may stand in a text: as it is, in a URL, in JSON, HTML, base64 or hex; the longest first."""
    found = {text for secret in secrets if len(secret) >= SHORTEST for text in _spelled(secret)}
    return sorted(found, key=len, reverse=True)


def _spelled(secret: str) -> Iterator[str]:
    yield secret
    for url in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield from (url, re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), url))
    for once in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield from (once, once.replace("/", "\\/"), json.dumps(once)[1:-1])
    marked = html.escape(secret)  # Quotation marks are written in three ways.
    yield from (html.escape(secret, quote=False), marked)
    yield from (marked.replace("&#x27;", "&#39;"), marked.replace("&#x27;", "&#39;").replace("&quot;", "&#34;"))
    yield from (secret.encode().hex(), secret.encode().hex().upper())
    for encoded in _in_base64(secret.encode()):
        yield from (encoded, encoded.replace("+", "-").replace("/", "_"))


def _in_base64(secret: bytes) -> Iterator[str]:
    """In base64, alone and behind other text such as a user's name: what no neighbour has a part in."""
    yield base64.b64encode(secret).decode().rstrip("=")
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret).decode()
        inner = encoded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        if len(inner) >= SHORTEST_KNOWN:
            yield inner


def redact(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value without any of these secrets, in keys as in values; bytes are taken as a file's content."""
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
    if isinstance(value, bytes):
        for secret in secrets:
            value = value.replace(secret.encode(), MASK.encode())
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
