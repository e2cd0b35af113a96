"""`{name}` placeholders in URLs, headers, queries and bodies of HTTP tools."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, unquote

from app.errors import InvalidArguments

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Missing:
    """Stands for an optional argument that was not given: what consists of it alone is left out."""


MISSING = Missing()


def names_in(template: Any) -> set[str]:
    """The placeholders anywhere in a template."""
    if isinstance(template, str):
        return set(PLACEHOLDER.findall(template))
    if isinstance(template, dict):
        return set[str]().union(*(names_in(each) for each in cast("dict[str, Any]", template).values()))
    if isinstance(template, list):
        return set[str]().union(*(names_in(each) for each in cast("list[Any]", template)))
    return set()


def filled(template: Any, arguments: Mapping[str, Any]) -> Any:
    """A template with its arguments: a string that is one placeholder keeps the argument's type."""
    if isinstance(template, str):
        if whole := PLACEHOLDER.fullmatch(template):
            return arguments.get(whole[1], MISSING)
        return PLACEHOLDER.sub(lambda found: as_text(arguments.get(found[1], "")), template)
    if isinstance(template, dict):
        members = {name: filled(each, arguments) for name, each in cast("dict[str, Any]", template).items()}
        return {name: value for name, value in members.items() if value is not MISSING}
    if isinstance(template, list):
        return [value for each in cast("list[Any]", template) if (value := filled(each, arguments)) is not MISSING]
    return template


def filled_url(template: str, arguments: Mapping[str, Any]) -> str:
    """A URL with its arguments, each confined to its place: it can't end a segment or begin a query.

    Raises:
        InvalidArguments: when one is missing, empty or would lead to another path.
    """
    path, mark, query = template.partition("?")
    segments = [_segment(each, arguments) for each in path.split("/")]
    return "/".join(segments) + mark + PLACEHOLDER.sub(lambda found: _quoted(found, arguments), query)


def _segment(template: str, arguments: Mapping[str, Any]) -> str:
    """One segment of a path. A service may take what is escaped here apart again: it must not lead up, either."""
    text = PLACEHOLDER.sub(lambda found: _quoted(found, arguments), template)
    first = PLACEHOLDER.search(template)
    if first and any(step in (".", "..") for step in re.split(r"[/\\]", unquote(text))):
        raise InvalidArguments(f"{first[1]}: {unquote(text)!r} can't stand in a URL", field=first[1])
    return text


def _quoted(found: re.Match[str], arguments: Mapping[str, Any]) -> str:
    text = as_text(arguments.get(found[1], ""))
    if not text:
        raise InvalidArguments(f"{found[1]}: {text!r} can't stand in a URL", field=found[1])
    return quote(text, safe="")


def filled_headers(template: Mapping[str, str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Headers with their arguments.

    Raises:
        InvalidArguments: when one would begin another header, or can't be sent in one.
    """
    headers: dict[str, str] = {}
    for name, value in filled(dict(template), arguments).items():
        text = as_text(value).strip()
        if CONTROL.search(text):
            raise InvalidArguments(f"a control character can't stand in the header {name}")
        if other := next((each for each in text if not each.isascii()), None):
            raise InvalidArguments(f"only ASCII can stand in the header {name}, and {other!r} is none of it")
        headers[name] = text
    return headers


def as_text(value: Any) -> str:
    """An argument as it stands inside a text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
