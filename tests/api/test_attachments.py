"""Files sent with messages and tasks: every way in, every refusal, and what is shown of them."""

import asyncio
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from pydantic_ai.messages import ModelResponse, ToolCallPart

from app.db import Database
from app.models import new_id
from app.settings import Settings
from tests.api.conftest import ADMIN_KEY, bearer, serve
from tests.engine import in_turn, scripted

CSV = b"city,people\nParis,2102650\n"
UNKNOWN = "00000000-0000-7000-8000-00000000dead"


async def upload(client: httpx.AsyncClient, name: str = "cities.csv", content: bytes = CSV) -> dict[str, Any]:
    made = await client.post("/artifacts", files={"file": (name, content, "text/csv")})
    assert made.status_code == 201, made.text
    return {"artifact_id": made.json()["id"], "name": name, "media_type": "text/csv", "size": len(content)}


async def begin(client: httpx.AsyncClient, **fields: Any) -> str:
    made = await client.post("/conversations", json={"pattern_type": "chatbot", **fields})
    return f"/conversations/{made.json()['id']}"


async def files(client: httpx.AsyncClient, conversation: str) -> list[list[dict[str, Any]]]:
    """The files of each message of a person."""
    items = (await client.get(f"{conversation}/messages")).json()["items"]
    said = [item["parts"] for item in items if item["role"] == "user"]
    return [[part for part in parts if part["type"] == "file"] for parts in said]


@pytest.mark.parametrize("how", [{}, {"stream": True}, {"background": True}])
async def test_a_message_keeps_a_reference_to_its_files(
    client: httpx.AsyncClient, database: Database, how: dict[str, Any]
) -> None:
    one, two = await upload(client), await upload(client, "more.csv", b"x")
    conversation = await begin(client)
    body = {"message": "Read them.", "attachments": [one["artifact_id"], two["artifact_id"]], **how}
    answered = await client.post(f"{conversation}/messages", json=body)
    assert answered.status_code == (202 if "background" in how else 200), answered.text
    if "background" not in how:
        shown = [{"type": "file", **one}, {"type": "file", **two}]
        assert await files(client, conversation) == [shown]
    [stored] = await database.fetch("select body::text as text from inputs")
    assert one["artifact_id"] in stored["text"]
    assert "2102650" not in stored["text"], "the content is in no row but the artifact's"
    assert await database.fetch("select seq from messages where body::text like '%2102650%'") == []


async def test_runs_and_going_on_and_forks_take_files(client: httpx.AsyncClient) -> None:
    file = await upload(client)
    shown, named = [{"type": "file", **file}], [file["artifact_id"]]
    run = await client.post("/runs", json={"message": "Read it.", "attachments": named})
    assert (run.status_code, run.json()["state"]) == (200, "completed"), run.text
    conversation = f"/conversations/{run.json()['conversation_id']}"
    assert (await client.post(f"{conversation}/continue", json={"attachments": named})).status_code == 200
    assert await files(client, conversation) == [shown, shown]

    made = await client.post(f"{conversation}/fork", json={"from_seq": 3, "message": "Again.", "attachments": named})
    assert made.status_code == 201, made.text
    copy = f"/conversations/{made.json()['id']}"
    async with asyncio.timeout(10):
        while (await client.get(copy)).json()["state"] != "idle":
            await asyncio.sleep(0.01)
    assert await files(client, copy) == [shown, shown]
    exported = (await client.get(f"{copy}/export")).json()
    assert shown[0] in exported["messages"][0]["parts"]
    markdown = (await client.get(f"{copy}/export?format=markdown")).text
    assert f"- text/csv, {len(CSV)} bytes, artifact {file['artifact_id']}: cities.csv" in markdown


async def test_a_repeat_with_the_key_makes_nothing_twice(client: httpx.AsyncClient) -> None:
    file = await upload(client)
    body, headers = {"message": "Read it.", "attachments": [file["artifact_id"]]}, {"Idempotency-Key": "once"}
    first, again = [(await client.post("/runs", json=body, headers=headers)).json() for _ in range(2)]
    assert first["run_id"] == again["run_id"]


@pytest.mark.parametrize("way", ["messages", "continue", "fork", "runs", "tasks"])
async def test_what_can_not_be_sent_is_refused_by_name(client: httpx.AsyncClient, database: Database, way: str) -> None:
    file = await upload(client)
    other = await elsewhere(database)
    run = (await client.post("/runs", json={"message": "Hello"})).json()
    conversation = f"/conversations/{run['conversation_id']}"
    paths = {"runs": "/runs", "tasks": "/tasks"}
    bodies: dict[str, dict[str, Any]] = {
        "fork": {"from_seq": 1, "message": "Read."},
        "tasks": {"task_type": "delegation", "prompt": "Read."},
    }
    known = file["artifact_id"]
    refusals: list[tuple[Any, str]] = [
        ([UNKNOWN], "attachments.0"),
        ([known, other], "attachments.1"),
        ([known, known], "attachments.1"),
        (["x"], "attachments.0"),
        ([str(new_id()) for _ in range(11)], "attachments"),
        (known, "attachments"),
    ]
    for named, field in refusals:
        body = bodies.get(way, {"message": "Read."}) | {"attachments": named}
        refused = await client.post(paths.get(way, f"{conversation}/{way}"), json=body)
        assert (refused.status_code, refused.json().get("field")) == (422, field), refused.text
    assert await database.fetchval("select count(*) from runs") == 1


async def elsewhere(database: Database) -> str:
    """An artifact of another workspace."""
    workspace, artifact = new_id(), new_id()
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", workspace)
    await database.execute(
        "insert into artifacts (id, workspace_id, name, media_type, size, sha256, content) "
        "values ($1, $2, 'x', 'text/plain', 1, 'x', 'x')",
        artifact,
        workspace,
    )
    return str(artifact)


async def test_files_too_large_together_are_refused(client: httpx.AsyncClient, database: Database) -> None:
    ids = [(await upload(client, f"{number}.csv"))["artifact_id"] for number in range(2)]
    await database.execute("update artifacts set size = 10000001")
    refused = await client.post("/runs", json={"message": "Read.", "attachments": ids})
    assert (refused.status_code, refused.json()["field"]) == (422, "attachments")
    assert "20000002" in refused.json()["detail"]


async def test_a_fork_without_a_message_takes_no_files(client: httpx.AsyncClient) -> None:
    run = (await client.post("/runs", json={"message": "Hello"})).json()
    path = f"/conversations/{run['conversation_id']}/fork"
    refused = await client.post(path, json={"from_seq": 1, "attachments": [(await upload(client))["artifact_id"]]})
    assert (refused.status_code, refused.json()["field"]) == (422, "attachments")


async def test_who_may_not_read_files_can_not_have_them_read(settings: Settings) -> None:
    update: dict[str, Any] = {"parley_auth": "on", "parley_admin_key": SecretStr(ADMIN_KEY)}
    async with serve(settings.model_copy(update=update)) as guarded:
        admin = bearer(ADMIN_KEY)
        made = await guarded.post("/artifacts", files={"file": ("a.txt", b"text")}, headers=admin)
        key = {"name": "talker", "scopes": ["conversations:write", "tasks:write"]}
        talker = bearer((await guarded.post("/keys", json=key, headers=admin)).json()["key"])
        task = {"task_type": "delegation", "prompt": "Read."}
        for path, body in (("/runs", {"message": "Read."}), ("/tasks", task)):
            refused = await guarded.post(path, json=body | {"attachments": [made.json()["id"]]}, headers=talker)
            assert refused.status_code == 403, path
            assert "artifacts:read" in refused.text
            assert (await guarded.post(path, json=body, headers=talker)).status_code in (200, 201, 202)


async def test_each_run_of_a_task_gets_its_files_also_when_one_is_gone(
    client: httpx.AsyncClient, database: Database
) -> None:
    file = await upload(client)
    body = {"task_type": "scheduled", "prompt": "Report.", "schedule_expression": "0 9 * * *"}
    made = await client.post("/tasks", json=body | {"attachments": [file["artifact_id"]]})
    assert made.status_code == 201, made.text
    task = made.json()
    assert task["attachments"] == [file]
    changed = await client.patch(f"/tasks/{task['id']}", json={"title": "Other"})
    assert changed.json()["attachments"] == [file]

    assert (await client.post(f"/tasks/{task['id']}/execute")).status_code == 202
    assert (await client.delete(f"/artifacts/{file['artifact_id']}")).status_code == 204
    assert (await client.post(f"/tasks/{task['id']}/execute")).status_code == 202
    inputs = await database.fetch("select body::text as text from inputs")
    assert [file["artifact_id"] in row["text"] for row in inputs] == [True, True]

    refused = await client.patch(f"/tasks/{task['id']}", json={"attachments": [file["artifact_id"]]})
    assert (refused.status_code, refused.json()["field"]) == (422, "attachments.0")
    cleared = await client.patch(f"/tasks/{task['id']}", json={"attachments": []})
    assert cleared.json()["attachments"] == []


async def test_a_deleted_file_is_gone(client: httpx.AsyncClient, database: Database) -> None:
    file = await upload(client)
    path = f"/artifacts/{file['artifact_id']}"
    assert (await client.delete(path)).status_code == 204
    for gone in (await client.get(path), await client.get(f"{path}/content"), await client.delete(path)):
        assert gone.status_code == 404
    assert await database.fetchval("select count(*) from artifacts") == 0
    actions = [row["action"] for row in await database.fetch("select action from audit")]
    assert "artifact.delete" in actions


async def test_an_answer_to_a_question_takes_no_files(client: httpx.AsyncClient) -> None:
    asks = in_turn(ModelResponse(parts=[ToolCallPart("ask_person", {"question": "Which?"})]))
    made = await client.post("/agents", json={"name": "asks", "model": scripted("asks", asks), "tools": ["ask_person"]})
    assert made.status_code == 201, made.text
    waiting = (await client.post("/runs", json={"agent": "asks", "message": "Ask me."})).json()
    assert waiting["state"] == "waiting"
    path = f"/conversations/{waiting['conversation_id']}/messages"
    file = await upload(client)
    refused = await client.post(path, json={"message": "This one", "attachments": [file["artifact_id"]]})
    assert (refused.status_code, refused.json()["field"]) == (422, "attachments")
    assert (await client.get(f"/runs/{waiting['run_id']}")).json()["state"] == "waiting"


async def test_a_webhook_call_starts_a_run_with_the_files_of_its_task(
    client: httpx.AsyncClient, database: Database
) -> None:
    file = await upload(client)
    body = {"task_type": "triggered", "prompt": "Look.", "trigger_config": {}, "attachments": [file["artifact_id"]]}
    task = (await client.post("/tasks", json=body)).json()
    called = await client.post(f"/tasks/webhooks/{task['id']}", json={"a": 1})
    assert called.status_code == 202, called.text
    [row] = await database.fetch("select body::text as text from inputs")
    assert file["artifact_id"] in row["text"]
    assert "webhook_payload" in row["text"]
