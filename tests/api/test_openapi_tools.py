"""OpenAPI documents become working tools against a loopback service; hostile ones are refused by name."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import yaml

from app.settings import Settings
from tests.api.conftest import serve
from tests.services import Service, service

ORDER: dict[str, Any] = {
    "allOf": [
        {"$ref": "#/components/schemas/Named"},
        {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "nullable": True}}},
    ]
}


def document(version: str = "3.0.3", **schemas: Any) -> dict[str, Any]:
    order = {
        "operationId": "put order",
        "summary": "Change an order",
        "parameters": [
            {"$ref": "#/components/parameters/Id"},
            {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
            {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
        },
    }
    listed = {"operationId": "list", "parameters": [{"name": "id", "in": "query", "schema": {"type": "string"}}]}
    form = {"content": {"application/x-www-form-urlencoded": {"schema": {"properties": {"a": {"type": "string"}}}}}}
    file = {"content": {"image/png": {}}}
    return {
        "openapi": version,
        "servers": [{"url": "/{stage}", "variables": {"stage": {"default": "echo"}}}],
        "paths": {
            "/orders/{order-id}": {"put": order},
            "/orders": {"get": listed, "post": {"operationId": "form", "requestBody": form}},
            "/image": {"post": {"operationId": "image", "requestBody": file}},
        },
        "components": {
            "parameters": {"Id": {"name": "order-id", "in": "path", "required": True, "schema": {"type": "integer"}}},
            "schemas": {
                "Order": ORDER,
                "Named": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                **schemas,
            },
        },
    }


@pytest.fixture
async def there() -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest.fixture
async def client(settings: Settings, there: Service) -> AsyncIterator[httpx.AsyncClient]:
    allow = {"parley_egress_allow": f"127.0.0.1:{there.port}"}
    async with serve(settings.model_copy(update=allow)) as opened:
        yield opened


async def imported(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/tools/import", json={"name": "shop"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def called(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.post(f"/tools/{tool}/execute", json={"arguments": arguments})
    assert answer.status_code == 200, answer.text
    assert answer.json()["error"] is None
    return answer.json()["result"]


async def test_a_document_by_url_becomes_working_tools(client: httpx.AsyncClient, there: Service) -> None:
    there.answers["/api.yaml"] = [(200, yaml.safe_dump(document("3.1.0"), sort_keys=False).encode())]
    await client.post("/credentials", json={"name": "c", "kind": "bearer", "token": "key-secret-1"})
    body = {"url": there.url("/api.yaml"), "credential": "c"}
    preview = await imported(client, preview=True, **body)
    assert {tool["action"] for tool in preview["tools"]} == {"create"}
    assert (await client.get("/tools/shop_list")).status_code == 404
    made = await imported(client, **body)
    assert [tool["name"] for tool in made["tools"]] == ["shop_put_order", "shop_list", "shop_form"]
    assert [each["operation"] for each in made["skipped"]] == ["image"]
    result = await called(client, "shop_put_order", order_id=7, X_Trace="t", tags=["a", "b"], n=3, name="tea")
    assert (result["method"], result["path"], result["query"]) == ("PUT", "/echo/orders/7", {"tags": ["a", "b"]})
    assert json.loads(result["body"]) == {"n": 3, "name": "tea"}
    assert (result["headers"]["x-trace"], result["headers"]["authorization"]) == ("t", "Bearer ****")
    assert (await called(client, "shop_form", a="x y"))["body"] == "a=x+y"
    assert (await called(client, "shop_list"))["query"] == {}


async def test_schemas_are_said_in_the_words_of_json_schema(client: httpx.AsyncClient) -> None:
    [tool] = (await imported(client, document=document(), base_url="http://x.example/v1/", include=["put order"]))[
        "tools"
    ]
    assert tool["url"] == "http://x.example/v1/orders/{order_id}"
    properties = tool["parameters"]["properties"]
    assert (properties["n"]["type"], properties["order_id"]["type"]) == (["integer", "null"], "integer")
    assert sorted(tool["parameters"]["required"]) == ["n", "name", "order_id"]
    assert tool["risk"] == "external"


async def test_importing_again_makes_versions_of_what_changed(client: httpx.AsyncClient) -> None:
    body = {"base_url": "http://x.example", "document": document()}
    await imported(client, **body)
    body["document"]["paths"]["/orders"]["get"]["summary"] = "List the orders"
    again = await imported(client, **body)
    actions = [(tool["action"], tool["version"]) for tool in again["tools"]]
    assert actions == [("unchanged", 1), ("update", 2), ("unchanged", 1)]
    whole = {"kind": "openapi", "name": "shop", "description": "The shop"}
    same = await client.post("/tools", json=whole | body)
    assert same.status_code == 201, same.text
    assert {tool["action"] for tool in same.json()["tools"]} == {"unchanged"}


LOOP = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Order"}}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (document(Order=LOOP), "refers to itself"),
        (document(Order={"$ref": "#/components/schemas/Order"}), "refers to itself"),
        (document(Order={"$ref": "http://127.0.0.1/x"}), "points outside"),
        (document(Order={"$ref": "#/nowhere"}), "leads nowhere"),
        (document("2.0"), "OpenAPI 3.0 or 3.1 is needed"),
        ({"swagger": "2.0"}, "swagger 2.0"),
        ("a: [", "neither JSON nor YAML at line"),
        ("just text", "it is no object"),
        ({"openapi": "3.0.0", "paths": {"/": {"get": {"parameters": 7}}}}, "not what OpenAPI says"),
        (
            document(
                Order={"properties": {"a": {"$ref": "#/components/schemas/S0"}}},
                **{
                    f"S{n}": {"properties": {key: {"$ref": f"#/components/schemas/S{n + 1}"} for key in "abcdefgh"}}
                    for n in range(8)
                },
                S8={"type": "string"},
            ),
            "more than 20000 schemas",
        ),
    ],
)
async def test_a_hostile_document_is_refused(client: httpx.AsyncClient, given: Any, said: str) -> None:
    body = {"name": "shop", "document": given, "base_url": "http://x.example"}
    include = {"include": ["put order"]} if isinstance(given, dict) and "components" in given else {}
    refused = await client.post("/tools/import", json=body | include)
    assert (refused.status_code, refused.json()["field"]) == (422, "document"), refused.text
    assert said in refused.json()["detail"]


async def test_too_long_a_document_is_refused_by_upload_and_by_url(client: httpx.AsyncClient, there: Service) -> None:
    long = json.dumps(document() | {"x-long": "x" * 10_000_000})
    assert (await client.post("/tools/import", json={"name": "shop", "document": long})).status_code == 413
    there.answers["/long"] = [(200, long.encode())]
    refused = await client.post("/tools/import", json={"name": "shop", "url": there.url("/long")})
    assert (refused.status_code, refused.json()["code"]) == (422, "response_too_large")
