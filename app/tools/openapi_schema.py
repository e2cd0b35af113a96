"""The schemas of OpenAPI documents in the words of JSON Schema, with their references written out."""

from collections.abc import Sequence
from typing import Any, cast

from app.errors import InvalidTool

Json = dict[str, Any]

MAX_NODES = 20_000  # Schemas and values of one operation, references written out.
MAX_ALL_NODES = 300_000  # Of the whole document.
NODE_CHARACTERS = 50  # A text counts as one more for each so many.
MAX_DEPTH = 100
MAX_KEYWORDS = 200  # Of one schema, those that are not read included.
# What a model has no use for, or what other dialects mean by other words.
DROPPED = frozenset({"example", "examples", "xml", "externalDocs", "discriminator", "nullable", "writeOnly", "$schema"})


def wrong(what: str) -> InvalidTool:
    """The error that says what is wrong with a document."""
    return InvalidTool(f"document: {what}", field="document")


class Writer:
    """Writes the references of one operation out, within bounds."""

    def __init__(self, document: Json, *, nodes: int = MAX_NODES) -> None:
        """Begin with all of the budget."""
        self._document = document
        self._most = nodes
        self._nodes = self._all = self._depth = 0

    def begin(self) -> None:
        """Begin another operation, with what is left for the document."""
        self._all, self._nodes, self._depth = self._all + self._nodes, 0, 0

    def resolved(self, value: Any, seen: list[str]) -> Json:
        """What a reference points at, through as many as there are; what stands beside one counts more.

        Raises:
            InvalidTool: for one that leads nowhere, outside, or round in a circle.
        """
        if not isinstance(value, dict):
            raise wrong(f"an object belongs where {str(value)[:60]!r} stands")
        found = cast("Json", value)
        while "$ref" in found:
            reference = str(found["$ref"])
            if reference in seen:
                raise wrong(f"{reference} refers to itself; recursive schemas can't be written out")
            seen.append(reference)
            beside = {name: each for name, each in found.items() if name != "$ref"}
            pointed = self._pointed(reference)
            found = pointed | beside if beside else pointed
        return found

    def _pointed(self, reference: str) -> Json:
        if not reference.startswith("#/"):
            raise wrong(f"{reference[:200]} points outside of the document")
        value: Any = self._document
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            value = cast("Json", value).get(name) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            raise wrong(f"{reference[:200]} leads nowhere")
        return cast("Json", value)

    def schema(self, value: Any, seen: Sequence[str] = ()) -> Any:
        """A schema as JSON Schema: references written out, `allOf` merged, `nullable` and its like in today's words."""
        self._count(1)
        if isinstance(value, bool):
            return value
        own = list(seen)
        if self._depth >= MAX_DEPTH:
            raise wrong(f"schemas nested deeper than {MAX_DEPTH}")
        if again := _again(value, own):
            return {"description": f"another {again}"}
        found = self.resolved(value, own)
        if len(found) > MAX_KEYWORDS:
            raise wrong(f"a schema of more than {MAX_KEYWORDS} keywords")
        self._depth += 1
        schema = {name: self._keyword(name, each, own) for name, each in found.items() if _kept(name)}
        self._depth -= 1
        if "allOf" in schema:
            schema = _merged(schema)
        return _of_today(schema, found)

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > self._most or self._all + self._nodes > MAX_ALL_NODES:
            raise wrong(f"an operation of more than {self._most} schemas and values, references written out")

    def _keyword(self, name: str, value: Any, seen: list[str]) -> Any:
        if name in ("properties", "patternProperties", "$defs", "dependentSchemas") and isinstance(value, dict):
            return {self._plain(key): self.schema(each, seen) for key, each in cast("Json", value).items()}
        if name in ("allOf", "oneOf", "anyOf", "prefixItems") and isinstance(value, list):
            return [self.schema(each, seen) for each in cast("list[Any]", value)]
        if name in ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else"):
            return self.schema(value, seen)
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        """A value that is no schema, such as a default: as it is, and counted with all it holds."""
        waiting = [value]
        while waiting:
            each = waiting.pop()
            self._count(1 + len(each) // NODE_CHARACTERS if isinstance(each, str) else 1)
            if isinstance(each, dict):
                waiting += [*cast("Json", each), *cast("Json", each).values()]
            elif isinstance(each, list):
                waiting += cast("list[Any]", each)
        return value


def _again(value: Any, seen: Sequence[str]) -> str | None:
    """The name of a schema that stands inside itself: written out once, then anything may stand there."""
    reference = cast("Json", value).get("$ref") if isinstance(value, dict) else None
    return str(reference).rpartition("/")[2] if reference in seen else None


def _kept(name: str) -> bool:
    return name not in DROPPED and not name.startswith("x-")


def _merged(schema: Json) -> Json:
    """`allOf` as one schema: properties and required names together, of other words the first."""
    merged: Json = {name: each for name, each in schema.items() if name != "allOf"}
    rest: list[Any] = []
    for part in schema["allOf"]:
        if not isinstance(part, dict):
            rest.append(part)
            continue
        for name, each in cast("Json", part).items():
            if name == "properties":
                merged["properties"] = each | merged.get("properties", {})
            elif name == "required":
                merged["required"] = list(dict.fromkeys([*merged.get("required", []), *each]))
            elif name not in merged:
                merged[name] = each
            elif merged[name] != each and name not in ("description", "title"):
                rest.append({name: each})
    return merged | ({"allOf": rest} if rest else {})


def _of_today(schema: Json, found: Json) -> Json:
    """The words of OpenAPI 3.0 that JSON Schema has others for."""
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        strict = schema.pop(bound) if isinstance(schema.get(bound), bool) else False
        if strict and limit in schema:
            schema[bound] = schema.pop(limit)
    if found.get("nullable") is True:
        if isinstance(schema.get("type"), str):
            schema["type"] = [schema["type"], "null"]
        if "enum" in schema and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
        if "type" not in schema and any(each in schema for each in ("oneOf", "anyOf", "allOf", "properties")):
            return {"anyOf": [schema, {"type": "null"}]}
    return schema
