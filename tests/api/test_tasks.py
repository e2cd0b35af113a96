"""/tasks over HTTP: the contract's examples, refusals, secrets, starts by hand, fires, previews."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.db import Database

SLACK = "https://hooks.slack.com/services/T000/B000/abcdefghijkl"
DELEGATION = {"task_type": "delegation", "prompt": "What is 6*7?"}
SCHEDULED = {"task_type": "scheduled", "prompt": "Report.", "schedule_expression": "0 9 * * *"}
NOBODY = "00000000-0000-7000-8000-000000000009"


async def create(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/tasks", json=body)
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == f"/tasks/{response.json()['id']}"
    return response.json()


async def test_a_delegation_starts_at_once(client: httpx.AsyncClient) -> None:
    mail = {"channels": ["email"], "email_address": "user@example.com"}
    task = await create(client, **DELEGATION, notification_config=mail, input={"numbers": [1]}, priority=5)
    assert (task["state"], task["title"], task["agent"]) == ("queued", "What is 6*7?", "assistant")
    run = task["latest_run"]
    assert (run["task_id"], run["conversation_id"]) == (task["id"], task["conversation_id"])
    assert run["reason"]
    conversation = (await client.get(f"/conversations/{task['conversation_id']}")).json()
    assert (conversation["pattern_type"], conversation["task_id"]) == ("delegation", task["id"])
    (pending,) = (await client.get(f"/conversations/{task['conversation_id']}/messages")).json()["pending"]
    assert pending["text"] == "What is 6*7?"
    assert (await client.get(f"/runs/{run['id']}")).json()["id"] == run["id"]


async def test_the_examples_slack_address_is_warned_of(client: httpx.AsyncClient) -> None:
    example = {"channels": ["slack"], "slack_webhook_url": "https://hooks.slack.com/services/YOUR/WEBHOOK"}
    task = await create(client, **SCHEDULED, notification_config=example)
    assert [each["code"] for each in task["warnings"]] == ["placeholder"]
    real = {"notification_config": {"channels": ["slack"], "slack_webhook_url": SLACK}}
    assert (await client.patch(f"/tasks/{task['id']}", json=real)).json()["warnings"] == []


async def test_a_delegation_may_start_later(client: httpx.AsyncClient) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    task = await create(client, **DELEGATION, run_at=later)
    assert task["state"] == "queued"
    assert task["latest_run"]["reason"].startswith("starts ")


async def test_a_schedule_waits_for_its_instant(client: httpx.AsyncClient) -> None:
    slack = {"channels": ["slack"], "slack_webhook_url": SLACK}
    task = await create(client, **SCHEDULED, notification_config=slack, timezone="Europe/Berlin")
    assert (task["state"], task["latest_run"], task["overlap"], task["catch_up"]) == ("idle", None, "skip", "latest")
    due = datetime.fromisoformat(task["next_fire_at"])
    assert due > datetime.now(UTC)
    assert due.minute == 0
    assert task["notification_config"]["slack_webhook_url"] == "****ijkl"
    assert "abcdefgh" not in (await client.get(f"/tasks/{task['id']}")).text


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        (DELEGATION | {"agent": "nobody"}, "agent", "unknown_reference"),
        (DELEGATION | {"system_prompt": "x"}, "system_prompt", "unknown_field"),
        (DELEGATION | {"depends_on": [{"task": "x"}]}, "depends_on.0.task", "invalid_request"),
        (DELEGATION | {"depends_on": [{"task": NOBODY}]}, "depends_on.0.task", "unknown_reference"),
        (DELEGATION | {"depends_on": [{"task": NOBODY, "on": "failure"}]}, "depends_on.0.on", "invalid_request"),
        (DELEGATION | {"depends_on": [{"task": NOBODY}] * 2}, "depends_on", "invalid_request"),
        (DELEGATION | {"depends_on": [{"task": NOBODY}] * 21}, "depends_on", "invalid_request"),
        (DELEGATION | {"depends_on": NOBODY}, "depends_on", "invalid_request"),
        (DELEGATION | {"priority": "high"}, "priority", "invalid_request"),
        (SCHEDULED | {"schedule_expression": "nope"}, "schedule_expression", "invalid_schedule"),
        (SCHEDULED | {"timezone": "Mars/Olympus"}, "timezone", "invalid_timezone"),
        (SCHEDULED | {"schedule_expression": None, "run_at": "2001-01-01T00:00:00Z"}, "run_at", "invalid_request"),
        (
            SCHEDULED | {"notification_config": {"channels": ["slack"], "slack_webhook_url": "http://127.0.0.1/x"}},
            "notification_config.slack_webhook_url",
            "invalid_request",
        ),
        (DELEGATION | {"prompt": "NUL \x00"}, "prompt", "forbidden_text"),
    ],
)
async def test_refusals_name_the_field(client: httpx.AsyncClient, body: dict[str, Any], field: str, code: str) -> None:
    response = await client.post("/tasks", json=body)
    assert response.status_code == 422, response.text
    assert (response.json()["field"], response.json()["code"]) == (field, code)
    assert (await client.get("/tasks")).json()["items"] == []


async def test_an_idempotency_key_makes_one_task_and_one_run(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = (await client.post("/tasks", json=DELEGATION, headers=headers)).json()
    again = await client.post("/tasks", json=DELEGATION, headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, first["id"])
    assert len((await client.get("/runs", params={"task_id": first["id"]})).json()["items"]) == 1
    other = await client.post("/tasks", json=DELEGATION | {"prompt": "Else"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_by_hand(client: httpx.AsyncClient) -> None:
    task = await create(client, **SCHEDULED)
    headers = {"Idempotency-Key": "now"}
    response = await client.post(f"/tasks/{task['id']}/execute", headers=headers)
    assert response.status_code == 202
    run = response.json()
    assert response.headers["Location"] == f"/runs/{run['id']}"
    again = await client.post(f"/tasks/{task['id']}/execute", headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, run["id"])
    (fire,) = (await client.get(f"/tasks/{task['id']}/fires")).json()["items"]
    assert (fire["kind"], fire["outcome"], fire["run_id"], fire["count"]) == ("manual", "run", run["id"], 1)
    assert (await client.get(f"/tasks/{task['id']}")).json()["latest_run"]["id"] == run["id"]


async def test_changes(client: httpx.AsyncClient) -> None:
    task = await create(client, **SCHEDULED, notification_config={"channels": ["slack"], "slack_webhook_url": SLACK})
    changed = (await client.patch(f"/tasks/{task['id']}", json={"interval_seconds": 60, "priority": 3})).json()
    assert (changed["schedule_expression"], changed["interval_seconds"], changed["priority"]) == (None, 60, 3)
    due = datetime.fromisoformat(changed["next_fire_at"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < due <= timedelta(seconds=61)
    assert changed["version"] == task["version"] + 1
    kept = (await client.patch(f"/tasks/{task['id']}", json={"title": "Mine"})).json()
    assert (kept["next_fire_at"], kept["title"]) == (changed["next_fire_at"], "Mine")
    mask = {"channels": ["slack"], "slack_webhook_url": "****ijkl", "on": ["failed"]}
    masked = (await client.patch(f"/tasks/{task['id']}", json={"notification_config": mask})).json()
    assert masked["notification_config"]["slack_webhook_url"] == "****ijkl"
    wrong = await client.patch(
        f"/tasks/{task['id']}", json={"notification_config": mask | {"slack_webhook_url": "****"}}
    )
    assert wrong.status_code == 422
    refused = await client.patch(f"/tasks/{task['id']}", json={"interval_seconds": 1})
    assert (refused.status_code, refused.json()["field"]) == (422, "interval_seconds")
    assert (await client.patch(f"/tasks/{task['id']}", json={"task_type": "research"})).status_code == 422


async def test_off_and_on_and_away(client: httpx.AsyncClient) -> None:
    task = await create(client, **SCHEDULED)
    path = f"/tasks/{task['id']}"
    off = (await client.post(f"{path}/disable")).json()
    assert (off["enabled"], off["next_fire_at"]) == (False, None)
    assert (await client.post(f"{path}/disable")).status_code == 200
    on = (await client.post(f"{path}/enable")).json()
    assert on["enabled"]
    assert on["next_fire_at"] == task["next_fire_at"]
    assert (await client.patch(path, json={"enabled": False})).json()["enabled"] is False
    assert (await client.delete(path)).status_code == 204
    for method, where in (("GET", path), ("DELETE", path), ("POST", f"{path}/execute"), ("GET", f"{path}/fires")):
        assert (await client.request(method, where)).status_code == 404


async def test_one_conversation_for_all_starts(client: httpx.AsyncClient) -> None:
    task = await create(client, **SCHEDULED)
    path = f"/tasks/{task['id']}"
    await client.post(f"{path}/execute")
    same = (await client.patch(path, json={"conversation": "same"})).json()
    runs = [(await client.post(f"{path}/execute")).json() for _ in range(2)]
    assert {run["conversation_id"] for run in runs} == {(await client.get(path)).json()["conversation_id"]}
    assert same["latest_run"]["conversation_id"] != runs[0]["conversation_id"]


async def test_lists_and_filters(client: httpx.AsyncClient) -> None:
    ids = [(await create(client, **SCHEDULED))["id"] for _ in range(3)] + [(await create(client, **DELEGATION))["id"]]
    page = (await client.get("/tasks", params={"limit": 2})).json()
    assert [task["id"] for task in page["items"]] == ids[:1:-1]
    rest = (await client.get("/tasks", params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert [task["id"] for task in rest["items"]] == ids[1::-1]
    assert rest["next_cursor"] is None
    for query, found in (({"task_type": "delegation"}, 1), ({"state": "queued"}, 1), ({"state": "idle"}, 3), ({"enabled": False}, 0)):  # fmt: skip
        assert len((await client.get("/tasks", params=query)).json()["items"]) == found
    for query in ({"limit": 101}, {"cursor": "made up"}, {"state": "odd"}):
        assert 400 <= (await client.get("/tasks", params=query)).status_code < 500


async def test_the_agent_version_is_kept(client: httpx.AsyncClient) -> None:
    task = await create(client, **SCHEDULED)
    await client.patch("/agents/assistant", json={"instructions": "Be brief."})
    await client.post("/agents/assistant/publish")
    assert (await client.post(f"/tasks/{task['id']}/execute")).json()["agent_version"] == 1
    fresh = (await client.patch(f"/tasks/{task['id']}", json={"agent": "assistant"})).json()
    assert fresh["agent_version"] == 2


async def test_a_preview_notes_clock_changes(client: httpx.AsyncClient) -> None:
    body = {
        "schedule_expression": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "count": 2,
        "from": "2026-03-28T00:00:00Z",
    }
    response = await client.post("/tasks/schedule/preview", json=body)
    assert response.status_code == 200
    preview = response.json()
    assert preview["description"] == "At 02:30 (Europe/Berlin)"
    assert [each["utc"] for each in preview["next"]] == ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"]
    assert preview["next"][1]["local"] == "2026-03-29T03:00:00+02:00"
    assert "clocks go forward" in preview["next"][1]["note"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"schedule_expression": "* * *"}, "schedule_expression"),
        ({"schedule_expression": "* * * * *", "timezone": "X"}, "timezone"),
        ({"schedule_expression": "* * * * *", "count": 0}, "count"),
        ({"schedule_expression": "* * * * *", "from": "now"}, "from"),
        ({}, "schedule_expression"),
    ],
)
async def test_previews_refuse_by_field(client: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    response = await client.post("/tasks/schedule/preview", json=body)
    assert (response.status_code, response.json()["field"]) == (422, field)


async def test_acts_are_written_down(client: httpx.AsyncClient, app: FastAPI) -> None:
    task = await create(client, **SCHEDULED)
    await client.post(f"/tasks/{task['id']}/disable")
    acts = (await client.get("/audit", params={"subject_id": task["id"]})).json()["items"]
    assert [act["action"] for act in acts] == ["task.disable", "task.create"]


async def test_a_task_waits_for_another(client: httpx.AsyncClient) -> None:
    first = await create(client, **DELEGATION, title="Import")
    after = [{"task": first["id"], "on": "any"}]
    then = await create(client, **DELEGATION, depends_on=after)
    shown = [{"task": first["id"], "title": "Import", "on": "any", "state": "queued"}]
    assert (then["state"], then["depends_on"]) == ("waiting", shown)
    run = then["latest_run"]
    assert (run["reason"], run["waiting_for"]) == ("waiting for the task Import (queued)", ["dependency"])
    (listed, _) = (await client.get("/tasks")).json()["items"]
    assert listed["depends_on"] == shown
    explained = (await client.get(f"/runs/{run['id']}/explain")).json()
    assert explained["next_action"]["command"] == f"parley runs cancel {run['id']}"
    events = (await client.get(f"/runs/{run['id']}/events", headers={"Accept": "application/json"})).json()["items"]
    assert [(event["event"], event["data"]["waiting_for"]) for event in events] == [("run.waiting", ["dependency"])]
    circle = {"depends_on": [{"task": then["id"]}]}
    refused = await client.patch(f"/tasks/{first['id']}", json=circle)
    assert (refused.status_code, refused.json()["field"]) == (422, "depends_on")
    assert "would wait for each other: 'Import'" in refused.json()["detail"]
    await client.post(f"/runs/{first['latest_run']['id']}/cancel")
    assert (await until(client, run["id"], "queued"))["waiting_for"] == []
    free = await client.patch(f"/tasks/{then['id']}", json={"depends_on": None})
    assert free.json()["depends_on"] == []


async def test_a_task_that_waits_for_what_went_wrong_fails_at_once(client: httpx.AsyncClient) -> None:
    first = await create(client, **DELEGATION, title="Import")
    await client.post(f"/runs/{first['latest_run']['id']}/cancel")
    then = await create(client, **DELEGATION, depends_on=[{"task": first["id"]}])
    error = (await until(client, then["latest_run"]["id"], "failed"))["error"]
    assert error["code"] == "dependency_failed"
    assert "'Import'" in error["message"]


async def until(client: httpx.AsyncClient, run_id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (run := (await client.get(f"/runs/{run_id}")).json())["state"] != state:
            await asyncio.sleep(0.01)
    return run


@pytest.mark.parametrize(
    "stored",
    [{"channels": ["slack"], "slack_channel": "#ops", "on": ["failed"]}, {"channels": ["pager"], "on": ["failed"]}],
    ids=["without its token", "by a channel that is gone"],
)
async def test_what_a_change_does_not_send_is_not_checked_again(
    client: httpx.AsyncClient, database: Database, stored: dict[str, Any]
) -> None:
    path = f"/tasks/{(await create(client, **SCHEDULED))['id']}"
    await database.execute("update tasks set notification_config = $1", stored)
    changed = await client.patch(path, json={"title": "x"})
    assert (changed.status_code, changed.json()["title"]) == (200, "x"), changed.text
    assert changed.json()["notification_config"] == stored
    refused = await client.patch(path, json={"notification_config": stored})
    assert refused.status_code == 422
    assert refused.json()["field"].startswith("notification_config.")
