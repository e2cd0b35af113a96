"""The history of a tool: its calls and their numbers."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.db import DEFAULT_WORKSPACE, Database
from app.models import new_id
from app.tools.history import first_id
from tests.api.test_tools import REVERSE

CALL = """
insert into tool_calls (id, workspace_id, tool_call_id, tool, arguments, args_sha256, state, idempotent, risk, fence,
    duration_ms, cost_usd)
values ($1, $2, 'x', $3, '{}', 'x', $4, true, 'read', 0, $5, $6)
"""


async def test_calls_are_listed_newest_first_with_what_they_were_given_and_gave(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json=REVERSE)
    for text in ("one", "two", "three"):
        await client.post("/tools/reverse_string/execute", json={"arguments": {"text": text}})
    first = (await client.get("/tools/reverse_string/calls", params={"limit": 2})).json()
    assert [(call["arguments"]["text"], call["result"]) for call in first["items"]] == [
        ("three", "eerht"),
        ("two", "owt"),
    ]
    assert {"version": 1, "state": "done", "run_id": None, "risk": "code", "cost_usd": 0.0}.items() <= first["items"][
        0
    ].items()
    cursor = first["next_cursor"]
    rest = (await client.get("/tools/reverse_string/calls", params={"limit": 2, "cursor": cursor})).json()
    assert [call["arguments"]["text"] for call in rest["items"]] == ["one"]
    assert rest["next_cursor"] is None


async def test_a_built_in_tools_calls_in_runs_are_there_too(client: httpx.AsyncClient) -> None:
    answer = await client.post("/runs", json={"message": "what is 2+3?"})
    (call,) = (await client.get("/tools/calculator/calls")).json()["items"]
    assert (call["run_id"], call["state"], call["tool"]) == (answer.json()["run_id"], "done", "calculator")
    assert (await client.get("/tools/calculator/calls?state=failed")).json()["items"] == []


async def test_the_numbers_are_those_of_the_time_asked_for(client: httpx.AsyncClient, database: Database) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    rows = [("done", n, 0.01) for n in range(1, 98)] + [("failed", 98, None), ("unknown", None, 0), ("denied", None, 0)]
    for state, duration, cost in rows:
        await database.execute(CALL, new_id(), DEFAULT_WORKSPACE, "calculator", state, duration, cost)
    old = first_id(since - timedelta(days=1))
    await database.execute(CALL, old, DEFAULT_WORKSPACE, "calculator", "failed", 5000.0, 7)
    stats = (await client.get("/tools/calculator/stats", params={"since": since.isoformat()})).json()
    assert stats["states"] == {"done": 97, "failed": 1, "unknown": 1, "denied": 1}
    assert (stats["calls"], stats["cost_unknown"]) == (100, True)
    assert stats["error_rate"] == pytest.approx(2 / 99)
    assert stats["cost_usd"] == pytest.approx(0.97)
    assert stats["duration_ms"] == pytest.approx({"p50": 49.5, "p95": 93.15, "p99": 97.03})
    everything = (await client.get("/tools/calculator/stats", params={"since": "2001-01-01T00:00:00Z"})).json()
    assert everything["calls"] == 101


async def test_a_tool_without_calls_has_empty_numbers_and_an_unknown_one_is_not_found(
    client: httpx.AsyncClient,
) -> None:
    stats = (await client.get("/tools/calculator/stats")).json()
    assert (stats["calls"], stats["states"], stats["error_rate"]) == (0, {}, None)
    assert stats["duration_ms"] == {"p50": None, "p95": None, "p99": None}
    for path in ("/tools/nothing/stats", "/tools/nothing/calls"):
        assert (await client.get(path)).status_code == 404
