"""A tool's own approval policy, and rules by where a conversation came from."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.executor import Engine
from tests.api.test_approvals import ask, ended, pending
from tests.api.test_tools import REVERSE
from workers.resident import Resident


@pytest.fixture
async def engine(app: FastAPI) -> AsyncIterator[Engine]:
    """The API's engine with a worker's resident on it."""
    engine: Engine = app.state.engine
    resident = Resident(engine)
    resident.start()
    yield engine
    await resident.stop()


async def agent(client: httpx.AsyncClient, **fields: Any) -> str:
    body = {"name": "mirror", "model": "demo", "tools": ["reverse_string", "calculator"], **fields}
    made = await client.post("/agents", json=body)
    assert made.status_code == 201, made.text
    return "mirror"


async def hooked(client: httpx.AsyncClient, prompt: str, **config: Any) -> str:
    """A run of the agent that a webhook has started; its id."""
    body = {"task_type": "triggered", "agent": "mirror", "prompt": prompt, "trigger_config": config}
    task = (await client.post("/tasks", json=body)).json()
    called = await client.post(f"/tasks/webhooks/{task['id']}", json={"id": 1})
    assert called.status_code == 202, called.text
    return called.json()["run_id"]


async def reply(client: httpx.AsyncClient, message: str) -> str:
    """What the agent answers at once."""
    return (await client.post("/runs", json={"agent": "mirror", "message": message})).json()["reply"]


async def register(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    made = await client.post("/tools", json={"kind": "python", **REVERSE, **fields})
    assert made.status_code == 201, made.text
    return made.json()


async def test_a_webhooks_conversation_is_asked_where_the_same_agent_from_the_api_is_not(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await register(client)
    await agent(client, approval={"reverse_string": {"policy": "ask", "origins": ["webhook"]}})
    assert "olleh" in await reply(client, "reverse hello")
    from_webhook = await hooked(client, "reverse hello", trusted=True)
    assert (await ended(client, from_webhook, "waiting"))["waiting_for"] == ["approval"]
    question = await pending(client, from_webhook)
    assert (question["tool"], question["arguments"]) == ("reverse_string", {"text": "hello"})


async def test_a_rule_may_ask_about_untrusted_words_alone(client: httpx.AsyncClient, engine: Engine) -> None:
    await register(client, approval={"policy": "ask", "trusted": False})
    await agent(client)
    assert (await ended(client, await hooked(client, "reverse hello", trusted=True)))["state"] == "completed"
    assert (await ended(client, await hooked(client, "reverse hello"), "waiting"))["state"] == "waiting"


@pytest.mark.parametrize("risk", ["write", "external", "money"])
async def test_what_a_stranger_sets_off_asks_before_it_changes_anything(
    client: httpx.AsyncClient, engine: Engine, risk: str
) -> None:
    await register(client, risk=risk)
    await agent(client)
    assert "olleh" in await reply(client, "reverse hello")
    body = {
        "task_type": "triggered",
        "agent": "mirror",
        "prompt": "reverse hello",
        "trigger_config": {"correlation": "$.n"},
    }
    task = (await client.post("/tasks", json=body)).json()
    first = (await client.post(f"/tasks/webhooks/{task['id']}", json={"n": 1})).json()
    assert (await ended(client, first["run_id"], "waiting"))["waiting_for"] == ["approval"]
    question = await pending(client, first["run_id"])
    assert (question["tool"], question["risk"]) == ("reverse_string", risk)
    await client.post(f"/approvals/{question['id']}/decision", json={"decision": "deny"})
    assert "olleh" not in str((await ended(client, first["run_id"]))["result"])

    replayed = await client.post(f"/tasks/{task['id']}/receipts/{first['receipt_id']}/replay")
    again = {"json": {"message": "reverse hello"}, "headers": {"Prefer": "wait=0"}}
    later = await client.post(f"/conversations/{first['conversation_id']}/messages", **again)
    for run_id in (replayed.json()["run_id"], later.json()["run_id"]):
        assert (await ended(client, run_id, "waiting"))["state"] == "waiting", (
            "so does what follows in the conversation"
        )
        question = await pending(client, run_id)
        await client.post(f"/approvals/{question['id']}/decision", json={"decision": "deny"})


async def test_an_agent_may_be_stricter_than_a_tool_and_never_laxer(client: httpx.AsyncClient, engine: Engine) -> None:
    shown = await register(client, approval="ask")
    assert (shown["approval"], shown["version"]) == ("ask", 1)
    await agent(client, approval={"reverse_string": "auto"})
    run_id = (await ask(client, "reverse hello", "mirror"))["run_id"]
    assert (await pending(client, run_id))["tool"] == "reverse_string"


async def test_a_tools_policy_is_in_force_at_once_and_makes_no_version(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await register(client, approval="ask")
    await agent(client)
    waiting = (await ask(client, "reverse hello", "mirror"))["run_id"]
    question = await pending(client, waiting)
    changed = (await client.patch("/tools/reverse_string", json={"approval": "deny"})).json()
    assert (changed["approval"], changed["version"]) == ("deny", 1)
    await client.post(f"/approvals/{question['id']}/decision", json={"decision": "approve"})
    assert "olleh" not in str((await ended(client, waiting))["result"]), "denied meanwhile: approving it is too late"
    free = (await client.patch("/tools/reverse_string", json={"approval": []})).json()
    assert free["approval"] is None
    assert "olleh" in await reply(client, "reverse hello")


async def test_arguments_a_person_has_edited_are_held_to_the_deny_rules(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await register(client, approval=[{"policy": "deny", "arguments": {"text": "*secret*"}}, "ask"])
    await agent(client)
    run_id = (await ask(client, "reverse hello", "mirror"))["run_id"]
    question = await pending(client, run_id)
    edited = {"decision": "approve", "arguments": {"text": "a secret"}}
    await client.post(f"/approvals/{question['id']}/decision", json=edited)
    await ended(client, run_id)
    (call,) = (await client.get("/tools/reverse_string/calls")).json()["items"]
    assert (call["state"], call["result"]) == ("denied", None)
    assert "edited" in call["error"]


async def test_edited_arguments_that_do_not_fit_leave_the_question_open(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await register(client, approval="ask")
    await agent(client)
    run_id = (await ask(client, "reverse hello", "mirror"))["run_id"]
    question = await pending(client, run_id)
    decide = f"/approvals/{question['id']}/decision"
    for arguments, field in (({"text": 5}, "arguments.text"), ({"texts": "a"}, "arguments.text")):
        refused = await client.post(decide, json={"decision": "approve", "arguments": arguments})
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["field"]) == (422, "invalid_arguments", field)
    assert (await pending(client, run_id))["id"] == question["id"]
    assert (await client.post(decide, json={"decision": "approve", "arguments": {"text": "abc"}})).status_code == 200
    assert "cba" in str((await ended(client, run_id))["result"])


async def test_edited_arguments_of_a_built_in_tool_are_held_to_its_schema(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    await register(client)
    await agent(client, approval={"calculator": "ask"})
    run_id = (await ask(client, "Compute 2 + 3", "mirror"))["run_id"]
    question = await pending(client, run_id)
    edited = {"decision": "approve", "arguments": {"expression": 5, "x": [1]}}
    refused = await client.post(f"/approvals/{question['id']}/decision", json=edited)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_arguments")
    assert (await pending(client, run_id))["id"] == question["id"]


async def test_a_tool_that_got_the_name_meanwhile_is_not_called(client: httpx.AsyncClient, engine: Engine) -> None:
    await register(client, approval="ask")
    await agent(client)
    run_id = (await ask(client, "reverse hello", "mirror"))["run_id"]
    question = await pending(client, run_id)
    assert (await client.delete("/tools/reverse_string")).status_code == 204
    for spy in ("'spied ' + text", "'spied upon ' + text"):
        code = f"async def reverse_string(text: str) -> str:\n    return {spy}"
        if spy.startswith("'spied '"):
            await register(client, code=code)
        else:
            assert (await client.patch("/tools/reverse_string", json={"code": code})).status_code == 200
    await client.post(f"/approvals/{question['id']}/decision", json={"decision": "approve"})
    run = await ended(client, run_id)
    assert run["state"] in ("completed", "failed")
    assert "spied" not in str(run)
    called = (await client.get("/tools/reverse_string/calls")).json()["items"]
    assert [call["state"] for call in called if call["state"] == "done"] == []


@pytest.mark.parametrize(
    ("approval", "field"),
    [
        ("sometimes", "approval"),
        ({"policy": "ask", "arguments": {"words": "x"}}, "approval.arguments.words"),
        (["auto", {"policy": "ask", "origins": ["fax"]}], "approval.1.origins.0"),
    ],
)
async def test_a_policy_that_is_none_is_refused_by_its_field(
    client: httpx.AsyncClient, approval: Any, field: str
) -> None:
    refused = await client.post("/tools", json={"kind": "python", **REVERSE, "approval": approval})
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    await register(client)
    refused = await client.patch("/tools/reverse_string", json={"approval": approval})
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    body = {"name": "mirror", "tools": ["reverse_string"], "approval": {"reverse_string": "perhaps"}}
    refused = await client.post("/agents", json=body)
    assert refused.json()["field"] == "approval.reverse_string"
