"""Idempotency-Key, on both doors to the database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from app.api.access import Caller
from app.api.idempotency import IdempotencyKey, Repeat, forget_old
from app.db import DEFAULT_WORKSPACE, Database
from app.errors import IdempotencyConflict, InvalidArguments
from app.identity import CONFIGURED_ADMIN, LOCAL, Principal
from app.runs import RunState
from app.settle import Outcome
from tests.engine import World, tool, tools

Door = Callable[[], AbstractAsyncContextManager[Any]]


def caller(principal: Principal = LOCAL) -> Caller:
    unused: Any = None
    return Caller(unused, principal, None, None)


@pytest.fixture(params=["engine", "session"])
def door(request: pytest.FixtureRequest, database: Database) -> Door:
    """Opens a transaction on one of the two doors."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        if request.param == "engine":
            async with database.engine_tx() as connection:
                yield connection
        else:
            async with database.transaction(DEFAULT_WORKSPACE) as session:
                yield session

    return opened


KEY = IdempotencyKey("k", "POST /tasks", "hash")


async def claim(door: Door, key: IdempotencyKey = KEY, who: Principal = LOCAL, id: str = "1") -> Repeat | None:
    async with door() as opened:
        return await key.claim(opened, caller(who), "task", id)


async def test_the_first_makes_it_and_the_repeat_finds_it(door: Door) -> None:
    assert await claim(door) is None
    assert await claim(door, id="2") == Repeat("task", "1")
    with pytest.raises(IdempotencyConflict):
        await claim(door, IdempotencyKey("k", "POST /tasks", "another"))


async def test_a_key_belongs_to_its_principal_and_route(door: Door) -> None:
    assert await claim(door) is None
    assert await claim(door, who=CONFIGURED_ADMIN) is None
    assert await claim(door, IdempotencyKey("k", "POST /runs", "hash")) is None
    assert await claim(door, IdempotencyKey(None, "", "")) is None


async def test_what_was_rolled_back_was_not_taken(door: Door) -> None:
    async def claim_and_fail() -> None:
        async with door() as opened:
            assert await KEY.claim(opened, caller(), "task", "1") is None
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        await claim_and_fail()
    assert await claim(door, id="2") is None


async def test_of_two_at_once_one_makes_it(door: Door) -> None:
    ids = [str(uuid4()) for _ in range(4)]
    found = await asyncio.gather(*(claim(door, id=each) for each in ids))
    assert found.count(None) == 1
    assert {each for each in found if each} == {Repeat("task", ids[found.index(None)])}


async def test_a_key_is_kept_for_a_day(door: Door, database: Database) -> None:
    await claim(door)
    await database.execute("update idempotency set created_at = now() - interval '25 hours'")
    assert await claim(door, IdempotencyKey("k", "POST /tasks", "another"), id="2") is None
    assert await claim(door, IdempotencyKey("k", "POST /tasks", "another")) == Repeat("task", "2")
    await forget_old(database)
    assert await database.fetchval("select count(*) from idempotency") == 1
    await database.execute("update idempotency set created_at = now() - interval '25 hours'")
    await forget_old(database)
    assert await database.fetchval("select count(*) from idempotency") == 0


# --- over HTTP --------------------------------------------------------------------------------------


async def test_a_repeated_post_makes_one_agent(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    first = await client.post("/agents", json={"name": "x", "description": "d"}, headers=key)
    json = {"content-type": "application/json"}
    again = await client.post("/api/agents", content=b'{"description":"d", "name": "x"}', headers=key | json)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    other = await client.post("/agents", json={"name": "y"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_the_repeat_shows_the_present_state(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    await client.post("/agents", json={"name": "x"}, headers=key)
    await client.patch("/agents/x", json={"description": "new"})
    await client.post("/agents/x/publish")
    assert (await client.post("/agents", json={"name": "x"}, headers=key)).json()["description"] == "new"


async def test_a_refused_post_takes_no_key(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    assert (await client.post("/agents", json={"name": "x", "model": "no"}, headers=key)).status_code == 422
    assert (await client.post("/agents", json={"name": "x"}, headers=key)).status_code == 201


async def test_a_secret_is_not_shown_again(client: httpx.AsyncClient) -> None:
    body = {"name": "k", "scopes": ["admin"]}
    first = (await client.post("/keys", json=body, headers={"Idempotency-Key": "one"})).json()
    again = (await client.post("/keys", json=body, headers={"Idempotency-Key": "one"})).json()
    assert first["key"].startswith("parley_")
    assert (again["id"], again["key"]) == (first["id"], None)
    assert len((await client.get("/keys")).json()["items"]) == 1


async def test_a_repeated_rollback_goes_back_once(client: httpx.AsyncClient) -> None:
    await client.post("/agents", json={"name": "x"})
    for version in (2, 3):
        await client.patch("/agents/x", json={"description": str(version)})
        answers = [await client.post("/agents/x/publish", headers={"Idempotency-Key": f"p{version}"}) for _ in range(2)]
        assert [answer.json()["version"] for answer in answers] == [version, version]
    for _ in range(2):
        back = await client.post("/agents/x/rollback", headers={"Idempotency-Key": "back"})
        assert back.json()["published_version"] == 2


async def test_a_repeated_rotation_makes_one_secret_and_shows_it_once(client: httpx.AsyncClient) -> None:
    body = {"task_type": "triggered", "prompt": "Look.", "trigger_config": {"verifier": "bearer", "secret": "s" * 20}}
    task = (await client.post("/tasks", json=body)).json()
    path = f"/tasks/{task['id']}/webhook/rotate"
    first, again = [await client.post(path, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["secret"]
    assert again.json()["secret"] is None
    (entry,) = (await client.get("/audit", params={"action": "task.rotate"})).json()["items"]
    assert entry["subject_id"] == task["id"]


async def test_a_repeated_call_of_a_tool_is_made_once(client: httpx.AsyncClient) -> None:
    made: list[Any] = []
    go_on = asyncio.Event()

    async def work(context: Any, arguments: dict[str, Any]) -> Any:
        if "bad" in arguments:
            raise InvalidArguments("no", field="bad")
        made.append(arguments)
        await go_on.wait()
        return len(made)

    async def call(key: str = "one", **arguments: Any) -> httpx.Response:
        body = {"arguments": arguments}
        return await client.post("/tools/counted/execute", json=body, headers={"Idempotency-Key": key})

    async with tools(tool("counted", work, idempotent=False)):
        assert (await call(bad=1)).status_code == 422
        first = asyncio.create_task(call())
        while not made:
            await asyncio.sleep(0.01)
        assert (await call()).status_code == 409
        go_on.set()
        assert (await first).json()["result"] == 1
        assert (await call()).json() == (await first).json()
        assert (await call("two")).json()["result"] == 2


async def test_a_tool_is_registered_once(client: httpx.AsyncClient) -> None:
    code = "async def twice(n: int) -> int:\n    return 2 * n"
    body = {"name": "twice", "description": "Double a number", "code": code}
    answers = [await client.post("/tools/register", json=body, headers={"Idempotency-Key": "t"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


async def test_a_repeated_steer_is_answered_with_the_run_that_has_it_now(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    world = World(app.state.engine.database, app.state.settings)
    said = (await client.post("/runs", json={"message": "Hello", "background": True})).json()
    [held] = await world.claim()
    url, body = f"/conversations/{said['conversation_id']}/messages", {"message": "Faster", "on_message": "steer"}
    key = {"Idempotency-Key": "one"}
    answers = [(await client.post(url, json=body | {"background": True}, headers=key)).json() for _ in range(2)]
    assert [answer["run_id"] for answer in answers] == [str(held.run_id)] * 2
    await world.settle(held, Outcome(RunState.COMPLETED, result="Done"), held.fenced)  # It ends before it was steered.
    late = (await client.post(url, json=body | {"background": True}, headers=key)).json()
    [follow_up] = await world.claim()
    assert late["run_id"] == str(follow_up.run_id) != str(held.run_id)
    assert [text for _, text in await world.said(held.conversation_id)] == ["Hello", "Faster"]
