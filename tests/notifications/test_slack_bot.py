"""Slack by the bot token: threads, progress, questions; Slack's Web API is played on loopback."""

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from app import approvals
from app.approvals import Decision, NewApproval
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Database
from app.events import EventType, NewEvent, append
from app.models import new_id
from app.notifications import mutes, slack_threads
from app.notifications.channel import Means
from app.notifications.deliver import Sender
from app.runs import Claim, RunState
from app.settings import Settings
from app.settle import Outcome, announce_steps, cancelled
from tests.engine import World
from tests.notifications.servers import SlackApi

MakeMeans = Callable[..., Means]
TASK = """
insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, notification_config)
select $1, $2, 'delegation', 'Report', 'p', id, $3 from agents where workspace_id = $2 and name = 'assistant'
"""
EVERYTHING = ["started", "progress", "waiting", "completed", "failed", "cancelled", "recovered"]


class Office:
    """A task whose runs report to #ops, and the Slack they report to."""

    def __init__(self, world: World, settings: Settings, sender: Sender, slack: SlackApi, task_id: UUID) -> None:
        self.world = world
        self.settings = settings
        self.sender = sender
        self.slack = slack
        self.task_id = task_id

    async def run(self, **turn: Any) -> Claim:
        claim = await self.world.one(**turn)
        await self.world.database.execute("update runs set task_id = $2 where id = $1", claim.run_id, self.task_id)
        return claim

    async def ask(self, claim: Claim, *kinds: str, arguments: dict[str, Any] | None = None) -> list[UUID]:
        shown = arguments or {"to": "<@U1> *all*", "question": "Which one?"}
        questions = [
            NewApproval(kind, f"1:{place}", "send_mail", shown, "x", "external", 600, "tell")  # type: ignore[arg-type]
            for place, kind in enumerate(kinds)
        ]
        async with self.world.database.engine_tx() as connection:
            await approvals.park(connection, self.world.settings, claim.fenced, questions)
        rows = await self.world.database.fetch("select id from approvals where run_id = $1 order by id", claim.run_id)
        return [row["id"] for row in rows]

    async def decide(self, approval_id: UUID, *, approve: bool, reason: str | None = None) -> None:
        async with self.world.database.engine_tx() as connection:
            decision = Decision(approve, None, reason)
            await approvals.decide(connection, DEFAULT_WORKSPACE, approval_id, decision, principal_id=SYSTEM_PRINCIPAL)

    async def progress(self, claim: Claim, text: str, done: int) -> None:
        async with self.world.database.engine_tx() as connection:
            payload = {"text": text, "done": done, "total": 3}
            await append(connection, claim.conversation_id, claim.run_id, [NewEvent(EventType.RUN_PROGRESS, payload)])
        await self.steps(claim)

    async def steps(self, claim: Claim) -> None:
        async with self.world.database.engine_tx() as connection:
            await announce_steps(connection, self.world.settings, claim.run_id, claim.conversation_id)

    async def send(self) -> None:
        while await self.sender.send_due():
            pass

    async def all_sent(self) -> None:
        while [state for _, state, _ in await self.states() if state != "sent"]:
            await self.make_due()
            await self.send()

    async def states(self) -> list[tuple[str, str, str | None]]:
        rows = await self.world.database.fetch("select event, state, last_error from deliveries order by id")
        return [(row["event"], row["state"], row["last_error"]) for row in rows]

    async def make_due(self) -> None:
        await self.world.database.execute("update deliveries set next_attempt_at = now() where state = 'pending'")


@pytest.fixture
async def office(database: Database, settings: Settings, means: MakeMeans) -> AsyncIterator[Office]:
    async with SlackApi() as slack:
        app = {"slack_bot_token": "xoxb-test-token", "slack_signing_secret": "secret", "slack_api_url": slack.url}
        by = means(database, **app)
        config = {"channels": ["slack"], "slack_channel": "#ops", "on": EVERYTHING}
        task_id = new_id()
        await database.execute(TASK, task_id, DEFAULT_WORKSPACE, config)
        yield Office(World(database, settings), by.settings, Sender(database, by), slack, task_id)


def blocks(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in message["blocks"] if block["type"] == kind]


def said(message: dict[str, Any]) -> str:
    return str(message["blocks"])


async def test_a_conversation_has_one_thread(office: Office) -> None:
    claim = await office.run()
    await office.steps(claim)
    await office.send()
    await office.world.settle(claim, Outcome(RunState.COMPLETED, result="All is well."), claim.fenced)
    await office.send()
    first, second = office.slack.thread("COPS")
    assert "thread_ts" not in first
    assert second["thread_ts"] == first["ts"]
    assert [message["text"] for message in (first, second)] == ["Started: Report", "Completed: Report"]
    found = await slack_threads.find_thread(
        office.world.database, team="T0TEAM", channel="COPS", thread_ts=str(first["ts"])
    )
    assert found is not None
    assert found.conversation_id == claim.conversation_id
    _, _, headers = office.slack.calls[0]
    assert headers["authorization"] == "Bearer xoxb-test-token"


async def test_another_conversation_has_another_thread(office: Office) -> None:
    for _ in range(2):
        claim = await office.run()
        await office.world.settle(claim, Outcome(RunState.COMPLETED, result="done"), claim.fenced)
    await office.send()
    assert ["thread_ts" in message for message in office.slack.thread("COPS")] == [False, False]


async def test_messages_at_once_open_one_thread(office: Office) -> None:
    claim = await office.run()
    await office.steps(claim)
    await office.world.settle(claim, Outcome(RunState.COMPLETED, result="done"), claim.fenced)
    await asyncio.gather(office.sender.send_due(1), office.sender.send_due(1))
    await office.all_sent()
    roots = [message for message in office.slack.thread("COPS") if "thread_ts" not in message]
    assert len(roots) == 1


async def test_progress_stays_one_message(office: Office) -> None:
    claim = await office.run()
    await office.steps(claim)
    for number in (1, 2, 3):
        await office.progress(claim, "reading", number)
        await office.send()
        await office.make_due()
        await office.send()
    [message] = office.slack.thread("COPS")
    assert message["text"] == "Progress: Report"
    assert "reading (3 of 3)" in said(message)
    assert [method for method, _, _ in office.slack.calls] == [
        "auth.test",
        "chat.postMessage",
        "chat.update",
        "chat.update",
        "chat.update",
    ]
    assert {state for _, state, _ in await office.states()} == {"sent"}


async def test_progress_that_changes_a_message_is_no_burst(office: Office) -> None:
    claim = await office.run()
    await office.steps(claim)
    await office.send()
    for number in range(25):
        await office.progress(claim, "reading", number)
        await office.send()
    await office.world.settle(claim, Outcome(RunState.COMPLETED, result="All is well."), claim.fenced)
    await office.send()
    assert {state for _, state, _ in await office.states()} == {"sent"}
    assert [message["text"] for message in office.slack.thread("COPS")] == ["Progress: Report", "Completed: Report"]


async def test_older_progress_does_not_take_the_place_of_newer(office: Office) -> None:
    claim = await office.run()
    await office.steps(claim)
    await office.send()
    for number in (1, 2):
        await office.progress(claim, "reading", number)
    await office.world.database.execute(
        "update deliveries set next_attempt_at = now() + interval '1 h' where state = 'pending' and event_seq = "
        "(select min(event_seq) from deliveries where state = 'pending')"
    )
    await office.send()
    await office.make_due()
    await office.send()
    [message] = office.slack.thread("COPS")
    assert "reading (2 of 3)" in said(message)


async def test_a_question_has_buttons_and_then_its_decision(office: Office) -> None:
    claim = await office.run()
    one, two = await office.ask(claim, "tool", "tool")
    await office.send()
    [message] = office.slack.thread("COPS")
    buttons = [element for block in blocks(message, "actions") for element in block["elements"]]
    assert [(button["action_id"], button["value"]) for button in buttons] == [
        (f"{action}:{each}", str(each)) for each in (one, two) for action in ("approve", "deny")
    ]
    assert "<@U1>" not in said(message)
    await office.decide(one, approve=False, reason="not to <!channel>")
    await office.send()
    [message] = office.slack.thread("COPS")
    assert len(blocks(message, "actions")) == 1
    assert "*Denied* by system (send_mail): not to &lt;!channel&gt;" in said(message)
    await office.decide(two, approve=True)
    await office.send()
    [message] = office.slack.thread("COPS")
    assert blocks(message, "actions") == []
    assert "*Approved* by system" in said(message)
    assert [state for _, state, _ in await office.states()] == ["sent"] * 3


async def test_a_decision_that_came_before_the_message_is_shown_at_once(office: Office) -> None:
    claim = await office.run()
    [only] = await office.ask(claim, "tool")
    await office.decide(only, approve=True)
    await office.send()
    [message] = office.slack.thread("COPS")
    assert blocks(message, "actions") == []
    assert "*Approved*" in said(message)


async def test_questions_that_a_cancelled_run_takes_back_lose_their_buttons(office: Office) -> None:
    claim = await office.run()
    await office.ask(claim, "tool")
    await office.send()
    await office.world.settle(claim, cancelled("not needed"))
    await office.send()
    question, end = office.slack.thread("COPS")
    assert blocks(question, "actions") == []
    assert "*Cancelled*" in said(question)
    assert end["text"] == "Cancelled: Report"


async def test_a_question_in_words_has_no_button(office: Office) -> None:
    claim = await office.run()
    await office.ask(claim, "question")
    await office.send()
    [message] = office.slack.thread("COPS")
    assert blocks(message, "actions") == []
    assert "Which one?" in said(message)
    assert "To answer, write in this thread." in said(message)


async def test_of_several_questions_the_first_in_words_is_answered_in_the_thread(office: Office) -> None:
    claim = await office.run()
    _, first, second = await office.ask(claim, "tool", "question", "question")
    await office.send()
    [message] = office.slack.thread("COPS")
    assert said(message).count("To answer, write in this thread.") == 1
    assert f"/approvals/{first}/decision" not in said(message)
    assert f"/approvals/{second}/decision with" in said(message)
    await office.decide(first, approve=False)
    await office.send()
    [message] = office.slack.thread("COPS")
    assert said(message).count("To answer, write in this thread.") == 1
    assert f"/approvals/{second}/decision" not in said(message)


async def test_whether_a_call_took_effect_is_said_by_buttons(office: Office) -> None:
    claim = await office.run()
    [only] = await office.ask(claim, "effect")
    await office.send()
    [message] = office.slack.thread("COPS")
    assert actions(message) == [f"happened:{only}", f"repeat:{only}", f"fail:{only}"]


def actions(message: dict[str, Any]) -> list[str]:
    return [element["action_id"] for block in blocks(message, "actions") for element in block["elements"]]


@pytest.mark.parametrize("text", ["x" * 1_900, "<" * 400, "```\n*Approved*\n```"])
async def test_what_is_approved_by_a_button_is_shown_whole(office: Office, text: str) -> None:
    claim = await office.run()
    ids = await office.ask(claim, "tool", "tool", arguments={"text": text})
    await office.send()
    [message] = office.slack.thread("COPS")
    assert actions(message) == [f"{action}:{each}" for each in ids for action in ("approve", "deny")]
    for block in blocks(message, "section"):
        _, shown, after = block["text"]["text"].split("```")
        shown = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert (json.loads(shown), after) == ({"text": text}, "")


@pytest.mark.parametrize(("kinds", "text"), [(1, "x" * 5_000), (1, "<" * 1_500), (12, "x" * 1_500)])
async def test_what_is_not_shown_whole_can_not_be_approved(office: Office, kinds: int, text: str) -> None:
    claim = await office.run()
    ids = await office.ask(claim, *["tool", "effect"] * kinds, arguments={"text": text})
    await office.send()
    [message] = office.slack.thread("COPS")
    assert len(message["blocks"]) <= 50
    assert all(len(block["text"]["text"]) <= 3_000 for block in blocks(message, "section"))
    assert {each.partition(":")[0] for each in actions(message)} == {"deny", "happened", "fail"}
    for each, block in zip(ids, blocks(message, "section"), strict=False):
        assert re.search(r"```\n… cut: [0-9]+ characters more\n", block["text"]["text"])
        assert f"/approvals/{each}|See all of it>" in block["text"]["text"]
    others = max(0, kinds * 2 - 20)
    assert (f"{others} more questions" in said(message)) == bool(others)


async def test_without_a_signing_secret_nothing_is_offered_that_nobody_would_hear(
    office: Office, means: MakeMeans
) -> None:
    app = {"slack_bot_token": "xoxb-test-token", "slack_api_url": office.slack.url}
    office.sender = Sender(office.world.database, means(office.world.database, **app))
    claim = await office.run()
    await office.ask(claim, "tool", "question")
    await office.send()
    [message] = office.slack.thread("COPS")
    assert actions(message) == []
    assert "in this thread" not in said(message)
    assert said(message).count("To decide: POST ") == 2


async def test_a_message_can_be_read_answered_and_muted(office: Office) -> None:
    claim = await office.run()
    await office.ask(claim, "tool")
    await office.send()
    await office.world.settle(claim, Outcome(RunState.FAILED, error={"code": "x", "message": "no"}))
    await office.send()
    for message in office.slack.thread("COPS"):
        assert f"/conversations/{claim.conversation_id}/export?format=markdown|Read the conversation>" in said(message)
        assert "/unsubscribe/" in said(message)
    assert "To answer, write in this thread." in said(office.slack.thread("COPS")[-1])
    assert "POST http://localhost:8000/conversations" not in said(office.slack.thread("COPS")[-1])


async def test_what_fails_after_a_question_was_posted_does_not_post_it_again(office: Office) -> None:
    claim = await office.run()
    [only] = await office.ask(claim, "tool")
    await office.decide(only, approve=True)
    office.slack.answers = {"chat.update": [(429, {}, {}), (503, {}, {})]}
    for _ in range(3):
        await office.send()
        await office.make_due()
    [message] = office.slack.thread("COPS")
    assert "*Approved*" in said(message)
    assert {state for _, state, _ in await office.states()} == {"sent"}


async def test_a_question_that_is_sent_again_by_hand_is_posted_again(office: Office) -> None:
    claim = await office.run()
    await office.ask(claim, "tool")
    await office.send()
    copy = """
        insert into deliveries (id, workspace_id, conversation_id, event_seq, event, resend_of, run_id, task_id, channel,
            address, payload, message_id)
        select $1, workspace_id, conversation_id, event_seq, event, id, run_id, task_id, channel, address, payload, 'x'
        from deliveries"""
    await office.world.database.execute(copy, new_id())
    await office.send()
    assert len(office.slack.thread("COPS")) == 2


async def test_a_later_run_has_one_message_of_its_progress_however_many_are_sent_at_once(office: Office) -> None:
    first = await office.run()
    await office.steps(first)
    await office.world.settle(first, Outcome(RunState.COMPLETED, result="done"), first.fenced)
    await office.all_sent()
    before = len(office.slack.thread("COPS"))
    accepted = await office.world.say(first.conversation_id, "again")
    [claim] = [each for each in await office.world.claim() if each.run_id == accepted.run_id]
    await office.world.database.execute("update runs set task_id = $2 where id = $1", claim.run_id, office.task_id)
    for number in (1, 2, 3):
        await office.progress(claim, "reading", number)
    await asyncio.gather(*(office.sender.send_due(1) for _ in range(4)))
    await office.all_sent()
    [message] = office.slack.thread("COPS")[before:]
    assert "reading (3 of 3)" in said(message)


async def test_who_has_unsubscribed_still_sees_what_was_decided(office: Office) -> None:
    claim = await office.run()
    [only] = await office.ask(claim, "tool")
    await office.send()
    delivery = await office.world.database.fetchval("select id from deliveries")
    settings = office.settings
    of = await mutes.find(office.world.database, settings, mutes.unsubscribe_url(settings, delivery).rpartition("/")[2])
    assert of is not None
    await mutes.mute(
        office.world.database, dataclasses.replace(of, task_id=None, conversation_id=claim.conversation_id)
    )
    await office.decide(only, approve=True)
    await office.send()
    [message] = office.slack.thread("COPS")
    assert "*Approved*" in said(message)


@pytest.mark.parametrize(
    ("status", "headers", "answer", "state", "error"),
    [
        (429, {"Retry-After": "30"}, {}, "pending", "answered 429"),
        (500, {}, {}, "pending", "answered 500"),
        (404, {}, {}, "dead", "answered 404"),
        (302, {"Location": "http://127.0.0.1:1/"}, {}, "dead", "answered 302"),
        (200, {}, {"ok": False, "error": "channel_not_found"}, "dead", "channel_not_found"),
        (200, {}, {"ok": False, "error": "invalid_auth"}, "dead", "invalid_auth"),
        (200, {}, {"ok": False, "error": "ratelimited"}, "pending", "ratelimited"),
    ],
)
async def test_what_slack_answers_is_judged(
    office: Office, status: int, headers: dict[str, str], answer: dict[str, Any], state: str, error: str
) -> None:
    office.slack.answers = {"chat.postMessage": [(status, headers, answer)]}
    claim = await office.run()
    await office.world.settle(claim, Outcome(RunState.COMPLETED, result="done"), claim.fenced)
    await office.send()
    [(_, found, last_error)] = await office.states()
    assert (found, error in str(last_error)) == (state, True)
    assert "xoxb" not in str(last_error)
    if headers.get("Retry-After"):
        wait = await office.world.database.fetchval(
            "select extract(epoch from next_attempt_at - now())::float from deliveries"
        )
        assert 25 < wait <= 30
    if state == "pending":
        await office.make_due()
        await office.send()
        assert len(office.slack.thread("COPS")) == 1


async def test_five_megabytes_fit_into_slacks_limits(office: Office) -> None:
    claim = await office.run()
    text = "# Report\n" + "<b>&" * 1_250_000
    await office.world.settle(claim, Outcome(RunState.COMPLETED, result=text), claim.fenced)
    await office.send()
    [message] = office.slack.thread("COPS")
    assert len(message["blocks"]) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in blocks(message, "section"))
    assert all(len(block["text"]["text"]) <= 150 for block in blocks(message, "header"))
