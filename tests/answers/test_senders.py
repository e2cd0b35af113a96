"""Who a mail is from: one mailbox or nobody's word, however its header is written, and what a stranger's mail brings about."""

from typing import Any
from uuid import uuid4

import pytest

from app.answers.mail import mail_of
from tests.answers.conftest import Office, body_of, reply_to
from tests.answers.test_by_mail import ANN, reported
from tests.notifications.servers import MailServer

EVE = "eve@evil.test"
PASSED = {"Authentication-Results": f"mx.provider.test; dkim=pass header.d=evil.test; dmarc=pass header.from={EVE}"}
REFUSED = "it came from another address than the one that was written to"


def sender_of(header: str) -> str | None:
    return mail_of({"from": header, "to": ["x@example.org"], "message_id": "<1@x>"}).sender


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("ann@example.com", ANN),
        (" <ann@example.com> ", ANN),
        ("Ann <ann@example.com>", ANN),
        ("Ann Q. Smith (Sales) <Ann.Q+x@Mail.Example.com>", "Ann.Q+x@Mail.Example.com"),
        ('"Smith, Ann: \\"A\\" <x@y>" <ann@example.com>', ANN),
        ('Ann "Q" =?utf-8?q?Sm=C3=AFth?=\r\n <ann@example.com>', ANN),
        ("Änn <ann@example.com>", ANN),
        (f"{ANN} <{EVE}>", None),
        (f'"{ANN}" <{EVE}>', EVE),
        (f"{ANN}, {EVE}", None),
        (f"{ANN}; {EVE}", None),
        (f"<{ANN}>{EVE}", None),
        (f"<{ANN}> <{EVE}>", None),
        (f"{ANN}(<{EVE}>)", None),
        (f"({ANN}) {EVE}", None),
        (f"friends: {ANN}, {EVE};", None),
        (f"friends: {ANN};", None),
        (f"{ANN}@evil.test", None),
        ('"ann@example.com, x"@evil.test', None),
        (f"{ANN}\r\n <{EVE}>", None),
        (f"{ANN}\r\nBcc: {EVE}", None),
        (f"<@evil.test:{ANN}>", None),
        ("ann @example.com", None),
        ("ann@ex(x)ample.com", None),
        ("ann@example.com.", None),
        ("\u212aate@example.com", None),
        ("ånn@example.com", None),
        ("ann@exämple.com", None),
        ("ann\u0001@example.com", None),
        ("ann@[127.0.0.1]", None),
        (f"{'a' * 65}@example.com", None),
        (f"a@{'a' * 60}.{'.'.join(['b' * 60] * 4)}.com", None),
        ("nobody", None),
        ("@", None),
        ("", None),
        ("(" * 1_000, None),
        ('"' * 1_000, None),
        ('"\\' * 500, None),
        ("a." * 490 + "<", None),
        ("(a)" * 330 + "@", None),
    ],
)
def test_a_header_names_one_mailbox_or_none(header: str, address: str | None) -> None:
    assert sender_of(header) == address


@pytest.mark.parametrize(
    "header",
    ["(" * 999 + "@", f"{ANN} <{EVE}>", f"{ANN}, {EVE}", f"<{ANN}>{EVE}", f"{ANN};{EVE}", f"x: {ANN}, {EVE};"],
)
async def test_an_ambiguous_sender_is_unknown(office: Office, mail_server: MailServer, header: str) -> None:
    mail = await reported(office, mail_server)
    postmark = {"From": header, "To": str(mail["Reply-To"]), "MessageID": str(uuid4()), "TextBody": "I am Ann."}
    passed = [{"Name": name, "Value": value} for name, value in PASSED.items()]
    for form in (reply_to(mail, "I am Ann.", headers=PASSED, **{"from": header}), postmark | {"Headers": passed}):
        taken = await office.mail_in(form)
        assert (taken.status_code, taken.json()["reason"]) == (200, REFUSED), taken.text
    await office.settled()
    assert len(mail_server.mails) == 1


@pytest.mark.parametrize("letter", ["\u212a", "K"])
async def test_an_answer_goes_to_the_address_that_was_written_to(
    office: Office, mail_server: MailServer, letter: str
) -> None:
    """`"\\u212a".lower()` is "k": a run told to such an address could never end."""
    await office.scheduled_report(channels=["email"], email_address="kate@example.com")
    await office.settled()
    answer = reply_to(mail_server.mails[-1], "Hello.", **{"from": f"{letter}ate@example.com"})
    taken = (await office.mail_in(answer)).json()
    await office.settled()
    if letter == "K":
        assert taken["outcome"] == "message"
        assert mail_server.mails[-1]["To"] == "kate@example.com"
    else:
        assert (taken["outcome"], taken["reason"]) == ("refused", REFUSED)


@pytest.mark.parametrize(
    "to",
    ["(" * 1_000, '"' * 1_000, "<" * 1_000, "a@" * 500, "((" * 499 + "@x"],
)
async def test_no_receiver_is_too_odd(office: Office, mail_server: MailServer, to: str) -> None:
    mail = await reported(office, mail_server)
    taken = await office.mail_in(reply_to(mail, "Hello.", to=[to, f"x@y, Parley <{mail['Reply-To']}>"]))
    assert (taken.status_code, taken.json()["outcome"]) == (200, "message"), taken.text
    theirs = {"From": ANN, "To": to * 15, "MessageID": str(uuid4()), "TextBody": "Hello."}
    assert (await office.mail_in(theirs)).json()["outcome"] == "ignored"


def test_the_longest_address_is_read() -> None:
    longest = f"{'a' * 64}@{'.'.join(['b' * 60] * 3)}.cccccc"
    assert (len(longest), sender_of(longest)) == (254, longest)


@pytest.mark.parametrize("blank", ["", "   ", "\u3000", "\x1c\x1d", "\u200b"])
async def test_a_blank_message_id_is_refused(office: Office, mail_server: MailServer, blank: str) -> None:
    mail = await reported(office, mail_server)
    refused = await office.mail_in(reply_to(mail, "Hello.", message_id=blank))
    assert (refused.status_code, refused.json()["field"]) == (422, "message_id"), refused.text


# --- what its headers say ----------------------------------------------------------------------------------


def twice(name: str, *values: str) -> dict[str, Any]:
    return {"headers": [{"name": name, "value": value} for value in values]}


@pytest.mark.parametrize(
    ("fields", "automatic", "forged"),
    [
        (twice("Auto-Submitted", "auto-replied", "no"), True, False),
        (twice("Auto-Submitted", "no", "auto-replied"), True, False),
        (twice("Auto-Submitted", "No (a person)"), False, False),
        (twice("Precedence", "bulk", "normal"), True, False),
        (twice("Content-Type", "multipart/report; x=y", "text/plain"), True, False),
        (twice("Authentication-Results", "mx; dmarc = fail"), False, True),
        (twice("Authentication-Results", "mx; DMARC(p=none)\r\n\t=\r\n\t(so) Fail header.from=x"), False, True),
        (twice("Authentication-Results", "mx 1; dmarc/1=fail"), False, True),
        (twice("Authentication-Results", "mx; dmarc=pass", "mx; dmarc=fail"), False, True),
        (twice("Authentication-Results", "mx; spf=fail; dmarc=pass (was dmarc=fail)"), False, True),
        (twice("Authentication-Results", 'mx; spf=pass reason="dmarc=fail"'), False, True),
        (twice("Authentication-Results", 'mx; spf=softfail (helo=x") smtp.mailfrom=e.test; dmarc=fail'), False, True),
        (twice("Authentication-Results", 'mx; spf=none smtp.helo=x"; dmarc=fail; dkim="'), False, True),
        (twice("Authentication-Results", 'mx; spf=none smtp.helo="dmarc=pass"'), False, False),
        (twice("Authentication-Results", "mx; dmarc=none"), False, False),
        (twice("Authentication-Results", "(" * 20_000), False, False),
    ],
)
def test_each_of_several_headers_counts(fields: dict[str, Any], automatic: bool, forged: bool) -> None:
    mail = mail_of({"from": ANN, "to": ["x@example.org"], "message_id": "<1@x>", **fields})
    assert (mail.automatic is not None, mail.forged) == (automatic, forged)


# --- what a stranger is told -------------------------------------------------------------------------------


async def test_strangers_are_told_once_per_conversation_and_in_our_words(
    office: Office, mail_server: MailServer
) -> None:
    mail = await reported(office, mail_server)
    for number in range(4):
        spam = reply_to(mail, "Hello.", subject="BUY http://evil.test now", **{"from": f"victim{number}@victims.test"})
        assert (await office.mail_in(spam)).json()["outcome"] == "refused"
    await office.settled()
    _, polite = mail_server.mails
    assert (polite["To"], polite["Subject"]) == ("victim0@victims.test", "Your answer was not taken")
    assert "evil.test" not in str(polite)
    assert polite["Reply-To"] is None
    assert await office.database.fetchval("select count(*) from answers where told") == 1


@pytest.mark.parametrize("result", ["none", "temperror", "pass (x) dmarc=none", ""])
async def test_who_is_not_authenticated_is_told_nothing(office: Office, mail_server: MailServer, result: str) -> None:
    mail = await reported(office, mail_server)
    said = {"Authentication-Results": f"mx; spf=pass; {result and f'dmarc={result}'}"}
    spam = reply_to(mail, "Hello.", headers=said, **{"from": "victim@victims.test"})
    assert (await office.mail_in(spam)).json()["outcome"] == "refused"
    await office.settled()
    assert len(mail_server.mails) == 1
    spam |= {"headers": {"Authentication-Results": "mx; dmarc=pass"}, "message_id": "<another@x>"}
    assert (await office.mail_in(spam)).json()["outcome"] == "refused"
    await office.settled()
    assert len(mail_server.mails) == 2


@pytest.mark.parametrize("ours", ["parley@example.org", "Reply@example.org", "reply+abc@EXAMPLE.org"])
async def test_our_own_addresses_are_told_nothing(office: Office, mail_server: MailServer, ours: str) -> None:
    mail = await reported(office, mail_server)
    assert (await office.mail_in(reply_to(mail, "Hello.", **{"from": ours}))).json()["outcome"] == "refused"
    await office.settled()
    assert len(mail_server.mails) == 1


async def test_who_was_written_to_is_told_in_the_thread(office: Office, mail_server: MailServer) -> None:
    mail = await reported(office, mail_server)
    nothing = reply_to(mail, "")
    assert (await office.mail_in(nothing)).json()["outcome"] == "refused"
    await office.settled()
    _, told = mail_server.mails
    assert (told["To"], told["Subject"]) == (ANN, "Your answer was not taken")
    assert told["In-Reply-To"] == nothing["message_id"]
    assert "There was no new text in it." in body_of(told)
