"""Memories over the API: readable, editable, deletable, and only in one's own workspace."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.agents.rows import DEFAULT_AGENT_ID
from app.db import SYSTEM_PRINCIPAL, Database
from app.identity import create_key
from app.knowledge import memories
from tests.api.conftest import ADMIN_KEY, bearer

OTHER = "00000000-0000-7000-8000-0000000000ff"


async def make(client: httpx.AsyncClient, text: str = "Likes tea.", **body: Any) -> dict[str, Any]:
    made = await client.post("/memories", json={"text": text, **({} if owned(body) else {"user": "alice"}), **body})
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == f"/memories/{made.json()['id']}"
    return made.json()


def owned(body: dict[str, Any]) -> bool:
    return not {"agent", "task", "person", "user"}.isdisjoint(body)


async def listed(client: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await client.get("/memories", params=query)
    assert answer.status_code == 200, answer.text
    return [item["text"] for item in answer.json()["items"]]


async def test_a_memory_is_made_read_changed_and_deleted(client: httpx.AsyncClient, database: Database) -> None:
    made = await make(client, key="drink")
    assert made | {"id": 0, "created_at": 0, "updated_at": 0} == {
        "id": 0,
        "scope": "person",
        "agent": None,
        "task": None,
        "person": None,
        "user": "alice",
        "key": "drink",
        "text": "Likes tea.",
        "trusted": True,
        "conversation_id": None,
        "run_id": None,
        "written_by": str(SYSTEM_PRINCIPAL),
        "created_at": 0,
        "updated_at": 0,
    }
    path = f"/memories/{made['id']}"
    assert (await client.get(path)).json() == made
    changed = (await client.patch(path, json={"text": " Likes coffee. ", "key": None})).json()
    assert (changed["text"], changed["key"]) == ("Likes coffee.", None)
    assert changed["updated_at"] > made["updated_at"]
    assert (await client.get(path)).json() == changed
    assert await listed(client, q="tea") == []
    assert await listed(client, q="coffee") == ["Likes coffee."]
    assert (await client.delete(path)).status_code == 204
    for answer in (await client.get(path), await client.delete(path), await client.patch(path, json={"text": "x"})):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert await database.fetch("select * from memories") == []
    acts = await database.fetch("select action, detail from audit where subject_id = $1 order by id", made["id"])
    assert [act["action"] for act in acts] == ["memory.create", "memory.patch", "memory.delete"]
    assert "tea" not in str([act["detail"] for act in acts])


async def test_each_scope_is_made_and_found(client: httpx.AsyncClient) -> None:
    task = (
        await client.post("/tasks", json={"task_type": "triggered", "prompt": "Look.", "trigger_config": {}})
    ).json()
    assert (await make(client, "Of the agent.", agent="assistant"))["agent"] == "assistant"
    assert (await make(client, "Of the task.", task=task["id"]))["task"] == task["id"]
    assert (await make(client, "Of me.", person="me"))["person"] == str(SYSTEM_PRINCIPAL)
    assert (await make(client, "Of alice.", user="alice"))["user"] == "alice"
    for query, expected in (
        ({}, ["Of alice.", "Of me.", "Of the task.", "Of the agent."]),
        ({"scope": "person"}, ["Of alice.", "Of me."]),
        ({"scope": "task"}, ["Of the task."]),
        ({"agent": "assistant"}, ["Of the agent."]),
        ({"agent": str(DEFAULT_AGENT_ID)}, ["Of the agent."]),
        ({"task": task["id"]}, ["Of the task."]),
        ({"task": str(uuid4())}, []),
        ({"person": "me"}, ["Of me."]),
        ({"person": str(SYSTEM_PRINCIPAL)}, ["Of me."]),
        ({"user": "alice"}, ["Of alice."]),
        ({"user": "bob"}, []),
        ({"q": "task"}, ["Of the task."]),
        ({"q": "task", "scope": "agent"}, []),
        ({"q": "alice", "user": "alice"}, ["Of alice."]),
    ):
        assert await listed(client, **query) == expected, query


@pytest.mark.parametrize("q", [{}, {"q": "apple"}])
async def test_pages_go_on_where_they_ended(client: httpx.AsyncClient, q: dict[str, str]) -> None:
    for number in range(5):
        await make(client, f"Apple {number}")
    found, cursor = list[str](), None
    while True:
        answer = await client.get("/memories", params={"limit": 2, **q, **({"cursor": cursor} if cursor else {})})
        page = answer.json()
        found += [item["text"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [f"Apple {number}" for number in (4, 3, 2, 1, 0)]
    assert (await client.get("/memories", params={"cursor": "forged"})).json()["code"] == "invalid_cursor"


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"user": "alice"}, "text", "invalid_request"),
        ({"text": "  ", "user": "alice"}, "text", "invalid_request"),
        ({"text": "x" * 4001, "user": "alice"}, "text", "invalid_request"),
        ({"text": "a\x00b", "user": "alice"}, "text", "forbidden_text"),
        ({"text": "x"}, "body", "invalid_request"),
        ({"text": "x", "user": "alice", "agent": "assistant"}, "body", "invalid_request"),
        ({"text": "x", "user": "alice", "key": ""}, "key", "invalid_request"),
        ({"text": "x", "user": "alice", "key": "k" * 101}, "key", "invalid_request"),
        ({"text": "x", "user": "alice", "trusted": True}, "trusted", "unknown_field"),
        ({"text": "x", "agent": "nobody"}, "agent", "unknown_reference"),
        ({"text": "x", "task": str(uuid4())}, "task", "unknown_reference"),
        ({"text": "x", "person": str(uuid4())}, "person", "unknown_reference"),
    ],
)
async def test_what_is_wrong_is_named(client: httpx.AsyncClient, body: dict[str, Any], field: str, code: str) -> None:
    answer = await client.post("/memories", json=body)
    assert (answer.status_code, answer.json()["field"], answer.json()["code"]) == (422, field, code)


async def test_wrong_changes_and_filters_are_refused(client: httpx.AsyncClient) -> None:
    made = await make(client)
    for body, field in (({"text": None}, "text"), ({"user": "bob"}, "user"), ({"key": ""}, "key")):
        refused = await client.patch(f"/memories/{made['id']}", json=body)
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    for query in ({"scope": "all"}, {"agent": "nobody"}, {"task": "x"}, {"person": "you"}, {"limit": 101}):
        refused = await client.get("/memories", params=query)
        assert (refused.status_code, refused.json()["field"]) == (422, next(iter(query)))
    assert (await client.get("/memories/nonsense")).status_code == 404


async def test_a_key_names_one_memory_of_its_owner(client: httpx.AsyncClient) -> None:
    await make(client, key="drink")
    await make(client, key="drink", user="bob")
    other = await make(client, key="food")
    for refused in (
        await client.post("/memories", json={"text": "x", "user": "alice", "key": "drink"}),
        await client.patch(f"/memories/{other['id']}", json={"key": "drink"}),
    ):
        assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (409, "duplicate", "key")
    assert (await client.patch(f"/memories/{other['id']}", json={"key": "food"})).status_code == 200


async def test_no_more_are_kept_than_the_cap(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "MAX_PER_OWNER", 1)
    await make(client)
    refused = await client.post("/memories", json={"text": "One more.", "user": "alice"})
    assert (refused.status_code, refused.json()["code"]) == (409, "memory_full")


async def test_a_repeated_request_makes_one_memory(client: httpx.AsyncClient) -> None:
    body, headers = {"text": "Once.", "user": "alice"}, {"Idempotency-Key": "once"}
    first, again = [(await client.post("/memories", json=body, headers=headers)).json() for _ in range(2)]
    assert first == again
    assert await listed(client) == ["Once."]
    refused = await client.post("/memories", json=body | {"text": "Twice."}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")


async def test_scopes_and_workspaces_hold(guarded: httpx.AsyncClient, database: Database) -> None:
    async def key(*scopes: str) -> dict[str, str]:
        made = await guarded.post("/keys", json={"name": "k", "scopes": list(scopes)}, headers=bearer(ADMIN_KEY))
        return bearer(made.json()["key"])

    reader, writer, stranger = await key("memories:read"), await key("memories:write"), await key("runs:*")
    body = {"text": "Ours.", "person": "me"}
    made = (await guarded.post("/memories", json=body, headers=writer)).json()
    assert made["written_by"] == made["person"]
    path = f"/memories/{made['id']}"
    assert (await guarded.get(path, headers=reader)).status_code == 200
    assert (await guarded.get("/memories", params={"person": "me"}, headers=reader)).json()["items"] == []
    for refused in (
        await guarded.post("/memories", json=body, headers=reader),
        await guarded.delete(path, headers=reader),
        await guarded.get(path, headers=stranger),
    ):
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")

    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    async with database.transaction(UUID(OTHER)) as session:
        theirs = bearer((await create_key(session, UUID(OTHER), "theirs", ["admin"])).text)
    for method, change in (("GET", None), ("PATCH", {"text": "Mine."}), ("DELETE", None)):
        answer = await guarded.request(method, path, json=change, headers=theirs)
        assert answer.status_code == 404, method
    for query in ({}, {"q": "ours"}, {"person": made["person"]}):
        assert (await guarded.get("/memories", params=query, headers=theirs)).json()["items"] == []
    for of in ({"person": made["person"]}, {"agent": str(DEFAULT_AGENT_ID)}):
        refused = await guarded.post("/memories", json={"text": "Spy.", **of}, headers=theirs)
        assert refused.json()["code"] == "unknown_reference"
    assert (await guarded.get(path, headers=writer)).json() == made


async def test_the_demo_model_remembers_for_the_next_conversation(client: httpx.AsyncClient) -> None:
    async def ask(message: str, user: str) -> str:
        conversation = (await client.post("/conversations", json={"pattern_type": "chatbot", "user": user})).json()
        answer = await client.post(f"/conversations/{conversation['id']}/messages", json={"message": message})
        assert answer.status_code == 200, answer.text
        return answer.json()["reply"]

    assert 'I will remember: "my cat is called Tom"' in await ask("Remember that my cat is called Tom.", "alice")
    assert "I remember: my cat is called Tom" in await ask("What do you remember about cats?", "alice")
    assert "nothing yet" in await ask("What do you remember about cats?", "bob")
    [kept] = (await client.get("/memories", params={"user": "alice"})).json()["items"]
    assert (kept["text"], kept["run_id"] is not None) == ("my cat is called Tom", True)


async def test_a_call_by_hand_remembers_about_its_caller(client: httpx.AsyncClient) -> None:
    async def by_hand(tool: str, **arguments: Any) -> dict[str, Any]:
        return (await client.post(f"/tools/{tool}/execute", json={"arguments": arguments})).json()

    assert (await by_hand("remember", text="Likes tea.", about="person"))["error"] is None
    assert [each["text"] for each in (await by_hand("recall"))["result"]["memories"]] == ["Likes tea."]
    assert await listed(client, person="me") == ["Likes tea."]
    assert "only the person" in (await by_hand("remember", text="x", about="agent"))["error"]
