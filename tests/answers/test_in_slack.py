"""A report in Slack is answered in its thread, a question decided by its buttons: end to end, and by those who may not."""

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.answers.conftest import REPORT, Office
from tests.answers.slack import BOT, CHANNEL, Workspace, member

ANN = "U0ANN"
THEIRS = {"channels": ["slack"], "slack_channel": "#ops"}


async def reported(office: Office, slack: Workspace) -> dict[str, Any]:
    """The message of a scheduled report."""
    await office.scheduled_report(**THEIRS)
    await office.settled()
    (message,) = slack.posted
    return message


async def asked(office: Office, slack: Workspace) -> dict[str, Any]:
    """The message of a question whether a tool may be called."""
    await office.post(
        "/tasks", task_type="delegation", prompt="Tell them.", agent="careful", notification_config=THEIRS
    )
    await slack.until(lambda: any("approve:" in json.dumps(each.get("blocks")) for each in slack.posted))
    await office.settled()
    return slack.posted[-1]


def shown(message: dict[str, Any]) -> str:
    return json.dumps(message["blocks"])


async def test_a_report_is_answered_in_its_thread(office: Office, slack: Workspace) -> None:
    principal = await office.person("conversations:write", slack_user=ANN)
    report = await reported(office, slack)
    assert REPORT in shown(report)
    assert "thread_ts" not in report
    taken = await slack.say(
        office.http, ANN, f"<@{BOT}> Add the totals &amp; <https://x.example|the sources>, please.", report["ts"]
    )
    assert (taken.status_code, taken.json()["outcome"]) == (200, "message"), taken.text
    await office.settled()
    _, back = slack.posted
    assert (back["thread_ts"], back["channel"]) == (report["ts"], CHANNEL)
    assert "Add the totals &amp; the sources (https://x.example), please." in shown(back)
    assert f"I had said '{REPORT}'." in shown(back)
    (conversation,) = await office.conversations()
    assert len(await office.texts(conversation)) == 4
    assert await office.database.fetchval("select principal_id from answers") == principal
    assert await office.database.fetchval("select principal_id from runs order by id desc limit 1") == principal


async def test_the_address_that_slack_has_confirmed_says_who_it_is(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", email="Ann@Example.com")
    slack.users = {ANN: member("ann@example.com")}
    report = await reported(office, slack)
    assert (await slack.say(office.http, ANN, "Hello.", report["ts"])).json()["outcome"] == "message"
    assert "users.info" in slack.asked


@pytest.mark.parametrize(
    "fields",
    [
        {"team_id": "T0OTHER"},
        {"is_stranger": True},
        {"is_restricted": True},
        {"is_bot": True},
        {"deleted": True},
        {"is_email_confirmed": False},
        {"profile": {}},
        {"profile": None},
    ],
)
async def test_an_address_nobody_vouches_for_says_nothing(
    office: Office, slack: Workspace, fields: dict[str, Any]
) -> None:
    await office.person("conversations:write", email="ann@example.com")
    slack.users = {ANN: member("ann@example.com") | fields}
    report = await reported(office, slack)
    assert (await slack.say(office.http, ANN, "Hello.", report["ts"])).json()["outcome"] == "refused"


async def test_who_is_unknown_is_told_once_in_the_thread(office: Office, slack: Workspace) -> None:
    report = await reported(office, slack)
    for _ in range(3):
        taken = (await slack.say(office.http, "U0EVE", "Hello?", report["ts"])).json()
        assert (taken["outcome"], taken["run_id"]) == ("refused", None)
    await office.settled()
    _, polite = slack.posted
    assert polite["thread_ts"] == report["ts"]
    assert "known by your Slack account" in shown(polite)
    await slack.say(office.http, "U0MALLORY", "Hello?", report["ts"])
    await office.settled()
    assert len(slack.posted) == 3
    assert [outcome for outcome, _ in await office.answers()] == ["refused"] * 4


async def test_a_scope_is_needed(office: Office, slack: Workspace) -> None:
    await office.person("tasks:write", slack_user=ANN)
    report = await reported(office, slack)
    taken = (await slack.say(office.http, ANN, "Hello.", report["ts"])).json()
    assert (taken["outcome"], "conversations:write" in taken["reason"]) == ("refused", True)
    key = await office.database.fetchval("select id from api_keys")
    await office.person("conversations:write", slack_user=ANN)
    assert (await slack.say(office.http, ANN, "Hello.", report["ts"])).json()["outcome"] == "message"
    await office.database.execute("update api_keys set revoked_at = now() where id <> $1", key)
    assert (await slack.say(office.http, ANN, "Hello.", report["ts"])).json()["outcome"] == "refused"


async def test_retries_are_duplicates(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", slack_user=ANN)
    report = await reported(office, slack)
    event = slack.event(ANN, "Once.", report["ts"])
    mention = event | {"event_id": "EvOther", "event": event["event"] | {"type": "app_mention"}}
    bodies = [json.dumps(each).encode() for each in (event, event, event, mention)]
    taken = await asyncio.gather(*(slack.tell(office.http, "/slack/events", body) for body in bodies))
    assert sorted(each.json()["outcome"] for each in taken) == ["duplicate"] * 3 + ["message"]
    assert len({each.json()["run_id"] for each in taken}) == 1
    await office.settled()
    assert len(slack.posted) == 2


async def test_files_in_slack_become_artifacts(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", slack_user=ANN)
    report = await reported(office, slack)
    slack.files["/files/totals.csv"] = ("text/csv", b"a,b")
    at = f"http://127.0.0.1:{slack.port}/files"
    file = {"id": "F1", "name": "../totals.csv", "mimetype": "text/csv", "url_private": f"{at}/totals.csv"}
    for text in ("See this.", ""):
        taken = (await slack.say(office.http, ANN, text, report["ts"], subtype="file_share", files=[file])).json()
        assert taken["outcome"] == "message", taken
    await office.settled()
    rows = await office.database.fetch("select name, media_type, content from artifacts where run_id is null")
    assert [tuple(row) for row in rows] == [("totals.csv", "text/csv", b"a,b")] * 2
    assert "About your message" not in str(slack.posted)


FILES: list[tuple[dict[str, Any], str]] = [
    ({}, "Slack does not say where it is"),
    ({"url_private": "https://files.slack.com.evil.example/x"}, "Slack does not say where it is"),
    ({"url_private": "https://files.slack.com@evil.example/x"}, "Slack does not say where it is"),
    ({"url_private": "http://files.slack.com/x"}, "Slack does not say where it is"),
    ({"url_private": "http://[x"}, "Slack does not say where it is"),
    ({"url_private": "HERE/\x7f\u202e x"}, "was not kept"),
    ({"url_private": "HERE/secret.csv"}, "the app needs the scope files:read"),
    ({"url_private": "HERE/large.csv"}, "1500000 bytes"),
    ({"url_private": "HERE/odd.csv", "mimetype": "x y"}, "is not a media type"),
]


@pytest.mark.parametrize(("file", "why"), FILES)
async def test_files_that_are_left_out_are_named_in_the_thread(
    office: Office, slack: Workspace, file: dict[str, Any], why: str
) -> None:
    await office.person("conversations:write", slack_user=ANN)
    report = await reported(office, slack)
    slack.files = {"/files/large.csv": ("text/csv", b"x" * 1_500_001), "/files/odd.csv": ("text/csv", b"x")}
    url = file.get("url_private", "").replace("HERE", f"http://127.0.0.1:{slack.port}/files")
    shared = {"subtype": "file_share", "files": [{"name": "a.csv", "mimetype": "text/csv", **file, "url_private": url}]}
    assert (await slack.say(office.http, ANN, "See this.", report["ts"], **shared)).json()["outcome"] == "message"
    await office.settled()
    (note,) = [each for each in slack.posted if "About your message" in shown(each)]
    assert (note["thread_ts"], "the file a.csv was not kept: " in shown(note)) == (report["ts"], True)
    assert why in shown(note)
    (conversation,) = await office.conversations()
    assert why in (await office.texts(conversation))[-2]
    refused = (await slack.say(office.http, ANN, "", report["ts"], **shared)).json()
    assert (refused["outcome"], why in refused["reason"]) == ("refused", True)
    assert await office.database.fetchval("select count(*) from artifacts where run_id is null") == 0


async def test_what_is_no_answer_is_ignored(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", slack_user=ANN)
    report = await reported(office, slack)
    ts = report["ts"]
    for fields in (
        {"bot_id": "B0US"},
        {"subtype": "bot_message"},
        {"subtype": "message_changed", "message": {"text": "x"}},
        {"subtype": "message_deleted"},
        {"subtype": "thread_broadcast", "bot_id": "B1"},
        {"edited": {"user": ANN}},
        {"hidden": True},
        {"type": "reaction_added"},
        {"thread_ts": None},
        {"thread_ts": "1.000001"},
        {"channel": "C0ELSE"},
        {"user": None},
    ):
        taken = await slack.say(office.http, ANN, "Hello.", ts, **fields)
        assert (taken.status_code, taken.json()["outcome"]) == (200, "ignored"), fields
    other = slack.event(ANN, "Hello.", ts) | {"team_id": "T0OTHER"}
    assert (await slack.tell(office.http, "/slack/events", json.dumps(other).encode())).json()["outcome"] == "ignored"
    assert await office.answers() == []


async def test_the_url_is_confirmed(office: Office, slack: Workspace) -> None:
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aB", "token": "x"}).encode()
    answer = await slack.tell(office.http, "/slack/events", body)
    assert answer.json()["challenge"] == "3eZbrw1aB"
    assert (await slack.tell(office.http, "/slack/events", body, secret="wrong")).status_code == 401


@pytest.mark.parametrize("path", ["/slack/events", "/slack/interactivity"])
async def test_forged_late_and_changed_calls_are_refused(office: Office, slack: Workspace, path: str) -> None:
    await office.person("conversations:write", "approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    if path == "/slack/events":
        body, kind = json.dumps(slack.event(ANN, "Hello.", message["ts"])).encode(), "application/json"
    else:
        body, kind = slack.click_form(ANN, message, "approve"), "application/x-www-form-urlencoded"
    now = int(time.time())
    wrong: list[dict[str, Any]] = [
        {"secret": "another"},
        {"signed": body + b" "},
        {"at": now - 301},
        {"at": now + 900},
        {"at": f"+{now}"},
        {"at": "0x10"},
        {"at": ""},
        {"signature": ""},
        {"signature": "v0="},
        {"signature": "v1=" + "0" * 64},
        {"signature": "v0=" + "0" * 64},
    ]
    for each in wrong:
        refused = await slack.tell(office.http, path, body, kind, **each)
        assert (refused.status_code, refused.json()["code"]) == (401, "webhook_refused"), each
    assert (await office.http.post(path, content=body, headers={"Content-Type": kind})).status_code == 401
    assert await office.answers() == []
    assert (await slack.tell(office.http, path, body, kind)).json()["outcome"] in ("message", "decision")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"\xff", b'{"type": "event_callback", "event": {"type": "message", "user": 1, "thread_ts": "x"}}'],
)
async def test_odd_events_are_refused(office: Office, slack: Workspace, body: bytes) -> None:
    refused = await slack.tell(office.http, "/slack/events", body)
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed_body"), refused.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"payload=",
        b"payload=%7B",
        b"payload=[]",
        b"payload=1&payload=2",
        b"payload=%7B%22type%22%3A%22block_actions%22%7D",
    ],
)
async def test_odd_clicks_are_refused(office: Office, slack: Workspace, body: bytes) -> None:
    refused = await slack.tell(office.http, "/slack/interactivity", body, "application/x-www-form-urlencoded")
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed_body"), refused.text


async def test_slack_out_of_reach_is_asked_again(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", email="ann@example.com")
    slack.users = {ANN: member("ann@example.com")}
    report = await reported(office, slack)
    slack.fails = 1
    body = json.dumps(slack.event(ANN, "Hello.", report["ts"])).encode()
    assert (await slack.tell(office.http, "/slack/events", body)).status_code == 503
    assert (await slack.tell(office.http, "/slack/events", body)).json()["outcome"] == "message"


# --- buttons ---------------------------------------------------------------------------------------------


async def test_a_click_decides_once_and_every_surface_shows_it(office: Office, slack: Workspace) -> None:
    await office.person("approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    taken = await asyncio.gather(*(slack.click(office.http, ANN, message, "approve") for _ in range(3)))
    assert sorted(each.json()["outcome"] for each in taken) == ["decision", "refused", "refused"]
    assert {each.json()["reason"] for each in taken} == {None, "the approval is approved"}
    await office.settled()
    assert "*Approved* by U0ANN" in shown(message)
    assert "approve:" not in shown(message)
    (approval,) = (await office.get("/approvals"))["items"]
    assert (approval["state"], approval["decided_by"]) == ("approved", ANN)
    assert "Done." in shown(slack.posted[-1])


@pytest.mark.parametrize("outcome", ["happened", "fail"])
async def test_a_click_says_whether_a_call_took_effect(office: Office, slack: Workspace, outcome: str) -> None:
    await office.person("approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    of = await office.database.fetchval("update approvals set kind = 'effect' returning id")
    action = {"action_id": f"{outcome}:{of}", "value": str(of), "action_ts": slack.ts()}
    assert (await slack.click(office.http, ANN, message, "approve", actions=[action])).json()["outcome"] == "decision"
    row = await office.database.fetchrow("select state, decision from approvals where id = $1", of)
    assert row is not None
    assert tuple(row) == ("approved", {"arguments": {"outcome": outcome}})


async def test_a_denial_is_shown_too(office: Office, slack: Workspace) -> None:
    await office.person("approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    assert (await slack.click(office.http, ANN, message, "deny")).json()["outcome"] == "decision"
    await office.settled()
    assert "*Denied* by U0ANN" in shown(message)


@pytest.mark.parametrize("action", ["approve", "deny"])
async def test_a_click_is_in_the_audit_log(office: Office, slack: Workspace, action: str) -> None:
    principal = await office.person("approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    await slack.click(office.http, ANN, message, action)
    await slack.click(office.http, ANN, message, action)
    (approval,) = (await office.get("/approvals"))["items"]
    (entry,) = (await office.get("/audit", action=f"approval.{action}"))["items"]
    assert (entry["principal_id"], entry["subject_id"]) == (str(principal), approval["id"])
    assert entry["detail"] == {"by_slack": ANN, "reason": None}


async def test_who_may_not_decide_is_told_so(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", slack_user=ANN)
    message = await asked(office, slack)
    for user in (ANN, ANN, "U0EVE"):
        assert (await slack.click(office.http, user, message, "approve")).json()["outcome"] == "refused"
    await office.settled()
    assert len(slack.posted) == 3
    assert any("approvals:write" in shown(each) for each in slack.posted[1:])
    (approval,) = (await office.get("/approvals"))["items"]
    assert approval["state"] == "pending"


async def test_a_question_of_another_conversation_is_not_decided(office: Office, slack: Workspace) -> None:
    await office.person("approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    await asked(office, slack)
    (newer, _) = (await office.get("/approvals"))["items"]
    number = newer["id"]
    for each in (number, str(uuid4())):
        action = {"action_id": f"approve:{each}", "value": each, "action_ts": slack.ts()}
        taken = (await slack.click(office.http, ANN, message, "approve", actions=[action])).json()
        assert (taken["outcome"], taken["reason"]) == ("refused", "the conversation has no such question")
    swapped = {"action_id": f"approve:{number}", "value": "another", "action_ts": slack.ts()}
    assert (await slack.click(office.http, ANN, message, "approve", actions=[swapped])).json()["outcome"] == "ignored"
    assert {each["state"] for each in (await office.get("/approvals"))["items"]} == {"pending"}


async def test_other_workspaces_questions_stay_theirs(office: Office, slack: Workspace) -> None:
    """The same Slack user is a principal of another workspace: that gives no right in this one."""
    message = await asked(office, slack)
    principal = await office.person("approvals:write", slack_user=ANN)
    workspace = uuid4()
    await office.database.execute("insert into workspaces (id, name) values ($1, 'theirs')", workspace)
    moved = "insert into principals (id, workspace_id, kind, name, slack_user_id) values ($1, $2, 'user', 'x', $3)"
    await office.database.execute(moved, uuid4(), workspace, "U0EVE")
    await office.database.execute("update principals set slack_user_id = null where id = $1", principal)
    for user in (ANN, "U0EVE"):
        assert (await slack.click(office.http, user, message, "approve")).json()["outcome"] == "refused"
