"""HTTP tools against a loopback service: templates, every kind of credential, refusals, and no secret anywhere."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.db import Database
from app.settings import Settings
from app.tools import invoke as invoking
from tests.api.conftest import serve
from tests.services import Service, service

TOOL = {"kind": "http", "name": "call_it", "description": "Call the service"}


@pytest.fixture
async def there() -> AsyncIterator[Service]:
    async with service() as made:
        yield made


@pytest.fixture
async def reaching(settings: Settings, there: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that may reach the service."""
    async with serve(allowing(settings, there)) as client:
        yield client


def allowing(settings: Settings, there: Service) -> Settings:
    return settings.model_copy(update={"parley_egress_allow": f"127.0.0.1:{there.port}"})


async def made(client: httpx.AsyncClient, there: Service, path: str = "/echo", **fields: Any) -> dict[str, Any]:
    answer = await client.post("/tools", json=TOOL | {"url": there.url(path)} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def called(client: httpx.AsyncClient, **arguments: Any) -> dict[str, Any]:
    answer = await client.post("/tools/call_it/execute", json={"arguments": arguments})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_templates_become_a_request(reaching: httpx.AsyncClient, there: Service) -> None:
    types = {"id": "string", "n": "integer", "deep": "object", "maybe": "string", "tags": "array"}
    parameters = {"type": "object", "properties": {name: {"type": kind} for name, kind in types.items()}}
    shown = await made(
        reaching,
        there,
        "/echo/{id}/x",
        method="post",
        headers={"X-Id": "no {n}", "X-Maybe": "{maybe}"},
        query={"n": "{n}", "maybe": "{maybe}", "tags": "{tags}", "fixed": 1},
        body={"n": "{n}", "deep": ["{deep}"], "text": "n is {n}", "maybe": "{maybe}"},
        parameters=parameters,
    )
    assert (shown["risk"], shown["idempotent"], shown["timeout_seconds"]) == ("external", False, 5.0)
    result = (await called(reaching, id="a/b?c", n=7, deep={"a": None}, tags=["x", "y"]))["result"]
    assert result["path"] == "/echo/a%2Fb%3Fc/x"
    assert result["query"] == {"n": ["7"], "tags": ["x", "y"], "fixed": ["1"]}
    assert json.loads(result["body"]) == {"n": 7, "deep": [{"a": None}], "text": "n is 7"}
    assert result["headers"]["x-id"] == "no 7"
    assert "x-maybe" not in result["headers"]
    assert "idempotency-key" in result["headers"]
    for wrong in ({"n": "seven"}, {"id": ".."}, {"id": "a/../b"}, {"id": "a\\.."}):
        refused = await reaching.post("/tools/call_it/execute", json={"arguments": {"id": "x"} | wrong})
        assert (refused.status_code, refused.json()["field"]) == (422, f"arguments.{next(iter(wrong))}")


async def test_versions_by_content(reaching: httpx.AsyncClient, there: Service) -> None:
    first = await made(reaching, there, "/echo?q={q}")
    assert first["parameters"]["required"] == ["q"]
    same = (await reaching.patch("/tools/call_it", json={"description": "Call the service"})).json()
    assert (same["version"], same["sha256"]) == (1, first["sha256"])
    changed = (await reaching.patch("/tools/call_it", json={"method": "DELETE"})).json()
    assert (changed["version"], changed["risk"], changed["idempotent"]) == (2, "external", False)
    assert (await reaching.patch("/tools/call_it", json={"code": "x"})).status_code == 422


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://{host}/"}, "url"),
        ({"url": "https://a:b@example.com/"}, "url"),
        ({"method": "CONNECT"}, "method"),
        ({"headers": {"Authorization": "Bearer x"}}, "headers"),
        ({"query": {"a": "{b}"}, "parameters": {"type": "object"}}, "query"),
        ({"parameters": {"type": "array"}}, "parameters"),
        ({"parameters": {"type": "object", "properties": {"a": {"$ref": "http://x/"}}}}, "parameters"),
        ({"output_schema": {"type": "nothing"}}, "output_schema"),
        ({"credential": "missing"}, "credential"),
        ({"code": "async def f(): ..."}, "code"),
    ],
)
async def test_a_wrong_tool_is_refused_by_field(client: httpx.AsyncClient, fields: dict[str, Any], field: str) -> None:
    refused = await client.post("/tools", json=TOOL | {"url": "https://example.com/"} | fields)
    assert (refused.status_code, refused.json().get("field")) == (422, field), refused.text


async def test_what_the_service_answers(reaching: httpx.AsyncClient, there: Service) -> None:
    items = {"items": [{"id": 1}, {"id": 2}]}
    there.answers = {
        "/items": [(200, items)],
        "/gone": [(404, b"no such thing")],
        "/shaky": [(503, b""), (200, {"ok": True})],
        "/large": [(200, b"x" * 1_100_000)],
    }
    await made(reaching, there, "/items", response_path="$.items[*].id", output_schema={"type": "array"})
    assert (await called(reaching))["result"] == [1, 2]
    for path, said in (
        ("/gone", "the service answered 404: no such thing"),
        ("/large", "longer than 1000000 bytes"),
    ):
        await reaching.patch("/tools/call_it", json={"url": there.url(path)})
        assert said in (await called(reaching))["error"]
    changes = {"url": there.url("/shaky"), "response_path": "$.ok", "output_schema": {"type": "string"}}
    await reaching.patch("/tools/call_it", json=changes)
    assert "does not fit output_schema" in (await called(reaching))["error"]
    assert len(there.of("/shaky")) == 2
    there.answers["/shaky"] = [(503, b"")]
    await reaching.patch("/tools/call_it", json={"method": "POST"})
    assert "503" in (await called(reaching))["error"]
    assert len(there.of("/shaky")) == 3  # What is not idempotent is sent once.


async def test_the_guard_stands_before_everything(client: httpx.AsyncClient, there: Service) -> None:
    await made(client, there)
    error = (await called(client))["error"]
    assert "egress: refused" in error
    assert "127.0.0.1" in error
    assert there.asked == []


# --- credentials ----------------------------------------------------------------------------------

STATIC: dict[str, tuple[dict[str, Any], str, str]] = {
    "header": ({"kind": "api_key", "value": "key-secret-1", "key": "X-Key"}, "x-key", "key-secret-1"),
    "query": ({"kind": "api_key", "value": "key-secret-1", "in": "query", "key": "k"}, "?k", "key-secret-1"),
    "bearer": ({"kind": "bearer", "token": "key-secret-1"}, "authorization", "Bearer key-secret-1"),
    "basic": (
        {"kind": "basic", "username": "me", "password": "key-secret-1"},
        "authorization",
        "Basic " + base64.b64encode(b"me:key-secret-1").decode(),
    ),
    "headers": ({"kind": "headers", "headers": {"X-A": "key-secret-1"}}, "x-a", "key-secret-1"),
}


@pytest.mark.parametrize("kind", STATIC)
async def test_the_service_is_shown_the_credential_and_nobody_else(
    reaching: httpx.AsyncClient, there: Service, database: Database, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, place, expected = STATIC[kind]
    await reaching.post("/credentials", json=body | {"name": "c"})
    await made(reaching, there, credential="c")
    answer = await called(reaching)
    asked = there.asked[-1]
    assert expected == (asked.query[place[1:]][0] if place.startswith("?") else asked.headers[place])
    there.answers["/echo"] = [(500, expected.encode())]
    failed = await called(reaching)
    assert "500" in failed["error"]
    await without_secrets(database, answer, failed, caplog.text)


async def without_secrets(database: Database, *said: Any) -> None:
    """No table, answer or log line holds a secret as it is or in base64."""
    texts = [str(each) for each in said]
    for row in await database.fetch("select tablename from pg_tables where schemaname = 'public'"):
        texts += [str(dict(each)) for each in await database.fetch(f'select * from "{row["tablename"]}"')]
    encoded = base64.b64encode(b"me:key-secret-1").decode()
    assert [text for text in texts if "-secret-" in text or encoded in text] == []


OAUTH = {"name": "c", "kind": "oauth2", "client_id": "parley", "client_secret": "client-secret-1"}
REFRESH = {"grant": "refresh_token", "refresh_token": "refresh-secret-0"}


async def oauth(client: httpx.AsyncClient, there: Service, **fields: Any) -> None:
    body = OAUTH | {"token_url": there.url("/token")} | fields
    assert (await client.post("/credentials", json=body)).status_code == 201
    await made(client, there, "/guarded", credential="c")


@pytest.mark.parametrize("fields", [{}, REFRESH])
async def test_twenty_calls_at_expiry_in_two_processes_make_one_refresh(
    settings: Settings, there: Service, database: Database, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(allowing(settings, there)) as one, serve(allowing(settings, there)) as two:
        await oauth(one, there, **fields)
        first = await asyncio.gather(*(called(one if n % 2 else two) for n in range(20)))
        assert there.tokens == 1
        await database.execute("update credentials set token_expires_at = now() - interval '1 second'")
        second = await asyncio.gather(*(called(one if n % 2 else two) for n in range(20)))
        assert there.tokens == 2
        assert [each["error"] for each in (*first, *second) if each["error"]] == []
        shown = (await one.get("/credentials/c")).text
    await without_secrets(database, first, second, shown, caplog.text)


async def test_a_call_that_fetched_a_token_shows_neither_refresh_token(
    reaching: httpx.AsyncClient, there: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process that waited for the token of another, and knows nothing of what was rotated with it.
    monkeypatch.setattr(invoking, "without_known", lambda value, workspace_id: value)
    await oauth(reaching, there, **REFRESH)
    there.answers["/says"] = [(200, ["refresh-secret-0", "refresh-secret-1"])]
    await reaching.patch("/tools/call_it", json={"url": there.url("/says")})
    assert (await called(reaching))["result"] == ["****", "****"]


async def test_a_401_fetches_one_new_token(reaching: httpx.AsyncClient, there: Service) -> None:
    await oauth(reaching, there)
    await called(reaching)
    there.valid = "revoked"
    answers = await asyncio.gather(*(called(reaching) for _ in range(5)))
    assert (there.tokens, [each["error"] for each in answers]) == (2, [None] * 5)
    assert answers[0]["result"] == {"you": "Bearer ****"}


async def test_the_client_proves_itself_the_way_the_server_wants(reaching: httpx.AsyncClient, there: Service) -> None:
    there.client_auth = "basic"
    await oauth(reaching, there)
    assert (await called(reaching))["error"] is None
    assert there.of("/token")[-1].headers["authorization"].startswith("Basic ")


async def test_a_refused_token_says_why_without_the_secret(
    reaching: httpx.AsyncClient, there: Service, database: Database
) -> None:
    await oauth(reaching, there, **REFRESH | {"refresh_token": "refresh-secret-9"})
    failed = await called(reaching)
    assert "the token endpoint answered 400 invalid_grant ****" in failed["error"]
    await without_secrets(database, failed)
    assert await database.fetchval("select refresher from credentials") is None


async def test_a_client_that_is_refused_sees_its_header_in_no_spelling(
    reaching: httpx.AsyncClient, there: Service, database: Database
) -> None:
    await oauth(reaching, there, client_auth="basic")
    failed = await called(reaching)
    assert "the token endpoint answered 401 invalid_client not None Basic ****" in failed["error"]
    sent = there.of("/token")[-1].headers["authorization"].partition(" ")[2]
    assert base64.b64decode(sent) == b"parley:client-secret-1"
    assert sent.rstrip("=") not in str(failed)
    await without_secrets(database, failed)


async def test_a_deleted_credential_is_gone_at_once(reaching: httpx.AsyncClient, there: Service) -> None:
    await oauth(reaching, there)
    await called(reaching)
    await reaching.delete("/credentials/c")
    assert "there is no credential 'c'" in (await called(reaching))["error"]
