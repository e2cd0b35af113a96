"""Keys, scopes, foreign pages and too many requests."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.api import access
from app.api.limits import Limit, RateLimits
from app.errors import ConfigurationError, RateLimited
from app.main import create_app
from app.settings import Settings
from tests.api.conftest import ADMIN_KEY, Link, bearer, serve

ADMIN = bearer(ADMIN_KEY)


async def make_key(client: httpx.AsyncClient, *scopes: str, **values: Any) -> dict[str, Any]:
    made = await client.post("/keys", json={"name": "k", "scopes": list(scopes), **values}, headers=ADMIN)
    assert made.status_code == 201, made.text
    return made.json()


async def test_without_a_key(guarded: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("x"), bearer("parley_" + "0" * 32 + "_" + "a" * 43), {"Authorization": "Basic eDp5"}):
        answer = await guarded.get("/agents", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/metrics"):
        assert (await guarded.get(path)).status_code == 200


async def test_scopes(guarded: httpx.AsyncClient) -> None:
    key = bearer((await make_key(guarded, "agents:read"))["key"])
    assert (await guarded.get("/agents", headers=key)).status_code == 200
    for method, path, scope in (
        ("POST", "/agents", "agents:write"),
        ("GET", "/tools", "tools:read"),
        ("GET", "/keys", "admin"),
        ("GET", "/settings", "admin"),
        ("GET", "/audit", "admin"),
    ):
        answer = await guarded.request(method, path, headers=key, json={"name": "x"} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
        assert answer.json()["scope"] == scope


async def test_a_key_is_shown_once_and_ends_when_revoked(guarded: httpx.AsyncClient) -> None:
    made = await make_key(guarded, "admin", expires_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    key = bearer(made["key"])
    shown = (await guarded.get(f"/keys/{made['id']}", headers=key)).json()
    assert "key" not in shown
    assert made["key"] not in (await guarded.get("/keys", headers=key)).text
    assert (await guarded.delete(f"/keys/{made['id']}", headers=ADMIN)).status_code == 204
    assert (await guarded.get("/keys", headers=key)).status_code == 401
    assert (await guarded.delete(f"/keys/{made['id']}", headers=ADMIN)).status_code == 204
    entries = (await guarded.get("/audit", headers=ADMIN)).json()["items"]
    assert [entry["action"] for entry in entries] == ["key.revoke", "key.revoke", "key.create"]
    assert entries[0]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "k", "scopes": ["root"]}, "scopes.0"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"scopes": ["admin"]}, "name"),
        ({"name": "k", "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "k", "scopes": ["admin"], "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
    ],
)
async def test_a_key_that_is_not_made(client: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await client.post("/keys", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


# --- with authentication off ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "localhost"])
async def test_this_machine_may_call(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/agents", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "192.168.1.5:8000", "[", "localhost@evil"]
)
async def test_a_foreign_host_is_refused(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/agents", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[", ""])
async def test_a_foreign_page_is_refused(client: httpx.AsyncClient, origin: str) -> None:
    answer = await client.post("/agents", json={"name": "x"}, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    assert (await client.get("/agents/x")).status_code == 404


async def test_allowed_origins_may_call_and_ask_first(settings: Settings) -> None:
    origin = "https://app.example.com"
    async with serve(settings.model_copy(update={"parley_cors_origins": origin})) as client:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked = await client.options("/agents", headers=headers)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, origin)
        answer = await client.post("/agents", json={"name": "x"}, headers={"Origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, origin)


def test_authentication_can_not_be_off_for_others(settings: Settings) -> None:
    open_to_all = settings.model_copy(update={"parley_host": "0.0.0.0", "parley_auth": "off"})
    with pytest.raises(ConfigurationError, match="PARLEY_AUTH"):
        create_app(open_to_all)


def test_the_playground_says_that_it_comes_later(settings: Settings) -> None:
    with (
        TestClient(create_app(settings), base_url="http://localhost") as client,
        client.websocket_connect("/api/v1/playground/assistant", headers={"host": "localhost"}) as socket,
    ):
        assert socket.receive_json()["code"] == "not_available"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()
    with (
        TestClient(create_app(settings)) as client,
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/playground/assistant", headers={"host": "evil.example"}),
    ):
        pass


# --- rate limits --------------------------------------------------------------------------------------


@pytest.fixture
async def limits(settings: Settings) -> AsyncIterator[RateLimits]:
    made = RateLimits(settings.redis_dsn())
    yield made
    await made.aclose()


async def test_a_shared_limit_counts_across_processes(limits: RateLimits, settings: Settings) -> None:
    other = RateLimits(settings.redis_dsn())
    for each in (limits, other, limits):
        await each.check(Limit("test", 3), "someone")
    with pytest.raises(RateLimited) as refused:
        await other.check(Limit("test", 3), "someone")
    assert 1 <= (refused.value.retry_after or 0) <= 20
    await other.check(Limit("test", 3), "someone else")
    await other.aclose()


async def test_limits_hold_without_redis(cluster: Any) -> None:
    url = httpx.URL(cluster.redis_url)
    async with Link(url.host, url.port or 6379) as link:
        limits = RateLimits(str(url.copy_with(port=link.port)))
        await limits.check(Limit("test", 2), "someone")
        await link.cut()
        for _ in range(2):
            await limits.check(Limit("test", 2), "someone")
        with pytest.raises(RateLimited):
            await limits.check(Limit("test", 2), "someone")
        await limits.aclose()


async def test_too_many_requests_are_told_when_to_come_again(
    guarded: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "READS", Limit("read", 3))
    answers = [await guarded.get("/agents", headers=ADMIN) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    last = answers[-1]
    assert last.json()["code"] == "rate_limited"
    assert int(last.headers["retry-after"]) >= 1
    assert (last.headers["ratelimit-limit"], last.headers["ratelimit-remaining"]) == ("3", "0")
    assert int(last.headers["ratelimit-reset"]) >= 1


async def test_guessing_keys_is_slowed_down(guarded: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "STRANGERS", Limit("stranger", 3, shared=False))
    answers = [await guarded.get("/agents", headers=bearer(f"guess {number}")) for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]


async def test_a_local_client_may_be_quick(client: httpx.AsyncClient) -> None:
    answers = [await client.get("/tools/calculator") for _ in range(400)]
    assert {answer.status_code for answer in answers} == {200}
