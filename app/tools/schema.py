"""JSON schemas as data: which are taken, and whether a value fits one."""

import re
from collections.abc import Iterator
from typing import Any, cast

from jsonschema import Draft202012Validator, exceptions, validators
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from app.errors import InvalidArguments, InvalidRequest, ToolError

MAX_SAID = 300  # Characters of what is said of a value that does not fit.
TOO_DEEP = "it is nested too deeply"
DIGITS_OF_64_BITS = 18
BEYOND = re.compile(r"-?(0x[0-9a-f]+|[0-9]+)")
# What looks at the same value again: a ring of these would never come to an end.
SAME_VALUE_ONE = ("not", "if", "then", "else")
SAME_VALUE_MANY = ("allOf", "anyOf", "oneOf")
SAME_VALUE_NAMED = ("dependentSchemas",)


def check_schema(
    schema: dict[str, Any] | None, field: str, *, of_object: bool = True, error: type[InvalidRequest] = InvalidRequest
) -> None:
    """Refuse what is no JSON schema, or one whose references lead nowhere, elsewhere, or round in a ring.

    Args:
        schema: None is let through.
        field: The field that holds it.
        of_object: Whether its values must be objects.
        error: What to raise.

    Raises:
        InvalidRequest: or `error`, naming the field.
    """
    if schema is None:
        return
    try:
        wrong = _wrong(schema, of_object=of_object)
    except RecursionError:
        wrong = f"this is not a JSON schema: {TOO_DEEP}"
    if wrong:
        raise error(f"{field}: {wrong}", field=field)


def _wrong(schema: dict[str, Any], *, of_object: bool) -> str | None:
    try:
        cast("Any", Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        return f"this is not a JSON schema: {error.message[:MAX_SAID]}"
    if of_object and schema.get("type") != "object":
        return 'the schema must have "type": "object" at its top'
    parts = list(_parts(schema))
    if any("$id" in part for part in parts[1:]):
        return "$id may stand at the top only"
    for part in parts:
        for word in ("$ref", "$dynamicRef"):
            if word in part and not str(part[word]).startswith("#"):
                return f"{word} {part[word]!r} points elsewhere; only #/... is followed"
    try:
        return _ring(schema, parts)
    except Unresolvable as error:
        return f"$ref {error.ref!r} points to nothing in the schema"


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and every schema in it; data such as an `enum` is none."""
    if isinstance(schema, dict):
        yield cast("dict[str, Any]", schema)
        for each in DRAFT202012.subresources_of(cast("Any", schema)):
            yield from _parts(each)


def _ring(schema: dict[str, Any], parts: list[dict[str, Any]]) -> str | None:
    """What is wrong when some part refers to itself without going deeper into the value."""
    resolver: Any = cast("Any", Registry)().resolver_with_root(DRAFT202012.create_resource(cast("Any", schema)))
    done: set[int] = set()

    def leads_back(part: object, above: tuple[int, ...]) -> bool:
        if id(part) in above:
            return True
        if not isinstance(part, dict) or id(cast("object", part)) in done:
            return False
        inner = _same_value(cast("dict[str, Any]", part), resolver)
        found = any([leads_back(each, (*above, id(cast("object", part)))) for each in inner])
        done.add(id(cast("object", part)))
        return found

    if any([leads_back(part, ()) for part in parts]):
        return "a $ref leads back to itself without going deeper into the value"
    return None


def _same_value(part: dict[str, Any], resolver: Any) -> list[Any]:
    """The schemas that look at the very value that `part` looks at."""
    found: list[Any] = [part[word] for word in SAME_VALUE_ONE if word in part]
    found += [each for word in SAME_VALUE_MANY for each in part.get(word, [])]
    found += [each for word in SAME_VALUE_NAMED for each in part.get(word, {}).values()]
    return found + [resolver.lookup(part[word]).contents for word in ("$ref", "$dynamicRef") if word in part]


# --- values -----------------------------------------------------------------------------------------


def misfit(schema: dict[str, Any], value: Any, field: str) -> str | None:
    """Where a value does not fit a schema, and why; None when it fits."""
    error = _misfit(schema, value)
    if error is None:
        return None
    place = ".".join([field, *(str(part) for part in error.absolute_path)])
    return f"{place}: {error.message[:MAX_SAID]}"


def fitting(schema: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, provided they fit a JSON schema.

    Raises:
        InvalidArguments: naming the argument at fault.
    """
    error = _misfit(schema, arguments)
    if error is None:
        return arguments
    field, said = _at_fault(error, schema, arguments)
    raise InvalidArguments(f"{field}: {said}" if field else said, field=field or None)


def result_fitting(schema: dict[str, Any], result: Any) -> None:
    """Refuse a result that does not fit a JSON schema; numbers that JSON has no room for may be texts in it.

    Raises:
        ToolError: saying where it does not.
    """
    error = _misfit(schema, result, Results)
    if error is not None:
        raise ToolError(f"the result does not fit output_schema: {error.json_path}: {error.message[:MAX_SAID]}")


def _misfit(schema: dict[str, Any], value: Any, kind: Any = Draft202012Validator) -> Any:
    # With the empty registry a `$ref` to an address is an error, not a request.
    validator: Any = kind(schema, registry=EMPTY_REGISTRY)
    try:
        return cast("Any", exceptions).best_match(validator.iter_errors(value))
    except RecursionError:
        return exceptions.ValidationError(TOO_DEEP)


def _at_fault(error: Any, schema: dict[str, Any], arguments: dict[str, Any]) -> tuple[str, str]:
    """The argument, and what is wrong with it in words."""
    field = ".".join(str(part) for part in error.absolute_path)
    if not field and error.validator == "required":
        return next(name for name in error.validator_value if name not in arguments), "is missing"
    if not field and error.validator == "additionalProperties":
        known: dict[str, Any] = schema.get("properties", {})
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
    Draft202012Validator,
    type_checker=cast(Any, Draft202012Validator).TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)
