"""Mail to a real SMTP server, and into the outbox folder when there is none."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeliveryFailed, DeliveryRefused
from app.notifications.channel import Means
from app.notifications.email import EmailChannel, compose
from app.notifications.files import Files
from app.notifications.smtp import connection_options
from app.settings import Settings
from tests.notifications.conftest import CONVERSATION, StoredFiles, make_envelope, make_notice, seen
from tests.notifications.servers import MailServer

MakeMeans = Callable[..., Means]


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with MailServer() as running:
        yield running


def by(means: MakeMeans, server: MailServer, **values: Any) -> EmailChannel:
    return EmailChannel(
        means(smtp_host="127.0.0.1", smtp_port=server.port, smtp_from_email="Parley <parley@example.com>", **values)
    )


async def test_a_mail_arrives_with_both_bodies_and_its_thread(means: MakeMeans, server: MailServer) -> None:
    notice = make_notice(title="Überblick ✓", text="**fett** — ☃\n.\nnach dem Punkt")
    result = await by(means, server).send(make_envelope(notice))
    assert result.detail is None
    assert server.envelopes == [("parley@example.com", ["user@example.com"])]
    (mail,) = server.mails
    assert mail["Subject"] == "Completed: Überblick ✓"
    assert mail["From"] == "Parley <parley@example.com>"
    assert mail["To"] == "user@example.com"
    assert mail["Message-ID"] == make_envelope(notice).message_id
    assert mail["In-Reply-To"] == mail["References"] == f"<{CONVERSATION}@parley.example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Precedence"] == "bulk"
    assert mail["Date"]
    assert mail.get_content_type() == "multipart/alternative"
    text, html = mail.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert "**fett** — ☃\n.\nnach dem Punkt" in text.get_content().replace("\r\n", "\n")
    assert "<strong>fett</strong> — ☃" in html.get_content()


async def test_a_temporary_answer_is_tried_again_under_the_same_id(means: MakeMeans, server: MailServer) -> None:
    server.replies = ["451 try later"]
    channel, envelope = by(means, server), make_envelope(make_notice())
    with pytest.raises(DeliveryFailed, match="answered 451 try later") as caught:
        await channel.send(envelope)
    assert caught.value.retryable
    await channel.send(envelope)
    assert [mail["Message-ID"] for mail in server.mails] == [envelope.message_id]


async def test_a_permanent_answer_is_final(means: MakeMeans, server: MailServer) -> None:
    server.replies = ["554 no"]
    with pytest.raises(DeliveryRefused, match="answered 554 no") as caught:
        await by(means, server).send(make_envelope(make_notice()))
    assert not caught.value.retryable


@pytest.mark.parametrize(("reply", "kind"), [("550 no such user", DeliveryRefused), ("450 greylisted", DeliveryFailed)])
async def test_a_refused_recipient_is_judged_by_its_code(
    means: MakeMeans, server: MailServer, reply: str, kind: type[Exception]
) -> None:
    server.recipient_reply = reply
    with pytest.raises(kind, match=reply):
        await by(means, server).send(make_envelope(make_notice()))
    assert server.mails == []


async def test_a_server_that_is_away_is_tried_again(means: MakeMeans) -> None:
    async with MailServer() as gone:
        pass
    with pytest.raises(DeliveryFailed, match="could not be used"):
        await by(means, gone).send(make_envelope(make_notice()))


async def test_starttls_that_is_not_offered_sends_nothing(means: MakeMeans, server: MailServer) -> None:
    with pytest.raises(DeliveryFailed):
        await by(means, server, smtp_security="starttls").send(make_envelope(make_notice()))
    assert server.mails == []


async def test_without_a_server_mail_is_captured_and_says_so(means: MakeMeans, tmp_path: Path) -> None:
    envelope = make_envelope(make_notice())
    result = await EmailChannel(means()).send(envelope)
    (name,) = seen(tmp_path / "outbox")
    assert result.detail == f"captured in {tmp_path / 'outbox' / name}: SMTP_HOST is not set, so no mail was sent"
    assert name.endswith(f"Z-{envelope.message_id[1:37]}.eml")
    mail = message_from_bytes((tmp_path / "outbox" / name).read_bytes(), policy=policy.default)
    assert mail["Message-ID"] == envelope.message_id
    assert mail["To"] == "user@example.com"


def test_no_header_can_be_injected() -> None:
    title = "x\r\nBcc: all@example.com\r\n\r\nbody"
    mail = compose(make_envelope(make_notice(title=title, event="run.failed")), "parley@example.com")
    parsed = message_from_bytes(mail.as_bytes(), policy=policy.default)
    assert parsed["Bcc"] is None
    assert parsed["Subject"] == "Failed: x Bcc: all@example.com body"


@pytest.mark.parametrize("address", ["a@example.com\r\nBcc: b@example.com", "a@example.com\nX: y"])
def test_an_address_with_a_line_break_is_refused(address: str) -> None:
    with pytest.raises(DeliveryRefused, match="can't be addressed"):
        compose(make_envelope(make_notice(), address), "parley@example.com")


def test_long_ids_and_subjects_survive_folding() -> None:
    notice = make_notice(title="ü" * 400, base_url="https://" + "a" * 60 + ".example.com")
    envelope = make_envelope(notice)
    envelope = replace(envelope, message_id=f"<{'0' * 36}@{'a' * 60}.example.com>")
    parsed = message_from_bytes(compose(envelope, "p@example.com").as_bytes(), policy=policy.default)
    assert parsed["Message-ID"] == envelope.message_id
    assert parsed["Subject"].startswith("Completed: üüü")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (587, False, True)),
        ({"smtp_port": 465}, (465, True, False)),
        ({"smtp_port": 25}, (25, False, None)),
        ({"smtp_port": 25, "smtp_username": "u"}, (25, False, True)),
        ({"smtp_port": 25, "smtp_username": "u", "smtp_host": "127.0.0.1"}, (25, False, None)),
        ({"smtp_security": "tls"}, (465, True, False)),
        ({"smtp_security": "none"}, (587, False, False)),
        ({"smtp_security": "none", "smtp_username": "u", "smtp_port": 25}, (25, False, False)),
        ({"smtp_security": "starttls", "smtp_port": 2525}, (2525, False, True)),
    ],
)
def test_security_is_by_setting_or_port(values: dict[str, Any], expected: tuple[int, bool, bool | None]) -> None:
    options = connection_options(Settings.of(**{"smtp_host": "mail.example.com"} | values))
    assert (options["port"], options["use_tls"], options["start_tls"]) == expected


async def test_names_and_types_of_files_can_do_no_harm_in_a_mail(means: MakeMeans, server: MailServer) -> None:
    database, notice = StoredFiles(), make_notice()
    database.add('Übersicht "Q1"; x=1.csv', "text/csv", "ä,b\r\n.\r\n1,2".encode())
    database.add("forged.eml", "message/rfc822", b"Subject: x\r\n\r\nBcc: y")
    database.add("<b>.bin", "application/octet-stream", bytes(range(256)))
    await by(means, server).send(make_envelope(notice, files=await Files.of(database.as_database, notice)))
    (mail,) = server.mails
    assert mail.get_content_type() == "multipart/mixed"
    assert mail["Bcc"] is None
    bodies, *attached = mail.iter_parts()
    assert [(part.get_filename(), part.get_content_type()) for part in attached] == [
        ('Übersicht "Q1"; x=1.csv', "text/csv"),
        ("forged.eml", "application/octet-stream"),
        ("<b>.bin", "application/octet-stream"),
    ]
    assert [part.get_payload(decode=True) for part in attached] == [row["content"] for row in database.rows]
    assert all(part.get_content_disposition() == "attachment" for part in attached)
    text, html = bodies.iter_parts()
    link = f"https://parley.example.com/artifacts/{database.rows[2]['id']}/content"
    assert f"- <b>.bin (application/octet-stream, 256 bytes): {link}" in text.get_content()
    assert f'<a href="{link}">&lt;b&gt;.bin</a>' in html.get_content()


@pytest.mark.parametrize("sizes", [[5_000_001], [1] * 11])
async def test_too_many_or_too_large_files_are_links_alone(
    means: MakeMeans, server: MailServer, sizes: list[int]
) -> None:
    database, notice = StoredFiles(), make_notice()
    for size in sizes:
        database.add("a.txt", "text/plain", bytes(size))
    await by(means, server).send(make_envelope(notice, files=await Files.of(database.as_database, notice)))
    (mail,) = server.mails
    assert mail.get_content_type() == "multipart/alternative"
    text, _ = mail.iter_parts()
    assert text.get_content().count("/content") == len(sizes)


async def test_a_server_that_hangs_or_drops_the_line_is_tried_again(
    means: MakeMeans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.notifications.smtp.TIMEOUT_SECONDS", 0.3)
    released = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    async def drop_after_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            if line.upper().startswith(b"DATA"):
                break
            writer.write(b"250 ok\r\n")
        writer.close()

    for behave in (hang, drop_after_data):
        async with await asyncio.start_server(behave, "127.0.0.1", 0) as served:
            port = served.sockets[0].getsockname()[1]
            with pytest.raises(DeliveryFailed, match="could not be used"):
                await EmailChannel(means(smtp_host="127.0.0.1", smtp_port=port)).send(make_envelope(make_notice()))
            released.set()


async def test_an_answer_and_an_unsubscribe_have_their_headers(means: MakeMeans, server: MailServer) -> None:
    link = "https://parley.example.com/unsubscribe/token"
    envelope = make_envelope(make_notice(), reply_to="parley+token@example.org", unsubscribe_url=link)
    await EmailChannel(means(smtp_host="127.0.0.1", smtp_port=server.port)).send(envelope)
    [mail] = server.mails
    assert mail["Reply-To"] == "parley+token@example.org"
    assert mail["List-Unsubscribe"] == f"<{link}>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        part = mail.get_body((kind,))
        assert part is not None
        assert link in part.get_content()
        assert "reply to this mail" in part.get_content()


async def test_five_megabytes_make_a_mail_of_ordinary_size(means: MakeMeans, server: MailServer) -> None:
    notice = make_notice(text="# Report\n" + "<b>**x** &" * 500_000)
    await EmailChannel(means(smtp_host="127.0.0.1", smtp_port=server.port)).send(make_envelope(notice))
    [mail] = server.mails
    assert len(mail.as_bytes()) < 300_000
    body = mail.get_body(("plain",))
    assert body is not None
    assert "The rest is in the conversation" in body.get_content()


def test_ids_and_urls_stand_as_they_are_however_long() -> None:
    """RFC 2369 and RFC 5322 want them bare; parsed again they would look right in either spelling."""
    link = f"https://parley.example.com/unsubscribe/{'A' * 300}"
    answered = f"<{'B' * 300}@mail.example.com>"
    notice = replace(make_notice(), thread={"in_reply_to": answered})
    raw = compose(replace(make_envelope(notice), unsubscribe_url=link), "parley@example.com").as_bytes()
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in raw
    assert f"\r\nIn-Reply-To: {answered}\r\n".encode() in raw
    assert f"\r\nReferences: <{CONVERSATION}@parley.example.com>\r\n {answered}\r\n".encode() in raw


async def test_a_server_gets_ids_and_urls_as_they_are(means: MakeMeans, server: MailServer, tmp_path: Path) -> None:
    """Whoever hands a mail over writes it anew."""
    link, answered = f"https://parley.example.com/unsubscribe/{'A' * 300}", f"<{'B' * 300}@mail.example.com>"
    address, reply_to = f"{'c' * 64}@{'.'.join(['d' * 60] * 3)}.eu", f"reply+{'e' * 26}@{'.'.join(['f' * 60] * 3)}.eu"
    notice = replace(make_notice(), thread={"in_reply_to": answered})
    own = f"<{'0' * 36}@{'.'.join(['g' * 60] * 3)}.eu>"
    envelope = replace(make_envelope(notice, address, reply_to=reply_to, unsubscribe_url=link), message_id=own)
    await by(means, server).send(envelope)
    await EmailChannel(means()).send(envelope)
    (name,) = seen(tmp_path / "outbox")
    for raw in (server.raw[0], (tmp_path / "outbox" / name).read_bytes()):
        head = raw.partition(b"\r\n\r\n")[0].decode("ascii")
        unfolded = head.replace("\r\n ", " ").split("\r\n")
        assert f"List-Unsubscribe: <{link}>" in unfolded
        assert f"In-Reply-To: {answered}" in unfolded
        assert f"References: <{CONVERSATION}@{own.rpartition('@')[2]} {answered}" in unfolded
        assert f"Message-ID: {own}" in [" ".join(line.split()) for line in unfolded]
        assert f"To: {address}" in [" ".join(line.split()) for line in unfolded]
        assert f"Reply-To: {reply_to}" in [" ".join(line.split()) for line in unfolded]
        assert f"X-Parley-Run: {notice.run_id}" in unfolded
        assert "=?" not in head


async def test_a_mail_about_no_run_names_none(means: MakeMeans, server: MailServer) -> None:
    await by(means, server).send(make_envelope(make_notice(run_id=None)))
    assert b"X-Parley-Conversation: " in server.raw[0]
    assert b"X-Parley-Run" not in server.raw[0]
