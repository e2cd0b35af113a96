"""A report that was mailed is answered by mail: end to end, and by those who may not."""

import asyncio
import base64
from typing import Any
from uuid import uuid4

import pytest

from app.models import new_id
from tests.answers.conftest import REPORT, Office, body_of, reply_to
from tests.api.conftest import ADMIN_KEY, bearer
from tests.notifications.servers import MailServer

ANN = "ann@example.com"


async def reported(office: Office, server: MailServer) -> Any:
    """The mail of a scheduled report."""
    await office.scheduled_report(channels=["email"], email_address=ANN)
    await office.settled()
    (mail,) = server.mails
    return mail


async def test_a_mailed_report_is_answered_by_mail(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    assert REPORT in body_of(mail)
    answer = reply_to(mail, "Add the totals, please.")
    taken = await office.mail_in(answer)
    assert (taken.status_code, taken.json()["outcome"]) == (200, "message"), taken.text
    await office.settled()
    _, back = mail_server.mails
    assert f"You said 'Add the totals, please.'; I had said '{REPORT}'." in body_of(back)
    assert back["To"] == ANN
    assert back["Subject"] == answer["subject"]
    assert back["In-Reply-To"] == answer["message_id"]
    assert mail["References"] in back["References"]
    assert back["Auto-Submitted"] == "auto-replied"
    assert back["Reply-To"] == mail["Reply-To"]
    (conversation,) = await office.conversations()
    assert await office.texts(conversation) == ["Write the report.", REPORT, "Add the totals, please.", _last(back)]
    assert (await office.mail_in(reply_to(back, "And again."))).json()["outcome"] == "message"
    await office.settled()
    assert "'And again.'" in body_of(mail_server.mails[-1])


def _last(mail: Any) -> str:
    return next(line for line in body_of(mail).splitlines() if line.startswith("You said"))


async def test_a_repeat_is_one_message(office: Office, mail_server: MailServer) -> None:
    answer = reply_to(await reported(office, mail_server), "Once.")
    taken = await asyncio.gather(*(office.mail_in(answer) for _ in range(5)))
    assert sorted(each.json()["outcome"] for each in taken) == ["duplicate"] * 4 + ["message"]
    assert len({each.json()["run_id"] for each in taken}) == 1
    await office.settled()
    assert len(mail_server.mails) == 2


async def test_postmarks_form_is_read(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    plain = reply_to(mail, "In Postmark's form.")
    form = {
        "FromName": "Ann",
        "From": ANN,
        "FromFull": {"Email": ANN, "Name": "Ann", "MailboxHash": ""},
        "To": f'"Parley" <{mail["Reply-To"]}>',
        "ToFull": [{"Email": str(mail["Reply-To"]), "Name": "Parley", "MailboxHash": "x"}],
        "OriginalRecipient": str(mail["Reply-To"]),
        "Subject": plain["subject"],
        "MessageID": "73e6d360-66eb-11e1-8e72-a8904824019b",
        "MessageStream": "inbound",
        "Date": "Mon, 21 Nov 2026 16:37:02 +0000",
        "TextBody": plain["text"],
        "HtmlBody": "",
        "StrippedTextReply": "",
        "Tag": "",
        "Headers": [{"Name": "Message-ID", "Value": plain["message_id"]}, {"Name": "MIME-Version", "Value": "1.0"}],
        "Attachments": [
            {
                "Name": "totals.csv",
                "Content": base64.b64encode(b"a,b\n1,2\n").decode(),
                "ContentType": "text/csv",
                "ContentLength": 8,
            }
        ],
    }
    taken = await office.mail_in(form)
    assert taken.json()["outcome"] == "message", taken.text
    await office.settled()
    assert mail_server.mails[-1]["In-Reply-To"] == plain["message_id"]
    (conversation,) = await office.conversations()
    message = (await office.get(f"/conversations/{conversation}/messages"))["items"][2]
    assert message["text"] == "In Postmark's form."
    (file,) = [part for part in message["parts"] if part["type"] == "file"]
    assert (file["name"], file["media_type"], file["size"]) == ("totals.csv", "text/csv", 8)


async def test_files_over_the_caps_are_named_and_not_kept(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    big = base64.b64encode(bytes(office.settings.parley_artifact_bytes + 1)).decode()
    files = [{"name": "big.bin", "content": big}, {"name": "../../etc/pass\nwd", "content": "AAAA"}]
    files += [{"name": f"{n}.bin", "content": "AAAA"} for n in range(12)]
    assert (await office.mail_in(reply_to(mail, "See these.", attachments=files))).json()["outcome"] == "message"
    await office.settled()
    (conversation,) = await office.conversations()
    message = (await office.get(f"/conversations/{conversation}/messages"))["items"][2]
    kept = [part["name"] for part in message["parts"] if part["type"] == "file"]
    assert kept == ["passwd", *(f"{n}.bin" for n in range(9))]
    assert message["text"].startswith("See these.\n\n[the file big.bin was not kept: ")
    assert message["text"].count("was not kept: there were too many") == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"headers": {"Auto-Submitted": "auto-replied"}}, "sent automatically"),
        ({"headers": {"auto-submitted": "auto-generated; owner"}}, "sent automatically"),
        ({"headers": {"Precedence": "bulk"}}, "bulk mail"),
        ({"headers": {"Precedence": "auto_reply"}}, "bulk mail"),
        ({"headers": {"X-Auto-Response-Suppress": "All"}}, "sent by a machine"),
        ({"headers": {"X-Autoreply": "yes"}}, "sent by a machine"),
        ({"headers": {"List-Id": "<x.example.com>"}}, "sent by a machine"),
        ({"headers": {"X-Parley-Event": "run.completed"}}, "of our own"),
        ({"headers": {"Content-Type": "multipart/report; report-type=delivery-status"}}, "report of a mail server"),
        ({"envelope_from": "<>"}, "no return path"),
        ({"envelope_from": ""}, "no return path"),
        ({"from": "MAILER-DAEMON@example.com"}, "report of a mail server"),
        ({"headers": {"Authentication-Results": "mx; spf=pass; dmarc=fail"}}, "could not be verified"),
    ],
)
async def test_machines_get_no_answer(
    office: Office, mail_server: MailServer, changes: dict[str, Any], reason: str
) -> None:
    mail = await reported(office, mail_server)
    taken = (await office.mail_in(reply_to(mail, "I am away.", **changes))).json()
    assert taken["outcome"] == "refused"
    assert reason in taken["reason"]
    await office.settled()
    assert len(mail_server.mails) == 1
    assert [outcome for outcome, _ in await office.answers()] == ["refused"]


async def test_a_stranger_is_told_once_and_gets_no_way_in(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    for _ in range(3):
        taken = (await office.mail_in(reply_to(mail, "Let me in.", **{"from": "eve@example.net"}))).json()
        assert (taken["outcome"], taken["run_id"]) == ("refused", None)
    await office.settled()
    _, polite = mail_server.mails
    assert polite["To"] == "eve@example.net"
    assert "It came from another address" in body_of(polite)
    assert polite["Reply-To"] is None
    assert REPORT not in body_of(polite)
    assert polite["Auto-Submitted"] == "auto-replied"
    assert len(mail_server.mails) == 2
    assert (await office.mail_in(reply_to(mail, "It is me."))).json()["outcome"] == "message"


async def test_who_lost_the_right_may_not_answer(office: Office, mail_server: MailServer) -> None:
    await office.person("tasks:read", email=ANN)
    mail = await reported(office, mail_server)
    taken = (await office.mail_in(reply_to(mail, "Hello."))).json()
    assert (taken["outcome"], "conversations:write" in taken["reason"]) == ("refused", True)
    principal = await office.person("conversations:write", email=ANN)
    assert (await office.mail_in(reply_to(mail, "Hello again."))).json()["outcome"] == "message"
    assert await office.database.fetchval("select principal_id from answers where outcome = 'message'") == principal


@pytest.mark.parametrize("changed", ["token", "expired", "elsewhere", "none"])
async def test_only_an_open_reply_address_leads_anywhere(office: Office, mail_server: MailServer, changed: str) -> None:
    mail = await reported(office, mail_server)
    address = str(mail["Reply-To"])
    if changed == "token":
        address = address[:10] + ("a" if address[10] != "a" else "b") + address[11:]
    elif changed == "expired":
        await office.database.execute("update reply_addresses set expires_at = now() - interval '1 second'")
    elif changed == "elsewhere":
        address = address.replace("example.org", "example.net")
    else:
        address = "reply@example.org"
    assert (await office.mail_in(reply_to(mail, "Hello?", to=[address]))).json() == {
        "outcome": "ignored",
        "reason": None,
        "run_id": None,
        "challenge": None,
    }
    assert await office.answers() == []


async def test_addresses_are_closed_for_good(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    (conversation,) = await office.conversations()
    url = f"/conversations/{conversation}/reply-addresses"
    as_admin = {"headers": bearer(ADMIN_KEY)}
    others = await office.http.delete(url, params={"recipient": "bob@example.com"}, **as_admin)
    assert others.status_code == 204
    assert (await office.mail_in(reply_to(mail, "Once more, please."))).json()["outcome"] == "message"
    await office.settled()
    assert mail_server.mails[-1]["Reply-To"] == mail["Reply-To"]
    closed = await office.http.delete(url, params={"recipient": str(mail["To"]).upper()}, **as_admin)
    assert closed.status_code == 204
    assert (await office.mail_in(reply_to(mail, "And again."))).json()["outcome"] == "ignored"
    (last, _) = (await office.get("/audit", action="conversation.close_replies"))["items"]
    assert (last["subject_id"], last["detail"]) == (conversation, {"recipient": str(mail["To"]).upper()})
    assert (await office.http.delete(f"/conversations/{uuid4()}/reply-addresses", **as_admin)).status_code == 404
    assert (await office.http.delete(url)).status_code == 401


async def test_two_conversations_do_not_mix(office: Office, mail_server: MailServer) -> None:
    first = await reported(office, mail_server)
    await office.scheduled_report(channels=["email"], email_address="bob@example.com")
    await office.settled()
    second = mail_server.mails[-1]
    assert first["Reply-To"] != second["Reply-To"]
    crossed = reply_to(first, "Ann to Bob's.", to=[str(second["Reply-To"])])
    assert (await office.mail_in(crossed)).json()["outcome"] == "refused"
    both = reply_to(first, "To both.", to=[str(first["Reply-To"]), str(second["Reply-To"])])
    assert (await office.mail_in(both)).json()["outcome"] == "message"
    await office.settled()
    newer, older = await office.conversations()
    assert len(await office.texts(older)) == 4
    assert len(await office.texts(newer)) == 2


async def test_one_mail_to_two_conversations_is_an_answer_to_each(office: Office, mail_server: MailServer) -> None:
    first = await reported(office, mail_server)
    await office.scheduled_report(channels=["email"], email_address=ANN)
    await office.settled()
    answer = reply_to(first, "Same words.")
    for mail in mail_server.mails[:2]:
        assert (await office.mail_in(answer | {"to": [str(mail["Reply-To"])]})).json()["outcome"] == "message"


async def test_nothing_new_is_said_so(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    taken = (await office.mail_in(reply_to(mail, ""))).json()
    assert (taken["outcome"], taken["reason"]) == ("refused", "there was no new text in it")


async def test_two_machines_come_to_an_end(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    await office.database.execute(
        "insert into answers (id, workspace_id, conversation_id, channel, source_id, sender, outcome)"
        " select gen_random_uuid(), workspace_id, id, 'email', n::text, $1, 'message'"
        " from conversations, generate_series(1, 30) n",
        ANN,
    )
    taken = (await office.mail_in(reply_to(mail, "Thank you for your mail."))).json()
    assert (taken["outcome"], taken["reason"][:37]) == ("refused", "this conversation takes at most 30 an"), taken
    await office.settled()
    assert len(mail_server.mails) == 1


async def test_only_the_provider_may_call(office: Office, mail_server: MailServer) -> None:
    body = reply_to(await reported(office, mail_server), "Hello.")
    wrong = [
        {"auth": ("postmark", "guess")},
        {"auth": ("the provider's password", "")},
        {"headers": {"Authorization": "Bearer guess"}},
        {"headers": {"Authorization": "Basic !!!"}},
        {"headers": {"Authorization": "Basic /w=="}},
        {},
    ]
    for options in wrong:
        refused = await office.http.post("/email/inbound", json=body, **options)
        assert (refused.status_code, refused.json()["code"]) == (401, "webhook_refused")
    assert await office.answers() == []
    bearer = {"Authorization": "Bearer the provider's password"}
    assert (await office.http.post("/email/inbound", json=body, headers=bearer)).json()["outcome"] == "message"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": 1}, "from"),
        ({"to": {}}, "to"),
        ({"message_id": ""}, "message_id"),
        ({"text": ["x"]}, "text"),
        ({"headers": [1]}, "headers.0"),
        ({"headers": {"a": 1}}, "headers.0.value"),
        ({"attachments": [{"name": "x", "content": "%%%"}]}, "attachments.0.content"),
        ({"color": "red"}, "color"),
    ],
)
async def test_a_wrong_form_names_its_field(
    office: Office, mail_server: MailServer, changes: dict[str, Any], field: str
) -> None:
    good = {"from": ANN, "to": ["x@example.org"], "message_id": f"<{new_id()}@x>", "text": "Hello."}
    refused = await office.mail_in(good | changes)
    assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text


async def test_odd_bodies_are_refused(office: Office) -> None:
    async def refused(content: bytes, **headers: str) -> int:
        kind = {"Content-Type": "application/json"} | headers
        return (
            await office.http.post(
                "/email/inbound", content=content, headers=kind, auth=("p", "the provider's password")
            )
        ).status_code

    assert await refused(b"{") == 400
    assert await refused(b"\xff") == 400
    assert await refused(b"[" * 100 + b"]" * 100) == 400
    assert await refused(b"[]") == 422
    assert await refused(b"from=x", **{"Content-Type": "application/x-www-form-urlencoded"}) == 415
    assert await refused(b"{}", **{"Content-Encoding": "gzip"}) == 415
    assert await refused(b'{"from": "a\\u0000b@x.y"}') == 422
