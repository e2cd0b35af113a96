"""OpenAPI documents become working tools against a loopback service; hostile ones are refused by name."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import yaml

from app.settings import Settings
from app.tools.sources import GONE
from benchmarks.openapi import OPERATIONS, large
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
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


async def test_a_schema_that_stands_inside_itself_is_written_out_once(client: httpx.AsyncClient) -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Order"}}}
    body = {"document": document(Order=tree), "base_url": "http://x.example", "include": ["put order"]}
    [tool] = (await imported(client, **body))["tools"]
    assert tool["parameters"]["properties"]["next"] == {"description": "another Order"}


async def test_an_operation_that_is_gone_is_disabled_and_comes_back(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"base_url": "http://x.example", "document": document()}
    await imported(client, **body)
    gone = body["document"]["paths"].pop("/orders")
    await imported(client, **body)
    tool = (await client.get("/tools/shop_list")).json()
    assert (tool["enabled"], tool["disabled_reason"]) == (False, GONE)
    body["document"]["paths"]["/orders"] = gone
    # What is not wanted this time is not gone.
    await imported(client, **body, include=["form"])
    assert (await client.get("/tools/shop_put_order")).json()["enabled"] is True
    await imported(client, **body)
    assert (await client.get("/tools/shop_list")).json()["enabled"] is True


async def test_a_persons_word_on_an_operation_outlives_the_next_import(client: httpx.AsyncClient) -> None:
    await imported(client, document=document(), base_url="https://x.example")
    said = {"risk": "money", "idempotent": True, "retries": 1, "cost_usd": 0.25, "timeout_seconds": 7}
    assert (await client.patch("/tools/shop_put_order", json=said)).json()["version"] == 2
    again = {
        each["name"]: each
        for each in (await imported(client, document=document(), base_url="https://x.example"))["tools"]
    }
    assert again["shop_put_order"]["action"] == "unchanged"
    changed = document()
    changed["paths"]["/orders/{order-id}"]["put"]["summary"] = "Change one order"
    assert (await client.patch("/tools/shop_list", json={"risk": "code"})).status_code == 200
    changed["paths"]["/orders"]["delete"] = changed["paths"]["/orders"].pop("get")
    await imported(client, document=changed, base_url="https://x.example")
    tool = (await client.get("/tools/shop_put_order")).json()
    assert (tool["version"], tool["description"].startswith("Change one order")) == (3, True)
    assert {name: tool[name] for name in said} == said
    # Whatever a person said of reading it: it changes something now.
    assert (await client.get("/tools/shop_list")).json()["risk"] == "external"


async def test_an_import_that_is_sent_again_reads_nothing(client: httpx.AsyncClient, there: Service) -> None:
    there.answers["/openapi.json"] = [(200, document())]
    key = {"Idempotency-Key": "one"}
    body = {"name": "shop", "url": there.url("/openapi.json")}
    first = (await client.post("/tools/import", json=body, headers=key)).json()
    second = (await client.post("/tools/import", json=body, headers=key)).json()
    assert len(there.of("/openapi.json")) == 1
    assert {each["action"] for each in second["tools"]} == {"unchanged"}
    assert {each["name"] for each in second["tools"]} == {each["name"] for each in first["tools"]}
    other = await client.post("/tools/import", json=body | {"include": ["list"]}, headers=key)
    assert other.json()["code"] == "idempotency_conflict"


async def test_a_document_by_url_is_read_again(client: httpx.AsyncClient, there: Service) -> None:
    there.answers["/api"] = [(200, document())]
    await imported(client, url=there.url("/api"))
    changed = document()
    changed["paths"]["/orders"]["get"]["summary"] = "List the orders"
    there.answers["/api"] = [(200, changed)]
    again = await client.post("/tool-sources/shop/read")
    assert [tool["action"] for tool in again.json()["tools"]] == ["unchanged", "update", "unchanged"]
    there.answers["/api"] = [(500, b"")]
    assert (await client.post("/tool-sources/shop/read")).status_code == 422
    source = (await client.get("/tool-sources/shop")).json()
    assert (source["kind"], source["tools"], source["error"]) == ("openapi", 3, "url: the server answered 500")
    await imported(client, document=document(), base_url="http://x.example")
    assert (await client.post("/tool-sources/shop/read")).status_code == 409


# --- a document of real size ----------------------------------------------------------------------------

CREDENTIALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "header": ({"kind": "api_key", "value": "key-secret-1", "key": "X-Key"}, "x-key", "****"),
    "query": ({"kind": "api_key", "value": "key-secret-1", "in": "query", "key": "key"}, "?key", "****"),
    "bearer": ({"kind": "bearer", "token": "key-secret-1"}, "authorization", "Bearer ****"),
    "basic": ({"kind": "basic", "username": "me", "password": "key-secret-1"}, "authorization", "Basic ****"),
}


async def test_a_document_of_real_size_works_with_every_authentication(
    client: httpx.AsyncClient, there: Service
) -> None:
    grant = {"grant": "client_credentials", "client_id": "me", "client_secret": "client-secret-1"}
    oauth = {"kind": "oauth2", "token_url": there.url("/token"), **grant}
    ways = {**CREDENTIALS, "oauth2": (oauth, "authorization", "Bearer ****")}
    there.answers["/api"] = [(200, large())]
    await client.post("/credentials", json={"name": "c", "kind": "bearer", "token": "another"})
    made = await imported(client, url=there.url("/api"), credential="c")
    assert len(made["tools"]) == OPERATIONS
    assert made["skipped"] == []
    for credential, place, sent in ways.values():
        assert (await client.delete("/credentials/c")).status_code == 204
        assert (await client.post("/credentials", json={"name": "c", **credential})).status_code == 201
        await check_calls(client, place, sent)
    wrong = await client.post(
        "/tools/shop_createThing7/execute", json={"arguments": {"name": "x", "owner": {"kind": 1}}}
    )
    assert (wrong.status_code, wrong.json()["field"].split(".")[:2]) == (422, ["arguments", "owner"])


async def check_calls(client: httpx.AsyncClient, place: str, sent: str) -> None:
    """Three tools of the large document, and how they sent the credential."""
    found = await called(
        client, "shop_listThing7", ids=[1, 2], tags=["a", "b"], filter={"state": "new"}, sort=["x", "y"]
    )
    query = {"ids": ["1,2"], "tags": ["a", "b"], "filter[state]": ["new"], "sort": ["x|y"]}
    assert {name: value for name, value in found["query"].items() if name != "key"} == query
    seen = found["query"]["key"][0] if place.startswith("?") else found["headers"][place]
    assert seen == sent
    assert (await called(client, "shop_getThing7", id="a/b"))["path"] == "/v1/thing7/a%2Fb"
    owner = {"kind": "company", "name": "Tea", "vat": "1"}
    made = await called(client, "shop_createThing7", name="x", owner=owner, note=None, lines=[{"sku": "s", "count": 2}])
    assert json.loads(made["body"]) == {"name": "x", "owner": owner, "note": None, "lines": [{"sku": "s", "count": 2}]}


async def uploaded(client: httpx.AsyncClient, file: bytes, **fields: str) -> httpx.Response:
    return await client.post("/tools/import", files={"file": ("api.yaml", file)}, data={"name": "shop"} | fields)


async def test_a_file_becomes_working_tools(client: httpx.AsyncClient, there: Service) -> None:
    written = yaml.safe_dump(document("3.1.0"), sort_keys=False)
    file = f"{written}x-notes: {'n' * 2_500_000}\n".encode()  # Above what a JSON body may have.
    fields = {"base_url": there.url("/v1"), "include": "list, form", "timeout_seconds": "7"}
    preview = await uploaded(client, file, preview="true", **fields)
    assert preview.status_code == 200, preview.text
    assert {tool["name"] for tool in preview.json()["tools"]} == {"shop_list", "shop_form"}
    assert (await client.get("/tools/shop_list")).status_code == 404
    made = (await uploaded(client, file, **fields)).json()
    assert {tool["action"] for tool in made["tools"]} == {"create"}
    assert (await client.get("/tools/shop_list")).json()["timeout_seconds"] == 7
    again = (await uploaded(client, file, **fields)).json()
    assert {tool["action"] for tool in again["tools"]} == {"unchanged"}


@pytest.mark.parametrize(
    ("file", "fields", "field", "said"),
    [
        (b"\xff\xfe", {}, None, "the field 'file' is not UTF-8"),
        (b"a: [", {}, "document", "neither JSON nor YAML at line"),
        (b"{}", {"name": "1"}, "name", "name"),
        (b"{}", {"url": "https://x.example"}, "url", "neither document nor url"),
        (b"{}", {"preview": "perhaps"}, "preview", "preview"),
        (b"{}", {"colour": "red"}, "colour", "colour"),
        (b" " * 5_200_000, {}, None, "more than 5100000 bytes"),
    ],
    ids=["bytes", "broken", "name", "url", "preview", "unknown", "large"],
)
async def test_a_file_that_is_wrong_is_said_by_field(
    client: httpx.AsyncClient, file: bytes, fields: dict[str, str], field: str | None, said: str
) -> None:
    answer = await uploaded(client, file, **fields)
    assert 400 <= answer.status_code < 500
    assert answer.json().get("field") == field
    assert said in answer.json()["detail"]


async def test_an_import_is_json_or_a_form_with_a_file(client: httpx.AsyncClient) -> None:
    text = await client.post("/tools/import", content=b"openapi: 3.1.0", headers={"Content-Type": "text/yaml"})
    assert text.status_code == 415
    without = await client.post("/tools/import", files={"name": (None, "shop")})
    assert (without.status_code, without.json()["field"]) == (422, "file")


async def test_answers_are_held_to_the_document_only_where_that_is_asked_for(
    client: httpx.AsyncClient, there: Service
) -> None:
    body = {"document": large(), "base_url": there.url("/v1"), "include": ["getThing1"]}
    await imported(client, **body)
    tool = (await client.get("/tools/shop_getThing1")).json()
    assert tool["output_schema"]["required"] == ["id", "name"]
    assert "path" in await called(client, "shop_getThing1", id="1")  # It answers something else than it declares.
    await imported(client, **body, validate_responses=True)
    answer = (await client.post("/tools/shop_getThing1/execute", json={"arguments": {"id": "1"}})).json()
    assert "does not fit output_schema" in answer["error"]
    there.answers["/v1/thing1/1"] = [(200, {"id": 1, "name": "x"})]
    assert await called(client, "shop_getThing1", id="1") == {"id": 1, "name": "x"}


async def test_a_document_that_the_guard_refuses_names_its_field_and_the_setting(client: httpx.AsyncClient) -> None:
    body = {"name": "shop", "url": "http://127.0.0.1:9999/openapi.json"}
    refused = (await client.post("/tools/import", json=body)).json()
    assert (refused["code"], refused["field"]) == ("egress_refused", "url")
    assert "PARLEY_EGRESS_ALLOW" in refused["detail"]
