"""Results of sandboxed code as JSON: total, and bounded in depth and size.

A worker answers with Python values of any shape: sets, bytes, tuple keys, NaN, numbers of a million
digits, lists nested a hundred thousand deep. Whatever comes, this gives JSON or `ResultTooLarge`.
"""

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, cast

from pydantic_monty import MontyClassProxy

MAX_DEPTH = 64
MAX_INTEGER_BITS = 64
MAX_DECIMAL_BITS = 12_000  # Python refuses to print integers of more than 4,300 digits
MAX_OTHER_CHARACTERS = 1_000


class ResultTooLarge(ValueError):
    """The result is nested too deeply or longer than its limit."""


def to_json(value: Any, max_bytes: int) -> Any:
    """A result as a value that JSON can hold.

    Args:
        value: Anything a worker answered.
        max_bytes: The longest JSON accepted, about.

    Raises:
        ResultTooLarge: saying which bound it breaks.
    """
    return _Converter(max_bytes).convert(value, 0)


class _Converter:
    """One conversion and what is left of its budget."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def convert(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ResultTooLarge(f"the result is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, MontyClassProxy):
            value = value.attributes
        if isinstance(value, Mapping):
            return self._mapping(cast(Mapping[Any, Any], value), depth)
        if isinstance(value, list | tuple):
            return self._sequence(cast(Iterable[Any], value), depth)
        if isinstance(value, set | frozenset):
            return self._sequence(_sorted(cast(Iterable[Any], value)), depth)
        return self._scalar(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        self._spend(2)
        return {self._key(key, depth): self.convert(item, depth + 1) for key, item in value.items()}

    def _sequence(self, value: Iterable[Any], depth: int) -> list[Any]:
        self._spend(2)
        return [self.convert(item, depth + 1) for item in value]

    def _key(self, key: Any, depth: int) -> str:
        if isinstance(key, str):
            return self._text(key)
        converted = self.convert(key, depth + 1)
        return converted if isinstance(converted, str) else json.dumps(converted)

    def _scalar(self, value: Any) -> Any:
        simple = scalar(value)
        if isinstance(simple, str):
            return self._text(simple)
        self._spend(len(str(simple)) + 1)
        return simple

    def _text(self, text: str) -> str:
        self._spend(len(text.encode("utf-8", "replace")) + 3)
        return text

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ResultTooLarge(f"the result is longer than {self._max_bytes} bytes")


def scalar(value: Any) -> str | int | float | bool | None:
    """A value without parts as JSON; what JSON has no word for becomes text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)[:MAX_OTHER_CHARACTERS]


def _integer(value: int) -> int | str:
    """An integer that every JSON reader can hold, else its digits as text."""
    if value.bit_length() < MAX_INTEGER_BITS:
        return value
    return str(value) if value.bit_length() <= MAX_DECIMAL_BITS else hex(value)


def _sorted(values: Iterable[Any]) -> list[Any]:
    """The members of a set in an order that does not change from run to run, where they have one."""
    members = list(values)
    try:
        return sorted(members)
    except TypeError:
        return members
