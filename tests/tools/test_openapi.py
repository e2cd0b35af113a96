"""Hostile OpenAPI documents: each costs little, and one bad operation spares the others."""

from typing import Any

import pytest

from app.errors import InvalidTool
from app.tools.openapi import MAX_OPERATIONS, MAX_PATHS, Import, read_document, read_operations

Json = dict[str, Any]

FINE: Json = {"/fine": {"get": {"operationId": "fine"}}}


def read(paths: Json, **others: Any) -> Import:
    document = {"openapi": "3.0.0", "servers": [{"url": "http://here.example"}], "paths": paths} | others
    return read_operations(document, name="api")


def body(schema: Json) -> Json:
    return {"post": {"operationId": "odd", "requestBody": {"content": {"application/json": {"schema": schema}}}}}


def query(schema: Json) -> Json:
    return {"get": {"operationId": "odd", "parameters": [{"name": "q", "in": "query", "schema": schema}]}}


def nested(levels: int) -> Json:
    schema: Json = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def all_of(levels: int) -> Json:
    schema: Json = {}
    for _ in range(levels):
        schema = {"allOf": [schema]}
    return schema


def deep_default(levels: int) -> Json:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return {"type": "array", "default": value}


def shared(levels: int) -> Any:
    """Ten times itself at each level, as aliases of YAML make it."""
    value: Any = "x"
    for _ in range(levels):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (body(nested(300)), "nested deeper than 100"),
        (body(all_of(5000)), "nested deeper than 100"),
        (query(deep_default(5000)), "nested"),
        (query({"default": shared(7)}), "more than 20000 schemas and values"),
        (query({"enum": shared(7)}), "more than 20000 schemas and values"),
        (query({"default": "x" * 2_000_000}), "more than 20000 schemas and values"),
        (query({f"x-{number}": 1 for number in range(60_000)}), "more than 200 keywords"),
        (body({"properties": {f"p{number}": {} for number in range(501)}}), "more than 500 arguments"),
        ({"get": {"operationId": "odd", "parameters": [{"in": "cookie", "name": "c"}] * 501}}, "500 parameters"),
        ({"get": {"operationId": "odd", "servers": [{"url": "http://here.example/" + "a" * 5000}]}}, "2000 characters"),
    ],
    ids=["properties", "allOf", "default", "aliases", "enum", "text", "keywords", "body", "parameters", "server"],
)
def test_an_operation_beyond_the_bounds_is_skipped_with_the_reason(item: Json, said: str) -> None:
    found = read({"/odd": item} | FINE)
    assert [definition.spec["name"] for definition in found.definitions] == ["api_fine"]
    [skipped] = found.skipped
    assert skipped.operation == "odd"
    assert said in skipped.reason


def test_what_an_operation_is_called_and_says_is_text_or_nothing() -> None:
    found = read({"/a": {"get": {"operationId": ["x"], "summary": shared(3), "description": {"a": 1}}}})
    [definition] = found.definitions
    assert definition.spec["name"] == "api_get_a"
    assert definition.spec["description"] == "GET /a"


def test_arguments_of_one_name_are_told_apart() -> None:
    listed = [{"name": f"a{mark}", "in": "query", "schema": {"type": "string"}} for mark in "!?.+*&"]
    [definition] = read({"/{a}/{a}/{a}": {"get": {"operationId": "odd", "parameters": listed}}}).definitions
    assert len(definition.spec["parameters"]["properties"]) == 7
    assert definition.spec["url"] == "http://here.example/{a}/{a}/{a}"


def test_operations_that_can_not_be_tools_count_too() -> None:
    cookie = [{"name": "c", "in": "cookie", "required": True}]
    paths = {f"/p{number}": {"get": {"operationId": f"o{number}", "parameters": cookie}} for number in range(1002)}
    with pytest.raises(InvalidTool, match=f"more than {MAX_OPERATIONS} operations"):
        read(paths | FINE)


def test_paths_are_counted_and_refer_without_copies() -> None:
    fat = {f"x-{number}": number for number in range(60_000)} | {"get": {"operationId": "one"}}
    found: list[int] = []

    class Counting(dict[str, Any]):
        """Tells of each copy that is made of it."""

        def __or__(self, other: Any) -> Any:
            found.append(1)
            return super().__or__(other)

    paths = {f"/p{number}": {"$ref": "#/x-fat"} for number in range(900)}
    with pytest.raises(InvalidTool, match="would both be the tool api_one"):
        read(paths, **{"x-fat": Counting(fat)})
    assert not found
    with pytest.raises(InvalidTool, match=f"more than {MAX_PATHS} paths"):
        read({f"/p{number}": {} for number in range(MAX_PATHS + 1)})


def test_a_document_nested_without_end_is_refused() -> None:
    for text in ("openapi: 3.0.0\npaths: " + "[" * 20_000, '{"openapi": "3.0.0", "paths": ' + "[" * 100_000):
        with pytest.raises(InvalidTool, match="neither JSON nor YAML"):
            read_document(text)
