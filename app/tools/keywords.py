"""The keywords of JSON schemas, each counting its work: no schema and no value can hold the process for long."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, cast

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from app.tools.patterns import pattern_of

Json = dict[str, Any]

# What one check may cost, in tenths of a microsecond or thereabouts: half a second, some 60,000 simple values.
MAX_EFFORT = 5_000_000
KEYWORD, REFERENCE, ERROR = 50, 200, 300
ENTRY = 5  # One of a list in the schema, such as `enum`.
ITEM = 25  # One item or member of the value, where a keyword goes through them.
CHARACTERS = 8  # So many in an error cost one.
PROGRAM = 64  # So many instructions of a pattern make a character cost one more.
THROUGH = frozenset(
    {"items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"}
    | {"uniqueItems"}
)

_left: ContextVar[list[int]] = ContextVar("left of the effort")


class TooMuch(Exception):
    """Raised when a check would take too long."""


def begin() -> None:
    """Give the check that follows all of its effort."""
    _left.set([MAX_EFFORT])


def _spend(effort: int) -> None:
    left = _left.get()
    left[0] -= effort
    if left[0] < 0:
        raise TooMuch("it takes too long to hold against the schema")


def _counted(name: str, keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """A keyword whose work counts: of schemas that fork at every level, and of wide ones over long lists."""
    least = REFERENCE if name in ("$ref", "$dynamicRef") else KEYWORD
    through = ITEM if name in THROUGH else 0

    def checked(validator: Any, word: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(least + ENTRY * _length(word) + through * _length(value))
        for error in keyword(validator, word, value, schema) or ():
            _spend(ERROR + len(error.message) // CHARACTERS)
            yield error

    return checked


def _length(value: Any) -> int:
    return len(cast("Json", value)) if isinstance(value, list | dict) else 0


def _found(pattern: str, text: str) -> bool:
    compiled = pattern_of(pattern)
    _spend(KEYWORD + len(text) * (1 + compiled.size // PROGRAM))
    return compiled.found_in(text)


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _found(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Json, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, schema in patterns.items():
            for name, each in cast("Json", value).items():
                if _found(pattern, name):
                    yield from validator.descend(each, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, value: Any, schema: Json) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    given = cast("Json", value)
    others = (name for name in given if name not in known)
    extras = {name: given[name] for name in others if not any(_found(pattern, name) for pattern in patterns)}
    # What is left over is what the library would find, had it asked the same engine.
    yield from STANDARD["additionalProperties"](validator, rest, extras, {})


def _unique_items(_validator: Any, unique: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if unique and isinstance(value, list):
        items = cast("list[Any]", value)
        if len({_hashable(each) for each in items}) < len(items):
            yield ValidationError(f"{value!r} has non-unique elements")


def _hashable(value: Any) -> Any:
    """A JSON value in a form in which equal ones are equal, and true is not 1."""
    if isinstance(value, dict):
        return "object", frozenset((name, _hashable(each)) for name, each in cast("Json", value).items())
    if isinstance(value, list):
        return "array", tuple(_hashable(each) for each in cast("list[Any]", value))
    return (type(value), value) if isinstance(value, bool) else value


STANDARD: Json = dict(cast("Any", Draft202012Validator).VALIDATORS)
OWN: Json = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
CountingValidator: Any = cast("Any", validators).extend(
    Draft202012Validator, {word: _counted(word, keyword) for word, keyword in (STANDARD | OWN).items()}
)
