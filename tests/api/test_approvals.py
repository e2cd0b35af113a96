"""Approvals as a person meets them: through the API, with a worker beside it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.executor import Engine
from workers.resident import Resident

POLICY = {"notify": "ask"}
ASKS = {"name": "asker", "model": "demo", "tools": ["notify", "calculator", "ask_person"], "approval": POLICY}
NOTIFY = "Notify me by email saying the build is green"


@pytest.fixture
async def engine(app: FastAPI) -> AsyncIterator[Engine]:
    """The API's engine with a worker's resident on it."""
    engine: Engine = app.state.engine
    resident = Resident(engine)
    resident.start()
    yield engine
    await resident.stop()


@pytest.fixture
async def asker(client: httpx.AsyncClient, engine: Engine) -> str:
    await engine.database.execute("update principals set email = 'me@example.com' where kind = 'system'")
    made = await client.post("/agents", json=ASKS)
    assert made.status_code == 201, made.text
    return "asker"


async def ask(client: httpx.AsyncClient, message: str, agent: str = "asker") -> dict[str, Any]:
    answer = await client.post("/runs", json={"agent": agent, "message": message})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/runs/{answer.json()['run_id']}"
    return answer.json()


async def pending(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    (item,) = (await client.get("/approvals", params={"run_id": run_id, "state": "pending"})).json()["items"]
    return item


async def ended(client: httpx.AsyncClient, run_id: str, *states: str) -> dict[str, Any]:
    for _ in range(300):
        run = (await client.get(f"/runs/{run_id}")).json()
        if run["state"] in (states or ("completed", "failed", "cancelled")):
            return run
        await asyncio.sleep(0.02)
    raise AssertionError(run)


async def events(client: httpx.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    return (await client.get(f"/runs/{run_id}/events", headers={"Accept": "application/json"})).json()["items"]


async def test_an_approved_call_is_made_once_and_the_run_goes_on(client: httpx.AsyncClient, asker: str) -> None:
    run_id = (await ask(client, NOTIFY))["run_id"]
    waiting = (await client.get(f"/runs/{run_id}")).json()
    assert (waiting["state"], waiting["waiting_for"]) == ("waiting", ["approval"])
    assert waiting["reason"] == "waiting for approval of notify"
    approval = await pending(client, run_id)
    assert (approval["kind"], approval["tool"], approval["risk"]) == ("tool", "notify", "external")
    assert approval["arguments"]["text"] == "the build is green"
    decided = await client.post(f"/approvals/{approval['id']}/decision", json={"decision": "approve"})
    assert (decided.status_code, decided.json()["state"], decided.json()["decided_by"]) == (200, "approved", "system")
    assert (await ended(client, run_id))["state"] == "completed"
    assert len((await client.get("/deliveries")).json()["items"]) == 1
    names = [event["event"] for event in await events(client, run_id)]
    assert names.count("approval.required") == names.count("approval.decided") == names.count("run.waiting") == 1
    assert names.index("tool.started") > names.index("approval.decided")


async def test_a_denied_call_is_never_made_and_the_model_hears_why(client: httpx.AsyncClient, asker: str) -> None:
    run_id = (await ask(client, NOTIFY))["run_id"]
    approval = await pending(client, run_id)
    body = {"decision": "deny", "reason": "not today"}
    assert (await client.post(f"/approvals/{approval['id']}/decision", json=body)).status_code == 200
    assert (await ended(client, run_id))["state"] == "completed"
    assert (await client.get("/deliveries")).json()["items"] == []
    (told,) = [event["data"]["error"] for event in await events(client, run_id) if event["event"] == "tool.failed"]
    assert "denied by a person: not today" in told


async def test_edited_arguments_are_what_runs(client: httpx.AsyncClient, asker: str, engine: Engine) -> None:
    run_id = (await ask(client, NOTIFY))["run_id"]
    approval = await pending(client, run_id)
    edited = {"decision": "approve", "arguments": {"text": "edited by a person", "channel": "email"}}
    decided = (await client.post(f"/approvals/{approval['id']}/decision", json=edited)).json()
    assert (decided["arguments"], decided["decided_arguments"]) == (approval["arguments"], edited["arguments"])
    await ended(client, run_id)
    row = await engine.database.fetchrow("select payload from deliveries")
    assert row
    assert row["payload"]["text"] == "edited by a person"
    ledger = await engine.database.fetchrow("select arguments, state from tool_calls where tool = 'notify'")
    assert ledger
    assert (ledger["arguments"]["text"], ledger["state"]) == ("edited by a person", "done")


async def test_racing_decisions_decide_and_resume_once(client: httpx.AsyncClient, asker: str) -> None:
    run_id = (await ask(client, NOTIFY))["run_id"]
    url = f"/approvals/{(await pending(client, run_id))['id']}/decision"
    bodies = [{"decision": "approve"}, {"decision": "deny"}] * 5
    answers = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 9]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already_decided"}
    await ended(client, run_id)
    names = [event["event"] for event in await events(client, run_id)]
    assert names.count("approval.decided") == names.count("run.queued") == 1
    assert names.count("run.started") == 2


async def test_an_expired_question_is_told_as_expired(client: httpx.AsyncClient, asker: str, engine: Engine) -> None:
    run_id = (await ask(client, NOTIFY))["run_id"]
    approval = await pending(client, run_id)
    await engine.database.execute("update approvals set expires_at = now() - interval '1 second'")
    late = await client.post(f"/approvals/{approval['id']}/decision", json={"decision": "approve"})
    assert (late.status_code, late.json()["code"]) == (409, "already_decided")
    assert (await ended(client, run_id))["state"] == "completed"
    assert (await client.get(f"/approvals/{approval['id']}")).json()["state"] == "expired"
    (told,) = [event["data"]["error"] for event in await events(client, run_id) if event["event"] == "tool.failed"]
    assert "expired" in told
    assert "It was not denied" in told
    assert (await client.get("/deliveries")).json()["items"] == []


async def test_expiry_can_fail_the_run(client: httpx.AsyncClient, asker: str, engine: Engine) -> None:
    rule = {"policy": "ask", "expires_seconds": 1, "on_expiry": "fail"}
    await client.patch("/agents/asker", json={"approval": {"notify": rule}})
    assert (await client.post("/agents/asker/publish", json={"version": 2})).status_code == 200
    run = await ended(client, (await ask(client, NOTIFY))["run_id"])
    assert (run["state"], run["error"]["code"]) == ("failed", "approval_expired")


async def test_a_rule_may_speak_of_some_arguments_only(client: httpx.AsyncClient, asker: str) -> None:
    rule = {"policy": "ask", "arguments": {"text": "*red*"}}
    await client.patch("/agents/asker", json={"approval": {"notify": rule}})
    await client.post("/agents/asker/publish", json={"version": 2})
    green = await client.post("/runs", json={"agent": "asker", "message": NOTIFY})
    assert (green.status_code, green.json()["state"]) == (200, "completed")
    await ask(client, NOTIFY.replace("green", "red"))


async def test_cancel_while_waiting_withdraws_the_question(client: httpx.AsyncClient, asker: str) -> None:
    run_id = (await ask(client, NOTIFY))["run_id"]
    approval = await pending(client, run_id)
    assert (await client.post(f"/runs/{run_id}/cancel")).json()["state"] == "cancelled"
    assert (await client.get(f"/approvals/{approval['id']}")).json()["state"] == "cancelled"
    late = await client.post(f"/approvals/{approval['id']}/decision", json={"decision": "approve"})
    assert late.status_code == 409
    assert (await client.get(f"/runs/{run_id}")).json()["state"] == "cancelled"


async def test_a_message_is_the_answer_to_the_one_open_question(client: httpx.AsyncClient, asker: str) -> None:
    asked = await ask(client, "Ask a person which colour to use")
    approval = await pending(client, asked["run_id"])
    assert (approval["kind"], approval["tool"]) == ("question", "ask_person")
    answer = await client.post(f"/conversations/{asked['conversation_id']}/messages", json={"message": "Blue."})
    assert (answer.status_code, answer.json()["run_id"]) == (200, asked["run_id"])
    assert answer.json()["state"] == "completed"
    assert "Blue." in answer.json()["reply"]


async def test_a_message_never_drops_an_approval(client: httpx.AsyncClient, asker: str) -> None:
    asked = await ask(client, NOTIFY)
    url = f"/conversations/{asked['conversation_id']}/messages"
    refused = await client.post(url, json={"message": "Stop!", "on_message": "interrupt"})
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_pending")
    queued = await client.post(url, json={"message": "And what is 2+2?", "background": True})
    assert queued.status_code == 202
    follow_up = queued.json()["run_id"]
    assert (await client.get(f"/runs/{follow_up}")).json()["reason"] == "behind 1 run of this conversation"
    approval = await pending(client, asked["run_id"])
    await client.post(f"/approvals/{approval['id']}/decision", json={"decision": "approve"})
    assert (await ended(client, asked["run_id"]))["state"] == "completed"
    assert "4" in (await ended(client, follow_up))["result"]


async def test_who_is_asked_reads_what_is_asked_and_how_to_decide(
    client: httpx.AsyncClient, asker: str, engine: Engine
) -> None:
    told = {"channels": ["email"], "email_address": "boss@example.com"}
    task = {"task_type": "delegation", "agent": asker, "prompt": NOTIFY, "notification_config": told}
    run = (await client.post("/tasks", json=task)).json()["latest_run"]
    await ended(client, run["id"], "waiting")
    approval = await pending(client, run["id"])
    row = await engine.database.fetchrow("select payload from deliveries where event = 'run.waiting'")
    assert row is not None
    assert '"text": "the build is green"' in row["payload"]["text"]
    assert f"/approvals/{approval['id']}/decision" in row["payload"]["text"]


async def test_two_questions_at_once_are_answered_in_any_order(client: httpx.AsyncClient, engine: Engine) -> None:
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    from app.providers import Providers

    async def stream(messages: list[Any], info: Any) -> AsyncIterator[Any]:
        from pydantic_ai.models.function import DeltaToolCall

        returns = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if not returns:
            yield {
                0: DeltaToolCall("ask_person", '{"question": "one?"}', tool_call_id="a"),
                1: DeltaToolCall("ask_person", '{"question": "two?"}', tool_call_id="b"),
            }
        else:
            yield "/".join(str(part.content) for part in returns)

    Providers.register("two-questions", lambda: FunctionModel(stream_function=stream))
    await client.post("/agents", json={"name": "two", "model": "scripted:two-questions", "tools": ["ask_person"]})
    asked = await ask(client, "go", agent="two")
    items = (await client.get("/approvals", params={"run_id": asked["run_id"]})).json()["items"]
    texts = {item["arguments"]["question"]: item["id"] for item in items}
    answers = await asyncio.gather(
        *(
            client.post(
                f"/approvals/{approval_id}/decision",
                json={"decision": "approve", "arguments": {"answer": f"yes to {question}"}},
            )
            for question, approval_id in texts.items()
        )
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (await ended(client, asked["run_id"]))["result"] == "yes to one?/yes to two?"
    del ModelResponse, TextPart, ToolCallPart


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"decision": "maybe"}, "decision"),
        ({"decision": "approve", "answer": "x"}, "answer"),
        ({"decision": "approve"}, "arguments.answer"),
    ],
)
async def test_a_bad_decision_decides_nothing(
    client: httpx.AsyncClient, asker: str, body: dict[str, Any], field: str
) -> None:
    asked = await ask(client, "Ask a person which colour to use")
    approval = await pending(client, asked["run_id"])
    refused = await client.post(f"/approvals/{approval['id']}/decision", json=body)
    assert refused.status_code == 422
    assert field in str(refused.json())
    assert (await pending(client, asked["run_id"]))["state"] == "pending"
