"""JSON schemas: what is refused when it is saved, so that a call never meets it."""

from typing import Any

import pytest

from app.agents.spec import check_output_schema
from app.errors import InvalidArguments, InvalidRequest, InvalidTool
from app.tools.schema import check_schema, fitting, misfit


def schema(**members: Any) -> dict[str, Any]:
    return {"type": "object", **members}


TREE = schema(
    properties={"root": {"$ref": "#/$defs/node"}},
    **{"$defs": {"node": schema(properties={"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}})}},
)


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
        (schema(properties={"a": {"pattern": "("}}), "not a JSON schema"),
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
