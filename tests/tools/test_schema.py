"""JSON schemas: what is refused when it is saved, so that a call never meets it."""

from typing import Any

import pytest
from pydantic_ai import StructuredDict

from app.agents.spec import check_output_schema
from app.errors import InvalidArguments, InvalidRequest, InvalidTool
from app.tools.mcp import McpSource, read_listing
from app.tools.openapi import read_operations
from app.tools.schema import check_schema, fitting, misfit


def schema(**members: Any) -> dict[str, Any]:
    return {"type": "object", **members}


TREE = schema(
    properties={"root": {"$ref": "#/$defs/node"}},
    **{"$defs": {"node": schema(properties={"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}})}},
)


def doubled(levels: int) -> dict[str, Any]:
    """A schema whose every level refers twice to the next."""
    steps = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(levels)}
    return schema(properties={"a": {"$ref": "#/$defs/0"}}, **{"$defs": steps | {str(levels): {"type": "string"}}})


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (schema(properties={"a": {"$ref": "https://example.com/a.json"}}), "points elsewhere"),
        (schema(properties={"a": {"$ref": "other.json#/a"}}), "points elsewhere"),
        (schema(properties={"a": {"$dynamicRef": "https://example.com/a"}}), "points elsewhere"),
        (schema(properties={"a": {"$ref": "#/$defs/missing"}}), "points to nothing"),
        (schema(properties={"a": {"$ref": "#anchor"}}), "points to nothing"),
        (schema(**{"$ref": "#"}), "leads back to itself"),
        (schema(allOf=[{"not": {"$ref": "#"}}]), "leads back to itself"),
        (schema(properties={"a": {"$ref": "#/$defs/a"}}, **{"$defs": {"a": {"$ref": "#/$defs/a"}}}), "leads back"),
        (schema(properties={"a": {"$id": "https://example.com/a", "$ref": "#/x"}}), "at the top only"),
        (schema(properties={"a": {"type": "text"}}), "not a JSON schema"),
        (schema(properties={"a": {"pattern": "("}}), r"the pattern '\(' can't be used: missing"),
        (schema(properties={"a": {"pattern": "(?=a)b"}}), "look-around and references back are not offered"),
        (schema(patternProperties={r"^(a)\1$": {}}), "look-around and references back are not offered"),
        (schema(properties={"a": {"pattern": "[a-z]{1,900}[0-9]{1,900}[a-z]{1,900}[0-9]{1,900}"}}), "too large"),
        (schema(properties={"a": {"pattern": "a" * 1001}}), "longer than 1000 characters"),
        (schema(properties={f"a{n}": {"pattern": f"a{n}"} for n in range(201)}), "may have 200 patterns"),
        (
            schema(unevaluatedProperties=False, allOf=[{"patternProperties": {"a": {}}}]),
            "unevaluatedProperties and patternProperties can't stand in one schema",
        ),
        (
            schema(properties={"a": {"$ref": "#/$comment"}}, **{"$comment": {"pattern": "(a+)+$"}}),
            "JSON schema|is no schema",
        ),
        (schema(properties={"a": {"$ref": "#/x"}}, x={"pattern": "(a+)+$"}), "points to what is no schema"),
        (schema(properties={"a": {"enum": ["b" * 100_000]}}), "may have 100000 characters"),
        (doubled(14), "more than 10000 schemas, references written out"),
        (doubled(200), "more than 10000 schemas, references written out"),
        ({"type": "array"}, "at its top"),
    ],
)
def test_a_schema_that_can_not_be_held_is_refused_by_its_field(refused: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidTool, match=f"parameters: .*{why}") as caught:
        check_schema(refused, "parameters", error=InvalidTool)
    assert caught.value.field == "parameters"


def test_a_schema_nested_too_deeply_is_refused() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(2000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        check_schema(schema(properties={"a": deep}), "input_schema")


def test_a_schema_may_refer_back_to_itself_where_it_goes_deeper() -> None:
    check_schema(TREE, "parameters")
    check_schema(schema(properties={"next": {"$ref": "#"}}), "parameters")
    assert misfit(TREE, {"root": {"children": [{"children": []}]}}, "input") is None
    assert misfit(TREE, {"root": {"children": [{"children": 5}]}}, "input") == (
        "input.root.children.0.children: 5 is not of type 'array'"
    )


def test_data_in_a_schema_is_no_schema() -> None:
    check_schema(schema(properties={"$ref": {"enum": [{"$ref": "https://example.com"}]}}), "parameters")


def test_a_value_nested_beyond_reason_does_not_fit() -> None:
    value: dict[str, Any] = {}
    for _ in range(500):
        value = {"next": value}
    with pytest.raises(InvalidArguments, match="nested too deeply"):
        fitting(schema(properties={"next": {"$ref": "#"}}), value)


def test_a_structured_output_can_not_go_round_in_a_ring() -> None:
    check_output_schema(schema(properties={"a": {"$ref": "#/$defs/a"}}, **{"$defs": {"a": {}}}), "output_schema")
    with pytest.raises(InvalidRequest, match="refer back to themselves") as caught:
        check_output_schema(TREE, "output_schema")
    assert caught.value.field == "output_schema"


def test_what_passes_as_a_structured_output_can_be_sent_to_a_model() -> None:
    here = schema(properties={"a": {"$ref": "#/$defs/a~1b"}, "c": True}, **{"$defs": {"a/b": {"type": "string"}}})
    check_output_schema(here, "output_schema")
    StructuredDict(here)
    for anchored in ("#there", "#/$defs/the%20re"):
        named = {"the re": {"$anchor": "there", "type": "string"}}
        with pytest.raises(InvalidRequest, match="must name its place"):
            check_output_schema(schema(properties={"a": {"$ref": anchored}}, **{"$defs": named}), "output_schema")


def test_a_schema_has_so_many_parts_as_are_written_out() -> None:
    check_schema(doubled(8), "parameters")
    assert misfit(doubled(8), {"a": "text"}, "input") is None


@pytest.mark.parametrize(
    ("pattern", "fits", "not_"),
    [
        ("^(a+)+$", "a" * 5_000, "a" * 5_000 + "!"),
        ("(x+x+)+y", "x" * 5_000 + "y", "x" * 5_000),
        (r"^\/[\w.-]{1,40}$", "/a-b.c", "a-b.c"),
        (r"^[\u4e00-\u9fff]+$", "漢字", "kanji"),
        (r"^\\u4e00$", r"\u4e00", "\u4e00"),
        ("^.$", "\ud800", "ab"),
        ("^a$", "a", "a\n"),
    ],
)
def test_a_pattern_is_matched_in_one_pass(pattern: str, fits: str, not_: str) -> None:
    """Python's engine would need ages for the first two."""
    for wanted in (
        schema(properties={"a": {"pattern": pattern}}),
        schema(properties={"a": schema(propertyNames={"pattern": pattern})}),
        schema(properties={"a": schema(patternProperties={pattern: True}, additionalProperties=False)}),
    ):
        check_schema(wanted, "parameters")
        value = {"a": fits}, {"a": not_}
        if wanted["properties"]["a"].get("type") == "object":
            value = {"a": {fits: 1}}, {"a": {not_: 1}}
        assert misfit(wanted, value[0], "input") is None
        assert misfit(wanted, value[1], "input") is not None


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (doubled(40), "text"),
        ({"items": {"anyOf": [{"type": "string"}] * 3_000}}, [1] * 30_000),
        ({"anyOf": [{"type": "object"}] * 3_000}, [1] * 30_000),
        ({"items": {"enum": [f"{n}" for n in range(5_000)]}}, ["a"] * 30_000),
        ({"items": {"pattern": "(.*a){300}c"}}, ["ab" * 500] * 3_000),
        ({"pattern": "(.*a){300}c"}, "ab" * 500_000),
        ({"patternProperties": {f"^x{n}": True for n in range(200)}}, {f"{n}": 1 for n in range(30_000)}),
        ({"allOf": [{"items": True}] * 3_000, "unevaluatedItems": False}, [1] * 30_000),
    ],
)
def test_a_value_that_takes_too_long_to_check_does_not_fit(wanted: dict[str, Any], value: Any) -> None:
    wanted = wanted if "$defs" in wanted else schema(properties={"a": wanted})
    assert misfit(wanted, {"a": value}, "input") == "input: it takes too long to hold against the schema"


def test_items_are_told_apart_as_json_tells_them() -> None:
    unique = schema(properties={"a": {"uniqueItems": True}})
    assert misfit(unique, {"a": [1, True, "1", [1], [True], {"a": 1}, {"a": True}, None, 0, False]}, "input") is None
    for same in ([1, 1.0], [{"a": [1], "b": 2}, {"b": 2, "a": [1]}], [[{}], [{}]], [False, False]):
        assert "non-unique" in (misfit(unique, {"a": same}, "input") or "")
    assert misfit(unique, {"a": [{"n": n} for n in range(20_000)]}, "input") is None


def test_a_tool_of_a_server_with_such_a_schema_is_skipped_with_the_reason() -> None:
    listed = [
        {"name": "back", "inputSchema": schema(properties={"a": {"pattern": "(?=a)b"}})},
        {"name": "forks", "inputSchema": schema(), "outputSchema": doubled(40)},
        {"name": "plain", "inputSchema": schema(properties={"a": {"pattern": "^(a+)+$"}})},
    ]
    found = read_listing("shop", McpSource(url="https://shop.example/mcp"), listed)
    assert [each.spec["name"] for each in found.definitions] == ["shop_plain"]
    assert [name for name, _ in found.skipped] == ["back", "forks"]
    assert "output_schema: more than 10000 schemas" in found.skipped[1][1]


def test_an_operation_with_such_a_schema_is_skipped_with_the_reason() -> None:
    operation = {"operationId": "back", "parameters": [{"name": "q", "in": "query", "schema": {"pattern": "(?!a)b"}}]}
    paths = {"/back": {"get": operation}, "/plain": {"get": {"operationId": "plain"}}}
    document = {"openapi": "3.1.0", "servers": [{"url": "https://shop.example"}], "paths": paths}
    found = read_operations(document, name="shop")
    assert [each.spec["name"] for each in found.definitions] == ["shop_plain"]
    [skipped] = found.skipped
    assert (skipped.operation, "look-around" in skipped.reason) == ("back", True)
