from typing import Any

import httpx
import pytest

from app.db import Database


async def queued(client: httpx.AsyncClient, count: int) -> list[str]:
    return [
        (await client.post("/runs", json={"message": "Hello", "background": True})).json()["run_id"]
        for _ in range(count)
    ]


async def states(client: httpx.AsyncClient, runs: list[str]) -> list[str]:
    return [(await client.get(f"/runs/{run}")).json()["state"] for run in runs]


async def test_a_dry_run_counts_and_does_nothing(client: httpx.AsyncClient) -> None:
    runs = await queued(client, 3)
    body = {"filter": {"state": "queued"}, "dry_run": True}
    assert (await client.post("/runs/cancel", json=body)).json() == {"count": 3}
    assert await states(client, runs) == ["queued"] * 3


async def test_runs_of_a_filter_are_cancelled_and_tried_again(client: httpx.AsyncClient, database: Database) -> None:
    runs = await queued(client, 3)
    some = {"filter": {"ids": runs[:2], "agent": "assistant"}}
    assert (await client.post("/runs/cancel", json=some)).json() == {"count": 2}
    assert await states(client, runs) == ["cancelled", "cancelled", "queued"]
    again = await client.post("/runs/retry", json={"filter": {"error_code": "cancelled"}})
    assert again.json() == {"count": 2}
    made = await database.fetch("select retry_of from runs where retry_of is not null order by id")
    assert [str(row["retry_of"]) for row in made] == runs[:2]
    assert (await client.post("/runs/retry", json={"filter": {"ids": runs}})).json() == {"count": 0}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"filter": {}}, "filter"),
        ({}, "filter"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"filter": {"state": "lost"}}, "filter.state"),
        ({"filter": {"state": "queued"}, "dry": True}, "dry"),
    ],
)
async def test_a_filter_must_say_what_it_means(client: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    refused = await client.post("/runs/cancel", json=body)
    assert (refused.status_code, refused.json().get("field")) == (422, field)
