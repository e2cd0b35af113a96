"""A task's input is held to its agent's schema when it is stored, changed and started."""

from typing import Any

import httpx
import pytest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FITS, UNFIT = {"city": "Rome"}, {"city": 5}


@pytest.fixture(autouse=True)
async def _forecaster(client: httpx.AsyncClient) -> None:
    body = {"name": "forecaster", "model": "demo", "input_schema": SCHEMA}
    assert (await client.post("/agents", json=body)).status_code == 201


async def make(client: httpx.AsyncClient, given: Any = None, **fields: Any) -> httpx.Response:
    body = {"task_type": "delegation", "agent": "forecaster", "prompt": "Tell", **fields}
    return await client.post("/tasks", json=body | ({} if given is None else {"input": given}))


async def count(client: httpx.AsyncClient) -> int:
    return len((await client.get("/tasks")).json()["items"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"conversation": "same"},
        {"task_type": "scheduled", "schedule_expression": "0 9 * * *"},
        {"task_type": "research"},
    ],
)
@pytest.mark.parametrize(("given", "field"), [(UNFIT, "input.city"), (None, "input")])
async def test_a_task_whose_input_does_not_fit_is_not_stored(
    client: httpx.AsyncClient, fields: dict[str, Any], given: Any, field: str
) -> None:
    refused = await make(client, given, **fields)
    assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
    assert await count(client) == 0
    assert (await make(client, FITS, **fields)).status_code == 201


async def test_an_agent_named_by_its_id_takes_the_same(client: httpx.AsyncClient) -> None:
    agent_id = (await client.get("/agents/forecaster")).json()["id"]
    assert (await make(client, UNFIT, agent=agent_id)).status_code == 422
    assert (await make(client, FITS, agent=agent_id)).status_code == 201


async def test_a_webhook_brings_its_own_input(client: httpx.AsyncClient) -> None:
    assert (await make(client, task_type="triggered")).status_code == 201
    assert (await make(client, UNFIT, task_type="triggered")).status_code == 422


async def test_a_change_that_does_not_fit_changes_nothing(client: httpx.AsyncClient) -> None:
    task = (await make(client, FITS, task_type="scheduled", schedule_expression="0 9 * * *")).json()
    refused = await client.patch(f"/tasks/{task['id']}", json={"input": UNFIT})
    assert (refused.status_code, refused.json()["field"]) == (422, "input.city")
    assert (await client.get(f"/tasks/{task['id']}")).json()["input"] == FITS
    plain = (
        await client.post("/tasks", json={"task_type": "scheduled", "prompt": "x", "schedule_expression": "0 9 * * *"})
    ).json()
    refused = await client.patch(f"/tasks/{plain['id']}", json={"agent": "forecaster"})
    assert (refused.status_code, refused.json()["field"]) == (422, "input")


async def test_a_task_is_looked_at_again_when_it_is_started_by_hand(client: httpx.AsyncClient, database: Any) -> None:
    task = (await make(client, FITS, task_type="scheduled", schedule_expression="0 9 * * *")).json()
    await database.execute("update tasks set input = '{}'")
    refused = await client.post(f"/tasks/{task['id']}/execute")
    assert (refused.status_code, refused.json()["field"]) == (422, "input")
