"""Plausible values of any JSON schema, for answers that must have a shape."""

import re
from collections.abc import Callable
from typing import Any, cast

Schema = dict[str, Any]

_MAX_DEPTH = 8

_FORMATS = {
    "date": "2030-01-31",
    "date-time": "2030-01-31T09:00:00Z",
    "time": "09:00:00Z",
    "duration": "PT1H",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}

_SHORT = frozenset({"title", "name", "topic", "subject", "label", "headline"})
_ASKED = re.compile(r"^(?:what|who|which)(?:'s|\s+(?:is|are|was|were))\s+", re.IGNORECASE)
_QUESTIONS = (
    "What is known about {topic}?",
    "What are the main facts about {topic}?",
    "Which views are there on {topic}?",
    "What is not known about {topic}?",
    "What comes next for {topic}?",
)


def fill(schema: Schema, topic: str, text: str) -> object:
    """A value of this schema.

    Args:
        schema: The JSON schema, with its `$defs`.
        topic: A few words for names, titles and questions.
        text: A sentence or more for everything else that is text.
    """
    return _Filler(schema.get("$defs", schema.get("definitions", {})), topic, text).value(schema, "", 0)


class _Filler:
    def __init__(self, definitions: dict[str, Schema], topic: str, text: str) -> None:
        self._definitions = definitions
        self._topic = topic
        self._text = text
        self._numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        self._makers: dict[str, Callable[[Schema, str, int], object]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._number,
            "number": self._number,
            "boolean": lambda schema, name, depth: True,
            "null": lambda schema, name, depth: None,
        }

    def value(self, schema: Schema, name: str, depth: int) -> object:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        return self._makers[_type_of(schema, depth)](schema, name, depth)

    def _resolved(self, schema: Schema) -> Schema:
        """The schema behind references and choices; what may be null is not."""
        for _ in range(_MAX_DEPTH):
            if "$ref" in schema:
                schema = self._definitions.get(schema["$ref"].rpartition("/")[2], {})
            elif choices := schema.get("anyOf") or schema.get("oneOf"):
                schema = next((each for each in choices if each.get("type") != "null"), choices[0])
            elif parts := schema.get("allOf"):
                schema = _merged([self._resolved(part) for part in parts])
        return schema

    def _object(self, schema: Schema, name: str, depth: int) -> dict[str, object]:
        del name
        required = schema.get("required", [])
        properties = schema.get("properties", {}).items()
        return {key: self.value(each, key, depth + 1) for key, each in properties if key in required or depth < 3}

    def _array(self, schema: Schema, name: str, depth: int) -> list[object]:
        items = schema.get("items", {})
        if "question" in name.lower() and _type_of(self._resolved(items), depth) == "string":
            return [self._question(each) for each in _QUESTIONS[: _count(schema, 3)]]
        return [self.value(items, name, depth + 1) for _ in range(_count(schema, 1))]

    def _string(self, schema: Schema, name: str, depth: int) -> str:
        del depth
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if "question" in name.lower():
            text = self._question(_QUESTIONS[0])
        else:
            text = self._topic if name.lower() in _SHORT else self._text
        return text[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")

    def _question(self, form: str) -> str:
        """A question about the topic, which may be a question itself."""
        return form.format(topic=_ASKED.sub("", self._topic).rstrip(" ?"))

    def _number(self, schema: Schema, name: str, depth: int) -> int | float:
        del name, depth
        value = float(self._numbers[-1]) if self._numbers else 1.0
        step = schema.get("multipleOf", 1 if schema.get("type") == "integer" else 0)
        low, high = _bounds(schema, step or 0.5)
        value = min(max(value, low), high)
        if step:
            value = value // step * step
            value = value if value >= low else value + step
        return int(value) if schema.get("type") == "integer" else value


def _type_of(schema: Schema, depth: int) -> str:
    kinds: Any = schema.get("type")
    if isinstance(kinds, list):
        kinds = next((kind for kind in cast("list[str]", kinds) if kind != "null"), "null")
    if kinds is None:
        kinds = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return "null" if depth > _MAX_DEPTH else str(kinds)


def _merged(parts: list[Schema]) -> Schema:
    merged: Schema = {}
    for part in parts:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged |= part | ({"properties": properties, "required": required} if properties else {})
    return merged


def _count(schema: Schema, wanted: int) -> int:
    return min(max(wanted, schema.get("minItems", 0)), schema.get("maxItems", wanted + schema.get("minItems", 0)))


def _bounds(schema: Schema, step: float) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", float("-inf")))
    high = schema.get("maximum", schema.get("exclusiveMaximum", float("inf")))
    if "minimum" not in schema and "exclusiveMinimum" in schema:
        low += step
    if "maximum" not in schema and "exclusiveMaximum" in schema:
        high -= step
    return low, high
