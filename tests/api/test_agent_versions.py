"""Which versions of an agent were published, over HTTP: rollback, and agents that come back from the archive."""

import asyncio
from typing import Any

import httpx


async def published(client: httpx.AsyncClient) -> list[tuple[int, bool]]:
    versions = (await client.get("/agents/reporter/versions")).json()["items"]
    return [(each["version"], each["published_at"] is not None) for each in versions]


async def rolled_back(client: httpx.AsyncClient, body: dict[str, Any] | None = None) -> httpx.Response:
    return await client.post("/agents/reporter/rollback", json=body)


async def drafted(client: httpx.AsyncClient, text: str, *, publish: bool = False) -> None:
    assert (await client.patch("/agents/reporter", json={"instructions": text})).status_code == 200
    if publish:
        assert (await client.post("/agents/reporter/publish")).status_code == 200


async def test_a_rollback_never_serves_what_nobody_published(client: httpx.AsyncClient) -> None:
    await client.post("/agents", json={"name": "reporter", "instructions": "one"})
    await drafted(client, "two")
    await drafted(client, "three", publish=True)
    assert await published(client) == [(3, True), (2, False), (1, True)]
    named = await rolled_back(client, {"version": 2})
    assert (named.status_code, named.json()["code"]) == (409, "conflict")
    assert "never published" in named.json()["detail"]
    assert (await rolled_back(client)).json()["instructions"] == "one"
    assert (await rolled_back(client)).status_code == 409
    assert (await client.get("/agents/reporter")).json()["published_version"] == 1


async def test_rollbacks_step_through_what_was_published(client: httpx.AsyncClient) -> None:
    await client.post("/agents", json={"name": "reporter", "instructions": "one"})
    await drafted(client, "two", publish=True)
    await drafted(client, "three", publish=True)
    assert (await client.post("/agents/reporter/publish", json={"version": 1})).status_code == 200
    # Version 1 was published last, after 3, after 2.
    assert [(await rolled_back(client)).json()["version"] for _ in range(2)] == [3, 2]
    assert (await rolled_back(client)).status_code == 409
    assert (await rolled_back(client, {"version": 3})).json()["version"] == 3
    unknown = await rolled_back(client, {"version": 9})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "version")


async def test_a_list_of_versions_tells_when_each_was_made_and_whether_it_was_served(client: httpx.AsyncClient) -> None:
    made = (await client.post("/agents", json={"name": "reporter", "instructions": "one"})).json()
    await drafted(client, "two", publish=True)
    await drafted(client, "three")
    versions = (await client.get("/agents/reporter/versions")).json()["items"]
    assert [each["status"] for each in versions] == ["draft", "published", "superseded"]
    third, second, first = (each["created_at"] for each in versions)
    assert third > second > first
    assert (await client.get("/agents/reporter")).json()["created_at"] == made["created_at"]
    await rolled_back(client)
    versions = (await client.get("/agents/reporter/versions")).json()["items"]
    assert [each["status"] for each in versions] == ["draft", "superseded", "published"]


async def test_publishes_at_once_leave_an_order(client: httpx.AsyncClient) -> None:
    await client.post("/agents", json={"name": "reporter", "instructions": "one"})
    await drafted(client, "two")
    await drafted(client, "three")
    both = [client.post("/agents/reporter/publish", json={"version": number}) for number in (2, 3)]
    assert {answer.status_code for answer in await asyncio.gather(*both)} == {200}
    last = (await client.get("/agents/reporter")).json()["version"]
    assert [(await rolled_back(client)).json()["version"] for _ in range(2)] == [5 - last, 1]


async def test_an_applied_version_is_published_and_a_draft_is_not(client: httpx.AsyncClient) -> None:
    await client.put("/agents/reporter", json={"instructions": "one"})
    await client.put("/agents/reporter", json={"instructions": "two"}, params={"publish": False})
    assert await published(client) == [(2, False), (1, True)]
    diff = (await client.get("/agents/reporter/diff")).json()
    assert diff["before_published_at"] is not None
    assert diff["after_published_at"] is None
    await client.put("/agents/reporter", json={"instructions": "two"})
    assert await published(client) == [(2, True), (1, True)]


async def test_a_deleted_agent_comes_back_as_it_was(client: httpx.AsyncClient) -> None:
    made = (await client.post("/agents", json={"name": "reporter", "instructions": "one"})).json()
    assert (made["archived_at"], (await client.get("/agents?archived=true")).json()["items"]) == (None, [])
    assert (await client.delete("/agents/reporter")).status_code == 204
    archived = (await client.get("/agents?archived=true")).json()["items"]
    assert [(each["id"], each["archived_at"] is not None) for each in archived] == [(made["id"], True)]
    assert made["id"] not in [each["id"] for each in (await client.get("/agents")).json()["items"]]

    other = (await client.post("/agents", json={"name": "reporter", "instructions": "other"})).json()
    taken = await client.post(f"/agents/{made['id']}/unarchive")
    assert (taken.status_code, taken.json()["code"]) == (409, "duplicate")
    await client.delete("/agents/reporter")
    back = await client.post("/agents/reporter/unarchive")
    assert (back.status_code, back.json()["id"], back.json()["archived_at"]) == (200, other["id"], None)
    await client.delete("/agents/reporter")
    back = await client.post(f"/agents/{made['id']}/unarchive")
    assert (back.json()["id"], back.json()["instructions"]) == (made["id"], "one")
    again = await client.post(f"/agents/{made['id']}/unarchive")
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    told = (await client.get("/audit", params={"action": "agent.unarchive"})).json()["items"]
    assert made["id"] in [each["subject_id"] for each in told]
    assert (await client.post("/agents/nobody/unarchive")).status_code == 404
