"""Trying channels, previews, sending again by filter, the workspace's rules, and the link to unsubscribe."""

import asyncio
import re
from email import message_from_bytes, policy
from typing import Any
from uuid import UUID

import httpx
import pytest

from app import artifacts
from app.api.limits import Limit
from app.artifacts import NewArtifact
from app.db import DEFAULT_WORKSPACE, Database
from app.executor import Engine
from app.models import new_id
from app.notifications import NotificationConfig, mutes, plan
from app.notifications.deliver import Sender, insert
from app.notifications.notice import Notice
from app.settings import Settings
from tests.api.conftest import serve

MAIL = {"channels": ["email"], "email_address": "user@example.com"}


async def a_task(client: httpx.AsyncClient, **config: Any) -> str:
    body = {"task_type": "scheduled", "prompt": "Report", "interval_seconds": 86_400, "title": "Report <b>"}
    made = await client.post("/tasks", json=body | {"notification_config": MAIL | config})
    assert made.status_code == 201, made.text
    return made.json()["id"]


async def a_delivery(database: Database, client: httpx.AsyncClient, state: str = "dead", **values: Any) -> str:
    """A delivery of a task of its own, in a state."""
    task_id = await a_task(client)
    conversation = (await client.post("/conversations", json={"pattern_type": "chatbot"})).json()["id"]
    known: dict[str, Any] = {
        "event": "run.completed",
        "title": "Report <b>",
        "text": "All is **well**.\n\n<script>alert(1)</script> ![x](https://tracker.example/p.png)",
    }
    notice = Notice(
        **(known | values),
        workspace_id=DEFAULT_WORKSPACE,
        conversation_id=conversation,
        run_id=new_id(),
        event_seq=1,
        base_url="http://localhost:8000",
        task_id=task_id,
    )
    async with database.engine_tx() as connection:
        await insert(connection, notice, plan(notice, NotificationConfig.model_validate(MAIL), default_slack=False))
    row = await database.fetchrow(
        "update deliveries set state = $2 where conversation_id = $1 returning id", conversation, state
    )
    assert row is not None
    return str(row["id"])


async def test_a_test_message_says_what_happened(client: httpx.AsyncClient, settings: Settings) -> None:
    config = MAIL | {"channels": ["email", "webhook"], "callback_url": "https://nowhere.invalid/hook"}
    answer = await client.post("/notifications/test", json={"notification_config": config})
    assert answer.status_code == 200
    mail, call = answer.json()["results"]
    assert (mail["channel"], mail["address"], mail["ok"]) == ("email", "user@example.com", True)
    assert mail["detail"].startswith("captured in ")
    assert (call["channel"], call["ok"]) == ("webhook", False)
    assert "nowhere.invalid" in call["detail"]
    assert len(list(await asyncio.to_thread((settings.parley_home / "outbox").glob, "*.eml"))) == 1


async def test_a_tasks_own_addresses_are_tried(client: httpx.AsyncClient) -> None:
    task_id = await a_task(client)
    answer = await client.post("/notifications/test", json={"task_id": task_id})
    assert [(each["channel"], each["ok"]) for each in answer.json()["results"]] == [("email", True)]


async def test_a_channel_that_is_gone_says_so_when_it_is_tried(client: httpx.AsyncClient, database: Database) -> None:
    task_id = await a_task(client)
    await database.execute("update tasks set notification_config = $1", {"channels": ["pager"]})
    (tried,) = (await client.post("/notifications/test", json={"task_id": task_id})).json()["results"]
    assert (tried["channel"], tried["ok"], tried["detail"]) == ("pager", False, "this version has no channel 'pager'")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "task_id"),
        ({"task_id": str(new_id())}, "task_id"),
        ({"task_id": str(new_id()), "notification_config": MAIL}, "task_id"),
        ({"notification_config": {"channels": ["webhook"]}}, "notification_config.callback_url"),
        ({"notification_config": {"callback_url": "http://10.0.0.1/"}}, "notification_config.callback_url"),
    ],
)
async def test_what_can_not_be_tried_is_refused_by_name(client: httpx.AsyncClient, body: Any, field: str) -> None:
    answer = await client.post("/notifications/test", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_a_preview_shows_every_form_and_sends_nothing(client: httpx.AsyncClient, database: Database) -> None:
    answer = (await client.post("/notifications/preview", json={"event": "failed", "title": "Report"})).json()
    assert answer["subject"] == "Failed: Report"
    assert "<strong>bold</strong>" in answer["html"]
    assert "/unsubscribe/" in answer["text"]
    assert answer["blocks"][0]["type"] == "header"
    assert answer["payload"]["type"] == "run.failed"
    assert await database.fetchval("select count(*) from deliveries") == 0


async def test_a_preview_of_a_delivery_is_as_safe_as_its_mail(client: httpx.AsyncClient, database: Database) -> None:
    delivery = await a_delivery(database, client)
    answer = (await client.post("/notifications/preview", json={"delivery_id": delivery})).json()
    assert answer["subject"] == "Completed: Report <b>"
    assert "<script" not in answer["html"]
    assert "tracker.example" not in answer["html"]
    missing = await client.post("/notifications/preview", json={"delivery_id": str(new_id())})
    assert missing.status_code == 404


KNOWN = "insert into principals (id, workspace_id, kind, name, email) values ($1, $2, 'key', 'boss', $3)"
LIVE = re.compile(r"(/decisions/|/unsubscribe/|[+])[A-Za-z0-9_-]{20,}")


@pytest.mark.parametrize(("event", "decides"), [("run.waiting", True), ("run.waiting", False), ("run.completed", True)])
async def test_a_preview_is_what_is_sent_but_for_the_tokens(
    settings: Settings, database: Database, event: str, decides: bool
) -> None:
    settings = settings.model_copy(update={"parley_reply_address": "reply@example.org"})
    asked = {"id": str(new_id()), "kind": "tool", "tool": "send_mail", "question": "May this be called?"}
    asked |= {"arguments": "{}", "left_out": 0, "url": "http://localhost:8000/approvals/1/decision", "answer": "{}"}
    async with serve(settings) as client, Engine.open(settings, kind="worker") as engine:
        questions = (asked,) if event == "run.waiting" else ()
        delivery = await a_delivery(database, client, "pending", event=event, text="Well?", asked=questions)
        await with_a_file(client, database, delivery)
        if decides:
            await database.execute(KNOWN, new_id(), DEFAULT_WORKSPACE, MAIL["email_address"])
        shown = (await client.post("/notifications/preview", json={"delivery_id": delivery})).json()
        await Sender(database, engine.means).send_due()
    [path] = await asyncio.to_thread(lambda: list((settings.parley_home / "outbox").glob("*.eml")))
    mail = message_from_bytes(await asyncio.to_thread(path.read_bytes), policy=policy.default)
    for kind, form in (("plain", "text"), ("html", "html")):
        sent = mail.get_body((kind,)).get_content()  # type: ignore[union-attr]
        assert LIVE.sub(r"\1TOKEN", sent).split() == shown[form].split()
    assert "reply to this mail" in shown["text"].lower()
    assert "/unsubscribe/TOKEN" in shown["text"]
    assert ("/decisions/TOKEN" in shown["text"], "report.csv" in shown["text"]) == (
        bool(questions) and decides,
        not questions,
    )
    assert not LIVE.search(str(shown))


async def with_a_file(client: httpx.AsyncClient, database: Database, delivery: str) -> None:
    """Let a delivery be about a run that made a file."""
    task = (await client.post("/tasks", json={"task_type": "delegation", "prompt": "Go"})).json()
    run = task["latest_run"]
    made = NewArtifact(
        id=new_id(),
        workspace_id=DEFAULT_WORKSPACE,
        name="report.csv",
        media_type="text/csv",
        content=b"a,b",
        conversation_id=UUID(run["conversation_id"]),
        run_id=UUID(run["id"]),
    )
    async with database.engine_tx() as connection:
        await artifacts.insert(connection, made)
        moved = "update deliveries set conversation_id = $2, run_id = $3 where id = $1"
        await connection.execute(moved, UUID(delivery), made.conversation_id, made.run_id)


async def test_an_event_that_there_is_not_yet_is_refused_by_name(client: httpx.AsyncClient) -> None:
    body = {"task_type": "delegation", "prompt": "p", "notification_config": MAIL | {"on": ["completed", "budget"]}}
    refused = [
        (await client.post("/tasks", json=body), "notification_config.on"),
        (await client.put("/settings/notifications", json={"on": ["budget"]}), "on"),
        (await client.post("/notifications/preview", json={"event": "budget"}), "event"),
    ]
    like = await client.post("/tasks", json={"task_type": "delegation", "prompt": "p", "budget": {"cost_usd": 1}})
    for answer, field in refused:
        assert (answer.status_code, answer.json()["code"]) == (like.status_code, like.json()["code"])
        assert answer.json()["field"] == field


async def test_deliveries_are_sent_again_by_filter_and_each_once(client: httpx.AsyncClient, database: Database) -> None:
    dead = [await a_delivery(database, client) for _ in range(3)]
    await a_delivery(database, client, "sent")
    body: dict[str, Any] = {"filter": {"channel": "email"}}
    assert (await client.post("/deliveries/resend", json=body | {"dry_run": True})).json() == {"count": 3}
    assert (await client.post("/deliveries/resend", json=body)).json() == {"count": 3}
    assert (await client.post("/deliveries/resend", json=body)).json() == {"count": 0}
    rows = await database.fetch("select resend_of, state, attempts from deliveries where resend_of is not null")
    assert sorted(str(row["resend_of"]) for row in rows) == sorted(dead)
    refused = await client.post("/deliveries/resend", json={"filter": {}})
    assert (refused.status_code, refused.json()["field"]) == (422, "filter")
    some = await client.post("/deliveries/resend", json={"filter": {"state": "sent", "ids": dead}})
    assert some.json() == {"count": 0}


async def test_calls_at_once_send_each_delivery_again_once(client: httpx.AsyncClient, database: Database) -> None:
    for _ in range(3):
        await a_delivery(database, client)
    body = {"filter": {"state": "dead"}}
    done = await asyncio.gather(*(client.post("/deliveries/resend", json=body) for _ in range(6)))
    assert sorted(each.json()["count"] for each in done) == [0, 0, 0, 0, 0, 3]
    assert await database.fetchval("select count(*) from deliveries where resend_of is not null") == 3


async def test_a_call_by_filter_that_is_sent_again_tells_the_same(
    client: httpx.AsyncClient, database: Database
) -> None:
    await a_delivery(database, client)
    body, headers = {"filter": {"state": "dead"}}, {"Idempotency-Key": "again"}
    first = await client.post("/deliveries/resend", json=body, headers=headers)
    await a_delivery(database, client)
    second = await client.post("/deliveries/resend", json=body, headers=headers)
    assert (first.json(), second.json()) == ({"count": 1}, {"count": 1})
    other = await client.post("/deliveries/resend", json={"filter": {"state": "sent"}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert (await client.post("/deliveries/resend", json=body)).json() == {"count": 1}


async def test_the_rules_of_a_workspace_are_kept_and_audited(client: httpx.AsyncClient, database: Database) -> None:
    nothing = (await client.get("/settings/notifications")).json()
    assert set(nothing.values()) == {None}
    put = await client.put("/settings/notifications", json={"on": ["failed"], "cooldown_seconds": 60})
    assert put.status_code == 200
    assert (await client.get("/settings/notifications")).json()["on"] == ["failed"]
    stored = await database.fetchval("select notification_rules from workspaces where id = $1", DEFAULT_WORKSPACE)
    assert stored == {"on": ["failed"], "cooldown_seconds": 60}
    assert await database.fetchval("select count(*) from audit where action = 'notifications.rules'") == 1
    wrong = await client.put("/settings/notifications", json={"cooldown_seconds": -1})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "cooldown_seconds")


async def test_opening_the_link_changes_nothing_and_one_post_unsubscribes(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    path = mutes.unsubscribe_url(settings, new_id()).removeprefix(settings.base_url)
    assert (await client.get(path)).status_code == 404
    delivery = await a_delivery(database, client, "sent")
    path = mutes.unsubscribe_url(settings, UUID(delivery)).removeprefix(settings.base_url)
    for _ in range(2):
        page = await client.get(path)
        assert page.status_code == 200
        assert "Unsubscribe?" in page.text
        assert "Report &lt;b&gt;" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert await database.fetchval("select count(*) from mutes") == 0
    one_click = {"List-Unsubscribe": "One-Click"}  # As RFC 8058 has mail programs post it.
    for _ in range(2):
        done = await client.post(path, data=one_click)
        assert (done.status_code, "You are unsubscribed" in done.text) == (200, True)
    assert await database.fetchval("select address from mutes") == "user@example.com"
    assert "You are unsubscribed" in (await client.get(path)).text
    again = await client.post(path, data={"action": "subscribe"})
    assert "Unsubscribe?" in again.text
    assert await database.fetchval("select count(*) from mutes") == 0
    assert (await client.post(path[:-1], data=one_click)).status_code == 404


async def test_who_tries_out_links_is_slowed_down(
    guarded: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.access.FORGERS", Limit("forger", 3, shared=False))
    forged = mutes.unsubscribe_url(settings, new_id()).removeprefix(settings.base_url)
    statuses = [(await guarded.post(forged[:-1])).status_code for _ in range(5)]
    assert statuses == [404, 404, 404, 429, 429]
