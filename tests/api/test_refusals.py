"""Everything a caller can get wrong answers 4xx, as a problem with a stable code that names the field."""

import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import serve

JSON = {"content-type": "application/json"}
DEEP = '{"name": "x", "input_schema": ' + '{"a":' * 80 + "1" + "}" * 81


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        # Fields.
        ({"name": "x", "sytem": 1}, 422, "unknown_field", "sytem"),
        ({"name": "x", "limits": {"request": 1}}, 422, "unknown_field", "limits.request"),
        ({"name": "x", "model_settings": {"extra_body": {}}}, 422, "unknown_field", "model_settings.extra_body"),
        ({}, 422, "invalid_request", "name"),
        ({"name": 5}, 422, "invalid_request", "name"),
        ({"name": "x", "tools": "calculator"}, 422, "invalid_request", "tools"),
        ({"name": "x", "limits": {"requests": 0}}, 422, "invalid_request", "limits.requests"),
        ({"name": "x", "limits": {"requests": 10**40}}, 422, "invalid_request", "limits.requests"),
        ({"name": "x", "limits": {"tokens": 2**63}}, 422, "invalid_request", "limits.tokens"),
        ({"name": "x", "limits": {"cost_usd": "inf"}}, 422, "invalid_request", "limits.cost_usd"),
        ({"name": "x", "model_settings": {"seed": 2**70}}, 422, "invalid_request", "model_settings.seed"),
        ([], 422, "invalid_request", "body"),
        # Names.
        ({"name": "x", "tools": ["teleport"]}, 422, "unknown_reference", "tools.0"),
        ({"name": "x", "model": "gpt-5"}, 422, "invalid_model", "model"),
        ({"name": "x", "instructions": "{{ broken"}, 422, "invalid_request", "instructions"),
        ({"name": "x", "team": {}}, 422, "not_available", "team"),
        ({"name": "assistant"}, 409, "duplicate", "name"),
        # Text that can't be stored.
        ('{"name": "a\\u0000b"}', 422, "forbidden_text", "name"),
        ('{"name": "x", "instructions": "\\ud800"}', 422, "forbidden_text", "instructions"),
        ('{"name": "x", "input_schema": {"title": ["\\udc00"]}}', 422, "forbidden_text", "input_schema.title.0"),
        ('{"name": "x", "input_schema": {"a\\u0000": 1}}', 422, "forbidden_text", "input_schema"),
        # What is no JSON.
        ("{", 400, "malformed_body", None),
        ("not json", 400, "malformed_body", None),
        (b'{"name": "\xff"}', 400, "malformed_body", None),
        ('{"name": "x", "limits": {"cost_usd": NaN}}', 400, "malformed_body", None),
        ('{"name": "x", "limits": {"cost_usd": 1e999}}', 400, "malformed_body", None),
        ('{"name": "x", "limits": {"requests": ' + "9" * 5000 + "}}", 400, "malformed_body", None),
        ({"name": "x", "input_schema": {"default": -(10**400)}}, 400, "malformed_body", None),
        ('{"name": "a\x00b"}', 400, "malformed_body", None),
        ("[" * 100_000, 400, "malformed_body", None),
        (DEEP, 400, "malformed_body", None),
    ],
)
async def test_a_body(client: httpx.AsyncClient, body: Any, status: int, code: str, field: str | None) -> None:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = await client.post("/agents", content=content, headers=JSON)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem.get("field")) == (status, code, field), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:parley:problem:{code}"
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "wrong", "right"),
    [
        ("/agents", "system_prompt", "instructions"),
        ("/agents", "llm", "model"),
        ("/agents", "temperature", "model_settings"),
        ("/tasks", "cron", "schedule_expression"),
        ("/tasks", "type", "task_type"),
        ("/conversations", "type", "pattern_type"),
        ("/conversations", "context", "context_data"),
    ],
)
async def test_a_known_synonym_is_told_the_right_name(
    client: httpx.AsyncClient, path: str, wrong: str, right: str
) -> None:
    problem = (await client.post(path, json={wrong: "y"})).json()
    assert (problem["code"], problem["field"]) == ("unknown_field", wrong)
    assert problem["detail"].endswith(f"use {right}")


async def test_a_name_that_does_not_fit_here_is_not_offered(client: httpx.AsyncClient) -> None:
    problem = (await client.post("/agents", json={"name": "x", "tz": "UTC"})).json()
    assert problem["detail"] == "there is no field 'tz' here"


async def test_every_wrong_field_is_listed(client: httpx.AsyncClient) -> None:
    problem = (await client.post("/agents", json={"system": 1, "limits": {"depth": -1}})).json()
    assert problem["code"] == "unknown_field"
    assert {each["field"] for each in problem["errors"]} == {"system", "limits.depth", "name"}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", None]
)
async def test_a_content_type_that_is_not_json(client: httpx.AsyncClient, kind: str | None) -> None:
    answer = await client.post("/agents", content='{"name": "x"}', headers={"content-type": kind} if kind else {})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
)
async def test_content_types_that_are_json(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.post("/agents", content='{"name": "x"}', headers={"content-type": kind})
    assert answer.status_code == 201


async def test_a_body_above_the_limit(settings: Any) -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 100

    async with serve(settings.model_copy(update={"parley_max_body_bytes": 1024})) as client:
        for content in (b" " * 2000, chunks()):
            answer = await client.post("/agents", content=content, headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        huge = await client.post("/agents", content=b"{}", headers={**JSON, "content-length": "9" * 50})
        assert huge.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/v1/nowhere", 404, "not_found"),
        ("PUT", "/agents", 405, "method_not_allowed"),
        ("GET", "/agents/nobody", 404, "not_found"),
        ("GET", "/agents/0198c0de-0000-7000-8000-00000000ffff", 404, "not_found"),
        ("DELETE", "/agents/nobody", 404, "not_found"),
        ("POST", "/agents/nobody/publish", 404, "not_found"),
        ("GET", "/tools/nothing", 404, "not_found"),
        ("GET", "/keys/not-a-uuid", 404, "not_found"),
        ("GET", "/keys/0198c0de-0000-7000-8000-00000000ffff", 404, "not_found"),
        ("GET", "/agents/a%00b", 422, "forbidden_text"),
        ("GET", "/agents?cursor=%00", 422, "forbidden_text"),
        ("GET", "/audit?action=%ED%A0%80", 422, "forbidden_text"),
    ],
)
async def test_a_path(client: httpx.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000", "many", "1.5", ""])
async def test_a_page_size_is_never_clamped(client: httpx.AsyncClient, limit: str) -> None:
    answer = await client.get(f"/agents?limit={limit}")
    assert (answer.status_code, answer.json()["field"]) == (422, "limit")


@pytest.mark.parametrize("cursor", ["", "x", "MQ", "é", "A" * 40, "AAAA AAAA", "%2e%2e"])
async def test_a_cursor_that_was_not_issued(client: httpx.AsyncClient, cursor: str) -> None:
    for path in ("/agents", "/tools", "/keys", "/audit", "/workers", "/agents/assistant/versions"):
        answer = await client.get(path, params={"cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_a_cursor_of_another_list(client: httpx.AsyncClient) -> None:
    await client.post("/agents", json={"name": "second"})
    cursor = (await client.get("/agents?limit=1")).json()["next_cursor"]
    assert (await client.get("/agents", params={"cursor": cursor})).status_code == 200
    answer = await client.get("/keys", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "naïve"])
async def test_an_idempotency_key_that_is_none(client: httpx.AsyncClient, key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    answer = await client.post("/agents", json={"name": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("path", "feature"),
    [
        ("/budgets", "budgets"),
        ("/usage", "usage reports"),
        ("/v1/responses", "the OpenAI-compatible API"),
        ("/v1/chat/completions", "the OpenAI-compatible API"),
    ],
)
async def test_what_comes_later_is_refused_by_name(client: httpx.AsyncClient, path: str, feature: str) -> None:
    for method in ("GET", "POST"):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (422, "not_available")
        assert answer.json()["feature"] == feature


async def test_a_fault_inside_says_nothing_about_it(
    client: httpx.AsyncClient, app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the secret of the house")

    answer = await client.get("/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text
    assert "the secret of the house" in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        (
            "/agents",
            {"name": "x", "instructons": "Be brief."},
            "there is no field 'instructons' here: use instructions",
        ),
        ("/agents", {"name": "x", "zzz": 1}, "there is no field 'zzz' here"),
        ("/agents", "hi", "body: should be an object"),
        ("/agents", {"name": "x", "limits": 5}, "limits: should be an object"),
        (
            "/agents",
            {"name": "x", "tools": ["notify"], "approval": {"notify": {"policy": "ask", "expires": 5}}},
            "auto, ask, deny, a rule with a policy, or a list of rules: there is no field 'expires' here",
        ),
        (
            "/tasks",
            {"task_type": "delegation", "prompt": "x", "run_at": "tomorrow"},
            "run_at: should be a time with its offset, such as 2026-01-31T09:00:00Z",
        ),
        (
            "/tasks",
            {"task_type": "delegation", "prompt": "x", "run_at": "2026-01-31T09:00:00"},
            "run_at: should be a time with its offset, such as 2026-01-31T09:00:00Z",
        ),
        (
            "/tasks",
            {"task_type": "delegation", "prompt": "x", "depends_on": ["a"]},
            "depends_on.0: should be an object",
        ),
        (
            "/tasks",
            {"task_type": "scheduled", "prompt": "x", "schedule_expression": "0 9 * * *", "timezone": "Tokyo"},
            "'Tokyo' is not an IANA time zone; did you mean Asia/Tokyo?",
        ),
        (
            "/tasks",
            {
                "task_type": "delegation",
                "prompt": "x",
                "notification_config": {"channels": ["email"], "email_address": "nobody"},
            },
            "notification_config.email_address: not an e-mail address",
        ),
        (
            "/credentials",
            {"name": "x", "kind": "bearer", "value": "secret"},
            "a credential of the kind bearer has no value; it has token",
        ),
        ("/credentials", {"name": "x", "kind": "bearer"}, "token: is required"),
    ],
)
async def test_what_is_said(client: httpx.AsyncClient, path: str, body: Any, detail: str) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]


async def test_a_query_parameter_that_nobody_reads(client: httpx.AsyncClient) -> None:
    for path in ("/runs?stat=failed", "/agents?archive=true", "/agents/assistant?full=1"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field"), path
    assert (await client.get("/runs?stat=failed")).json()["field"] == "stat"
    assert (
        "; there are conversation_id, cursor, limit, state" in (await client.get("/runs?stat=failed")).json()["detail"]
    )
    assert (await client.get("/runs?state=failed&limit=5")).status_code == 200
    made = await client.post("/tasks", json={"task_type": "triggered", "prompt": "x", "trigger_config": {}})
    assert (await client.post(f"/tasks/webhooks/{made.json()['id']}?from=elsewhere", json={})).status_code == 202
