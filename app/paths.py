"""Paths into a stranger's JSON: of JSONPath (RFC 9535) the names, the indexes and `*`.

The grammar is the library's. What it offers beyond that, descent (`..`), filters and their regular expressions, is
refused: with it, whoever sends the data would choose how long we look. A look takes no longer than reading the data.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

# A member's name, an item's index, or None: every child.
Step = str | int | None


@lru_cache(maxsize=1000)
def steps_of(path: str) -> tuple[Step, ...]:
    """The steps of a path such as `$.pull_request.number`, `$['odd name'][0]` or `$.labels[*].name`.

    Raises:
        ValueError: when it is no path, or one that is not offered here.
    """
    # Only a task whose webhook has a path pays for the library: with its regular expressions it takes 100 ms to load.
    from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError

    try:
        found = JSONPathEnvironment(strict=True).compile(path)
    except JSONPathError as error:
        raise ValueError("must be a JSONPath such as $.action, $.items[0].id or $['odd name']") from error
    if not isinstance(found, JSONPath):
        raise ValueError("must be one path")
    return tuple(_step(segment) for segment in found.segments)


def values_at(path: str, value: Any) -> list[Any]:
    """What stands at a path: nothing, one value, or with `*` any number of them."""
    found: list[Any] = [value]
    for step in steps_of(path):
        found = [child for each in found for child in _children(each, step)]
    return found


def _step(segment: Any) -> Step:
    from jsonpath.segments import JSONPathChildSegment  # As above.
    from jsonpath.selectors import IndexSelector, NameSelector, WildcardSelector

    (selector, *others) = segment.selectors
    if isinstance(segment, JSONPathChildSegment) and not others:
        if isinstance(selector, NameSelector):
            return selector.name
        if isinstance(selector, IndexSelector):
            return selector.index
        if isinstance(selector, WildcardSelector):
            return None
    raise ValueError("may hold names, indexes and *, such as $.items[0].id or $.labels[*].name, and nothing else")


def _children(value: Any, step: Step) -> Iterable[Any]:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return members.values() if step is None else [members[step]] if step in members else ()
    if not isinstance(value, list) or isinstance(step, str):
        return ()
    items = cast("list[Any]", value)
    return items if step is None else items[step : step + 1 or None]
