"""JSON schemas as data: which are taken, and whether a value fits one."""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from jsonschema import Draft202012Validator, exceptions, validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from app.errors import InvalidArguments, InvalidRequest, ToolError
from app.tools.keywords import CountingValidator, TooMuch, begin
from app.tools.patterns import PatternRefused, pattern_of

Json = dict[str, Any]

MAX_SAID = 300  # Characters of what is said of a value that does not fit.
MAX_SCHEMA = 100_000  # Characters of a schema as JSON; checking so many takes about a second.
MAX_PATTERNS = 200  # Patterns of one schema; a large one takes milliseconds to read.
# Schemas in a schema, each counted as often as it is referred to: a few lines of doubled references stand for millions,
# and providers are sent them written out.
MAX_WRITTEN = 10_000
DIGITS_OF_64_BITS = 18
BEYOND = re.compile(r"-?(0x[0-9a-f]+|[0-9]+)")
TOO_DEEP = "it is nested too deeply"
# What looks at the same value again: a ring of these would never come to an end.
SAME_VALUE_ONE = ("not", "if", "then", "else")
SAME_VALUE_MANY = ("allOf", "anyOf", "oneOf")
SAME_VALUE_NAMED = ("dependentSchemas",)
REFERENCES = ("$ref", "$dynamicRef")


def check_schema(
    schema: Json | None,
    field: str,
    *,
    of_object: bool = True,
    recursive: bool = True,
    error: type[InvalidRequest] = InvalidRequest,
) -> None:
    """Refuse what is no JSON schema, is too large, or has references that lead nowhere, elsewhere, or round in a ring.

    A large one takes about a second: not on the event loop.

    Args:
        schema: None is let through.
        field: The field that holds it.
        of_object: Whether its values must be objects.
        recursive: Whether it may refer back to itself where it goes deeper into the value.
        error: What to raise.

    Raises:
        InvalidRequest: or `error`, naming the field.
    """
    if schema is None:
        return
    try:
        wrong = _wrong(schema, of_object=of_object, recursive=recursive)
    except RecursionError:
        wrong = f"this is not a JSON schema: {TOO_DEEP}"
    except PatternRefused as refused:
        wrong = str(refused)
    if wrong:
        raise error(f"{field}: {wrong}", field=field)


def _wrong(schema: Json, *, of_object: bool, recursive: bool) -> str | None:
    if len(json.dumps(schema, default=str)) > MAX_SCHEMA:
        return f"a schema may have {MAX_SCHEMA} characters"
    try:
        # Without its check of formats: patterns are read by another engine than Python's.
        cast("Any", Draft202012Validator).check_schema(schema, format_checker=None)
    except SchemaError as error:
        return f"this is not a JSON schema: {error.message[:MAX_SAID]}"
    if of_object and schema.get("type") != "object":
        return 'the schema must have "type": "object" at its top'
    parts = list(_parts(schema))
    if any("$id" in part for part in parts[1:]):
        return "$id may stand at the top only"
    if said := _elsewhere(parts) or _unmatched(parts):
        return said
    try:
        return _ring(schema, parts) or _endless(schema, parts, recursive)
    except Unresolvable as error:
        return f"$ref {error.ref!r} points to nothing in the schema"


def _elsewhere(parts: list[Json]) -> str | None:
    for part in parts:
        for word in REFERENCES:
            if word in part and not str(part[word]).startswith("#"):
                return f"{word} {part[word]!r} points elsewhere; only #/... is followed"
    return None


def _unmatched(parts: list[Json]) -> str | None:
    """What is wrong with the patterns.

    Raises:
        PatternRefused: naming one that can't be used.
    """
    patterns = [part["pattern"] for part in parts if "pattern" in part]
    patterns += [pattern for part in parts for pattern in part.get("patternProperties", {})]
    if len(patterns) > MAX_PATTERNS:
        return f"a schema may have {MAX_PATTERNS} patterns"
    for pattern in patterns:
        pattern_of(pattern)
    words = {word for part in parts for word in part}
    if {"unevaluatedProperties", "patternProperties"} <= words:  # The library asks Python's engine there.
        return "unevaluatedProperties and patternProperties can't stand in one schema"
    return None


def _parts(schema: Any) -> Iterator[Json]:
    """The schema and every schema in it; data such as an `enum` is none."""
    if isinstance(schema, dict):
        yield cast("Json", schema)
        for each in DRAFT202012.subresources_of(cast("Any", schema)):
            yield from _parts(each)


def _ring(schema: Json, parts: list[Json]) -> str | None:
    """What is wrong when some part refers to itself without going deeper into the value."""
    resolver = _resolver(schema)
    done: set[int] = set()

    def leads_back(part: object, above: tuple[int, ...]) -> bool:
        if id(part) in above:
            return True
        if not isinstance(part, dict) or id(cast("object", part)) in done:
            return False
        inner = _same_value(cast("Json", part), resolver)
        found = any([leads_back(each, (*above, id(cast("object", part)))) for each in inner])
        done.add(id(cast("object", part)))
        return found

    if any([leads_back(part, ()) for part in parts]):
        return "a $ref leads back to itself without going deeper into the value"
    return None


def _same_value(part: Json, resolver: Any) -> list[Any]:
    """The schemas that look at the very value that `part` looks at."""
    found: list[Any] = [part[word] for word in SAME_VALUE_ONE if word in part]
    found += [each for word in SAME_VALUE_MANY for each in part.get(word, [])]
    found += [each for word in SAME_VALUE_NAMED for each in part.get(word, {}).values()]
    return found + _referred(part, resolver)


def _endless(schema: Json, parts: list[Json], recursive: bool) -> str | None:
    """What is wrong when a schema can't be written out, or only as a very large one."""
    resolver, known = _resolver(schema), {id(part) for part in parts}
    counts: dict[int, int | None] = {}  # None for those that are being counted.
    rings = astray = False

    def written(part: Any) -> int:
        nonlocal rings, astray
        if not isinstance(part, dict):
            return 1
        key = id(cast("object", part))
        astray |= key not in known
        if astray or key in counts:
            rings |= key in counts and counts[key] is None
            return counts.get(key) or 0
        counts[key] = None
        inner = [*DRAFT202012.subresources_of(cast("Any", part)), *_referred(cast("Json", part), resolver)]
        counts[key] = total = 1 + sum(written(each) for each in inner)
        return total

    total = written(schema)
    if astray:
        return "a $ref points to what is no schema"
    if rings and not recursive:
        return "a structured output can't have a schema whose parts refer back to themselves"
    if not recursive and (said := _indirect(parts)):
        return said
    return f"more than {MAX_WRITTEN} schemas, references written out" if total > MAX_WRITTEN else None


def _indirect(parts: list[Json]) -> str | None:
    """What is wrong with a reference that the agent library can't write out."""
    for reference in (str(part[word]) for part in parts for word in REFERENCES if word in part):
        if not reference.startswith("#/") or "%" in reference:
            return f"a structured output's $ref must name its place, as #/$defs/name does; {reference!r} does not"
    return None


def _resolver(schema: Json) -> Any:
    return cast("Any", Registry)().resolver_with_root(DRAFT202012.create_resource(cast("Any", schema)))


def _referred(part: Json, resolver: Any) -> list[Any]:
    return [resolver.lookup(part[word]).contents for word in REFERENCES if word in part]


# --- values -----------------------------------------------------------------------------------------


def misfit(schema: Json, value: Any, field: str) -> str | None:
    """Where a value does not fit a schema, and why; None when it fits."""
    error = _misfit(schema, value)
    if error is None:
        return None
    place = ".".join([field, *(str(part) for part in error.absolute_path)])
    return f"{place}: {error.message[:MAX_SAID]}"


def fitting(schema: Json, arguments: Json) -> Json:
    """The arguments, provided they fit a JSON schema.

    Raises:
        InvalidArguments: naming the argument at fault.
    """
    error = _misfit(schema, arguments)
    if error is None:
        return arguments
    field, said = _at_fault(error, schema, arguments)
    raise InvalidArguments(f"{field}: {said}" if field else said, field=field or None)


def result_fitting(schema: Json, result: Any) -> None:
    """Refuse a result that does not fit a JSON schema; numbers that JSON has no room for may be texts in it.

    Raises:
        ToolError: saying where it does not.
    """
    error = _misfit(schema, result, Results)
    if error is not None:
        raise ToolError(f"the result does not fit output_schema: {error.json_path}: {error.message[:MAX_SAID]}")


def _misfit(schema: Json, value: Any, kind: Any = CountingValidator) -> Any:
    begin()
    # With the empty registry a `$ref` to an address is an error, not a request.
    validator: Any = kind(schema, registry=EMPTY_REGISTRY)
    try:
        return cast("Any", exceptions).best_match(validator.iter_errors(value))
    except RecursionError:
        return ValidationError(TOO_DEEP)
    except (TooMuch, PatternRefused) as error:
        return ValidationError(str(error))


def _at_fault(error: Any, schema: Json, arguments: Json) -> tuple[str, str]:
    """The argument, and what is wrong with it in words."""
    field = ".".join(str(part) for part in error.absolute_path)
    if not field and error.validator == "required":
        return next(name for name in error.validator_value if name not in arguments), "is missing"
    if not field and error.validator == "additionalProperties":
        known: Json = schema.get("properties", {})
        unknown = next((name for name in arguments if name not in known), "")
        return unknown, f"there is no such argument (there are: {', '.join(known)})"
    return field, error.message[:MAX_SAID]


# --- numbers as results hold them -------------------------------------------------------------------


def _is_integer(checker: Any, value: Any) -> bool:
    """An integer, also one that is text because JSON's readers could not hold it."""
    del checker
    return (isinstance(value, int) and not isinstance(value, bool)) or _is_beyond(value)


def _is_number(checker: Any, value: Any) -> bool:
    """A number, also one that JSON has no word for."""
    return isinstance(value, float) or value in ("nan", "inf", "-inf") or _is_integer(checker, value)


def _is_beyond(value: Any) -> bool:
    return isinstance(value, str) and len(value) > DIGITS_OF_64_BITS and BEYOND.fullmatch(value) is not None


Results: Any = cast(Any, validators).extend(
    CountingValidator,
    type_checker=cast(Any, Draft202012Validator).TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)
