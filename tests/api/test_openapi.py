"""The OpenAPI document and its page."""

import re
from typing import Any

import httpx
import pytest


@pytest.fixture
async def document(client: httpx.AsyncClient) -> Any:
    return (await client.get("/openapi.json")).json()


async def test_the_docs_load_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    local = re.findall(r"(?:src|href)=[\"']([^\"']+)", page)
    assert local
    for path in local:
        assert (await client.get(path)).status_code == 200, path


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = value.get("$ref")
        return [*([own] if isinstance(own, str) else []), *(r for each in value.values() for r in references(each))]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere(document: Any) -> None:
    for reference in references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def operations(document: Any) -> list[tuple[str, str, Any]]:
    return [(path, method, each) for path, item in document["paths"].items() for method, each in item.items()]


def test_every_operation_is_described(document: Any) -> None:
    for path, method, operation in operations(document):
        assert operation.get("summary"), (method, path)
        assert operation.get("description"), (method, path)
        assert operation.get("tags"), (method, path)
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["in"] == "path", (method, path, parameter["name"])
    identifiers = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)


def test_every_refusal_is_a_problem(document: Any) -> None:
    for path, method, operation in operations(document):
        if operation["tags"] != ["health"]:
            assert list(operation["responses"]["4XX"]["content"]) == ["application/problem+json"], (method, path)
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert document["components"]["schemas"]["Problem"]["examples"]


def test_prefixes_and_later_things_are_not_in_it(document: Any) -> None:
    assert not [path for path in document["paths"] if path.startswith(("/api/", "/v1", "/budgets"))]
