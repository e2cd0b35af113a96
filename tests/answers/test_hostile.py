"""Hostile bytes at every door that takes answers: whatever stands in a field, header or form is taken or refused by name."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import httpx
import pytest

from tests.answers.conftest import INBOUND, Office, links_of, reply_to
from tests.answers.slack import CHANNEL, TEAM, Workspace
from tests.answers.test_by_mail import reported as mailed
from tests.answers.test_in_slack import ANN, asked, reported
from tests.answers.test_links import asked as mailed_question
from tests.answers.test_links import state
from tests.notifications.servers import MailServer

TEXTS = [
    "",
    " ",
    "\x00",
    "1.1\x00",
    "\ud800",
    "1.1\udfff",
    "\uffff\ufffe",
    "\x1b[31m\x7f\x85",
    "\u202e\u2066",
    "1.1\r\nBcc: eve@example.com",
    "\u0661\u0662\u0663.\u0664",
    "\u00b2.\u00b2",
    "approve:\x00",
    "-1",
    "http://[",
    "9" * 5_000,
    "{{7*7}}%s%n${x}",
    "'; drop table answers; --",
    "(" * 990,
    "<" * 990 + "@",
    "<!-- -->",
    "<?xml version='1.0' encoding='utf-8'?><p>x</p>",
    "<div>" * 20_000,
    "> " * 20_000,
    "".join(chr(0x1F300 + number % 700) + chr(0x4E00 + number * 7) for number in range(450)) + "@example.com",
]
VALUES: list[Any] = [*TEXTS, None, True, 7, 1e300, [], ["\x00"], {}, {"id": "\x00"}, {"\ud800": 1}]
FORM = "application/x-www-form-urlencoded"


def with_each(body: dict[str, Any], *paths: str) -> Iterator[tuple[str, Any, bytes]]:
    """The body with every value in every one of the places, as JSON; a half of a pair can only come as an escape."""
    for path in paths:
        for value in VALUES:
            changed = json.loads(json.dumps(body))
            *way, last = path.split(".")
            place = changed
            for step in way:
                place = place[int(step)] if isinstance(place, list) else place[step]
            place[int(last) if isinstance(place, list) else last] = value
            yield path, value, json.dumps(changed).encode()


def taken_or_refused(answer: httpx.Response, *of: Any) -> None:
    assert answer.status_code < 500, (*of, answer.status_code, answer.text[:300])
    if answer.status_code >= 400:
        assert answer.json()["code"], of


async def test_events_of_slack(office: Office, slack: Workspace) -> None:
    await office.person("conversations:write", slack_user=ANN)
    report = await reported(office, slack)
    event = slack.event(ANN, "Hello.", report["ts"], subtype=None, files=[{"name": "x", "url_private": "x"}])
    paths = ["type", "team_id", "event", "event_id", *(f"event.{name}" for name in event["event"])]
    paths += ["event.files.0", "event.files.0.name", "event.files.0.url_private"]
    for path, value, body in with_each(event, *paths):
        taken_or_refused(await slack.tell(office.http, "/slack/events", body), path, value)
    confirm = {"type": "url_verification", "challenge": "x"}
    for path, value, body in with_each(confirm, *confirm):
        taken_or_refused(await slack.tell(office.http, "/slack/events", body), path, value)
    assert (await slack.say(office.http, ANN, "Hello.", report["ts"])).json()["outcome"] in ("message", "refused")


async def test_clicks_in_slack(office: Office, slack: Workspace) -> None:
    await office.person("approvals:write", slack_user=ANN)
    message = await asked(office, slack)
    (approval,) = (await office.get("/approvals"))["items"]
    click: dict[str, Any] = {
        "type": "block_actions",
        "user": {"id": ANN},
        "team": {"id": TEAM},
        "channel": {"id": CHANNEL},
        "message": {"ts": message["ts"], "thread_ts": message["ts"]},
        "actions": [
            {"action_id": f"approve:{approval['id']}", "value": approval["id"], "action_ts": slack.ts()},
        ],
    }
    inner = [f"{name}.id" for name in ("user", "team", "channel")] + ["message.ts", "message.thread_ts", "actions.0"]
    paths = [*click, *inner, *(f"actions.0.{name}" for name in click["actions"][0])]
    for path, value, body in with_each(click, *paths):
        if path in ("type", "actions.0.value") or value is None:
            continue  # What is none of our buttons, or decides after all.
        form = urlencode({"payload": body.decode()}).encode()
        taken_or_refused(await slack.tell(office.http, "/slack/interactivity", form, FORM), path, value)
    for text in TEXTS:
        raw = quote_from_bytes(text.encode(errors="surrogatepass")).encode()
        for form in (raw, b"payload=" + raw, b"payload=%7B%22type%22%3A" + raw, b"&".join([b"payload=" + raw] * 9)):
            taken_or_refused(await slack.tell(office.http, "/slack/interactivity", form, FORM), form[:100])


async def test_mails(office: Office, mail_server: MailServer) -> None:
    mail = await mailed(office, mail_server)
    file = {"name": "a.txt", "content_type": "text/plain", "content": "eA=="}
    neutral = reply_to(mail, "Hello.", html="", attachments=[file]) | {
        "headers": [{"name": "In-Reply-To", "value": "<1@x>"}]
    }
    inner = ["to.0", "headers.0", "headers.0.name", "headers.0.value", "attachments.0"]
    files = [f"attachments.0.{name}" for name in file]
    bodies = list(with_each(neutral, *neutral, *inner, *files))
    bodies += with_each(neutral | {"text": ""}, "html")
    bodies += with_each(neutral | {"attachments": []}, "text")
    for path, value, body in bodies:
        fresh = body.replace(neutral["message_id"].encode(), f"<{len(path)}{id(body)}@x>".encode())
        for sent in (body, fresh):
            taken_or_refused(await _mail(office, sent), path, value)


async def test_mails_of_postmark(office: Office, mail_server: MailServer) -> None:
    mail = await mailed(office, mail_server)
    theirs: dict[str, Any] = {
        "From": str(mail["To"]),
        "To": str(mail["Reply-To"]),
        "OriginalRecipient": str(mail["Reply-To"]),
        "MessageID": "73e6d360-66eb-11e1-8e72-a8904824019b",
        "Subject": "Re: x",
        "TextBody": "Hello.",
        "HtmlBody": "",
        "Headers": [{"Name": "Message-ID", "Value": "<1@x>"}, {"Name": "Return-Path", "Value": "<a@b.c>"}],
        "Attachments": [{"Name": "a.txt", "Content": "eA==", "ContentType": "text/plain"}],
    }
    inner = ["Headers.0.Name", "Headers.0.Value", "Headers.1.Value"]
    files = [f"Attachments.0.{name}" for name in theirs["Attachments"][0]]
    for path, value, body in with_each(theirs, *theirs, *inner, *files):
        taken_or_refused(await _mail(office, body), path, value)


async def _mail(office: Office, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    return await office.http.post("/email/inbound", content=body, auth=("postmark", INBOUND), headers=headers)


async def test_calls_of_webhooks(office: Office) -> None:
    trigger = {"verifier": "none", "filter": {"path": "$.a", "equals": 1}, "correlation": "$.b"}
    task = await office.post("/tasks", task_type="triggered", prompt="Go.", agent="reporter", trigger_config=trigger)
    path, kind = f"/tasks/webhooks/{task['id']}", {"Content-Type": "application/json"}
    for where, value, body in with_each({"a": 1, "b": "x", "c": "y"}, "a", "b", "c"):
        taken_or_refused(await office.http.post(path, content=body, headers=kind), where, value)
    for text in TEXTS:
        raw = text.encode(errors="surrogatepass")
        taken_or_refused(await office.http.post(path, content=raw, headers=kind), text[:100])
        token = quote_from_bytes(raw[:2_000], safe="")
        for url in (f"{path}?token={token}", f"/tasks/webhooks/{token}"):
            taken_or_refused(await office.http.post(url, content=b"{}", headers=kind), url[:100])
    for name in ("webhook-id", "x-github-delivery", "idempotency-key", "authorization", "x-parley-token"):
        for header in HEADERS:
            headers = [(b"content-type", b"application/json"), (name.encode(), header)]
            taken_or_refused(await office.http.post(path, content=b'{"a": 1}', headers=headers), name, header)


HEADERS = [
    b"",
    b"Basic",
    b"Basic \xe9\xff",
    b"Basic =",
    b"Basic gA==",
    b"Basic AAAA",
    b"Bearer \xe9",
    b"\xff \xff",
    b"v0=\xe9",
]


@pytest.mark.parametrize("path", ["/slack/events", "/slack/interactivity", "/email/inbound"])
async def test_headers(office: Office, path: str) -> None:
    for name in ("authorization", "x-slack-signature", "x-slack-request-timestamp", "content-type", "content-encoding"):
        for value in (*HEADERS, b"\xb2", b"1" * 4_000):
            answer = await office.http.post(path, content=b"{}", headers=[(name.encode(), value)])
            taken_or_refused(answer, name, value)


async def test_forms_of_links(office: Office, mail_server: MailServer) -> None:
    link, approval = await mailed_question(office, mail_server)
    (muting, *_) = links_of(mail_server.mails[-1], "/unsubscribe/")
    raw = [quote_from_bytes(text.encode(errors="surrogatepass")) for text in TEXTS]
    forms = ["&".join(["a=1"] * 50), "&" * 500, "%", "%zz=%ff", "action=%ed%a0%80", *raw]
    forms += [f"{name}={text}" for text in raw for name in ("action", "action=deny&reason")]
    forms += [f"{text}={text}" for text in raw]
    for form in forms:
        for path in (link, muting):
            answer = await office.http.post(path, content=form.encode(), headers={"Content-Type": FORM})
            assert answer.status_code < 500, (path, form[:100], answer.status_code)
        if await state(office, approval) != "pending":
            assert form.startswith("action=deny&reason=")
            await office.settled()
            link, approval = await mailed_question(office, mail_server)


@pytest.mark.parametrize("path", ["/decisions/", "/unsubscribe/"])
async def test_tokens_of_links(office: Office, path: str) -> None:
    for text in TEXTS:
        token = quote_from_bytes(text[:2_000].encode(errors="surrogatepass"), safe="")
        for method in ("GET", "POST"):
            answer = await office.http.request(method, f"{path}{token}")
            assert 400 <= answer.status_code < 500, (token, answer.status_code)
