from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from app.db import Database
from tests.api.test_tasks import SCHEDULED, create


async def enabled(client: httpx.AsyncClient) -> list[bool]:
    """Of all tasks, oldest first."""
    return [task["enabled"] for task in reversed((await client.get("/tasks")).json()["items"])]


async def test_tasks_of_a_filter_are_paused_and_resumed(client: httpx.AsyncClient) -> None:
    made = [await create(client, **SCHEDULED) for _ in range(3)]
    await create(client, task_type="triggered", prompt="x", trigger_config={})
    wanted = {"filter": {"task_type": "scheduled"}, "reason": "release 1.2"}
    assert (await client.post("/tasks/pause", json=wanted | {"dry_run": True})).json() == {"count": 3}
    assert await enabled(client) == [True] * 4
    assert (await client.post("/tasks/pause", json=wanted)).json() == {"count": 3}
    assert await enabled(client) == [False, False, False, True]
    assert (await client.get(f"/tasks/{made[0]['id']}")).json()["paused_reason"] == "release 1.2"
    assert (await client.post("/tasks/pause", json=wanted)).json() == {"count": 0}
    one = {"filter": {"ids": [made[0]["id"]], "agent": "assistant"}}
    assert (await client.post("/tasks/resume", json=one)).json() == {"count": 1}
    rest = {"filter": {"paused_reason": "release 1.2"}}
    assert (await client.post("/tasks/resume", json=rest)).json() == {"count": 2}
    assert await enabled(client) == [True] * 4
    assert (await client.get(f"/tasks/{made[0]['id']}")).json()["paused_reason"] is None
    audit = (await client.get("/audit", params={"action": "tasks.pause"})).json()["items"]
    assert [entry["detail"]["count"] for entry in audit] == [0, 3]


async def test_an_agent_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    for path in ("/tasks/pause", "/tasks/resume", "/runs/cancel"):
        refused = await client.post(path, json={"filter": {"agent": "nobody"}, "dry_run": True})
        assert (refused.status_code, refused.json()["field"]) == (422, "filter.agent"), path
    await client.post("/agents", json={"name": "old"})
    await client.delete("/agents/old")
    assert (await client.post("/tasks/pause", json={"filter": {"agent": "old"}})).json() == {"count": 0}


async def test_what_passed_meanwhile_has_a_row_with_the_reason(client: httpx.AsyncClient, database: Database) -> None:
    task = await create(client, task_type="scheduled", prompt="x", interval_seconds=60)
    by_id = {"filter": {"ids": [task["id"]]}}
    await client.post("/tasks/pause", json=by_id | {"reason": "maintenance"})
    await database.execute("update tasks set next_fire_at = next_fire_at - interval '10 minutes'")
    await client.post("/tasks/resume", json=by_id)
    (fire,) = (await client.get(f"/tasks/{task['id']}/fires")).json()["items"]
    assert (fire["outcome"], fire["reason"]) == ("skipped", "the task was disabled: maintenance")
    assert fire["count"] in (9, 10)
    resumed = (await client.get(f"/tasks/{task['id']}")).json()["next_fire_at"]
    gap = datetime.fromisoformat(resumed) - datetime.fromisoformat(fire["due_until"])
    assert gap == timedelta(seconds=60)  # The interval keeps its phase.


async def test_one_whose_schedule_can_not_be_read_does_not_stop_the_others(
    client: httpx.AsyncClient, database: Database
) -> None:
    broken, _ = [await create(client, **SCHEDULED) for _ in range(2)]
    await client.post("/tasks/pause", json={"filter": {"task_type": "scheduled"}})
    await database.execute(
        "update tasks set timezone = 'Mars/Olympus', next_fire_at = now() where id = $1", broken["id"]
    )
    assert (await client.post("/tasks/resume", json={"filter": {"task_type": "scheduled"}})).json() == {"count": 1}
    assert await enabled(client) == [False, True]


@pytest.mark.parametrize("action", ["pause", "resume"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"filter": {}}, "filter"),
        ({}, "filter"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"filter": {"task_type": "daily"}}, "filter.task_type"),
        ({"filter": {"task_type": "scheduled"}, "dry": True}, "dry"),
    ],
)
async def test_a_filter_must_say_what_it_means(
    client: httpx.AsyncClient, action: str, body: dict[str, Any], field: str
) -> None:
    refused = await client.post(f"/tasks/{action}", json=body)
    assert (refused.status_code, refused.json().get("field")) == (422, field)
