"""E-mail: by SMTP, or captured in the outbox folder when no server is set."""

import asyncio
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from app.errors import DeliveryRefused
from app.notifications.channel import Address, Envelope, Means, SendResult
from app.notifications.config import NotificationConfig
from app.notifications.notice import Notice
from app.notifications.render import Mail, render_mail
from app.notifications.text import one_line

MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,400}>")


class _Written(UnstructuredHeader, BaseHeader):
    """Ids and URLs as they are, one to a line: the library takes a long one for text and encodes it, and nobody could read it."""

    def fold(self, *, policy: "Policy[Any]") -> str:
        """The header's lines."""
        return f"{self.name}: {(policy.linesep + ' ').join(self.split())}{policy.linesep}"


class _Headers(HeaderRegistry):
    """The library makes a class for each header of each mail, a quarter of all composing. One for each name is enough."""

    def __getitem__(self, name: str) -> type[Any]:
        return _class_of(name)


_registry = HeaderRegistry()
for _name in ("List-Unsubscribe", "In-Reply-To", "References"):
    _registry.map_to_type(_name, _Written)
_class_of = cache(_registry.__getitem__)  # Of our names alone, which are few.
POLICY = SMTP.clone(header_factory=_Headers())


class EmailChannel:
    """One mail per address; the mails of a conversation make one thread."""

    def __init__(self, means: Means) -> None:
        """Send by the server of the settings."""
        self._settings = means.settings
        self._smtp = means.smtp

    @staticmethod
    def addresses(config: NotificationConfig, *, default_slack: bool) -> list[Address]:
        """The addresses of the config."""
        del default_slack
        return [Address(address) for address in config.email_address or []]

    async def send(self, envelope: Envelope) -> SendResult:
        """Hand one mail to the server, or to the outbox folder."""
        contents = await envelope.files.contents() if envelope.files else {}
        message = await asyncio.to_thread(compose, envelope, self._settings.smtp_from_email, contents)
        if self._settings.smtp_host is None:
            path = await asyncio.to_thread(capture, message, self._settings.parley_home / "outbox")
            return SendResult(f"captured in {path}: SMTP_HOST is not set, so no mail was sent")
        await self._smtp.send(message)
        return SendResult()


def mail_of(envelope: Envelope) -> Mail:
    """What the reader of a delivery's mail sees."""
    return render_mail(
        envelope.notice,
        envelope.linked,
        mute_url=envelope.unsubscribe_url,
        by_mail=envelope.reply_to is not None,
        decision_urls=envelope.decision_urls,
    )


def compose(envelope: Envelope, sender: str, contents: Mapping[UUID, bytes] | None = None) -> EmailMessage:
    """The mail of a delivery, with the files whose contents there are.

    Raises:
        DeliveryRefused: when an address can't be put in a header.
    """
    notice = envelope.notice
    mail = mail_of(envelope)
    thread = thread_id(notice.conversation_id, envelope.message_id)
    message = EmailMessage(policy=POLICY)
    try:
        message["From"] = sender
        message["To"] = envelope.address
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = envelope.message_id
        if notice.conversation_id is not None:
            message["In-Reply-To"] = _answered(notice) or thread
            message["References"] = " ".join(filter(None, (thread, _answered(notice))))
        if envelope.reply_to:
            message["Reply-To"] = envelope.reply_to
        if envelope.unsubscribe_url:
            message["List-Unsubscribe"] = f"<{envelope.unsubscribe_url}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message["Auto-Submitted"] = "auto-replied" if notice.thread else "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        message["Precedence"] = "bulk"
        message["X-Parley-Event"] = notice.event
        if notice.conversation_id is not None:
            message["X-Parley-Conversation"] = str(notice.conversation_id)
        if notice.run_id is not None:
            message["X-Parley-Run"] = str(notice.run_id)
    except ValueError as error:
        raise DeliveryRefused(f"the mail can't be addressed: {one_line(str(error), 200)}") from error
    message.set_content(mail.text, cte="quoted-printable")
    # Without one of ours, the library looks through the mail for a boundary that is not in it.
    message.make_alternative(boundary=f"=_{uuid4().hex}")
    message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    for file in envelope.linked:
        if contents and file.id in contents:
            kind, subtype = _mail_type(file.media_type)
            # The library writes names as RFC 2231 says: nothing in one can end the header.
            message.add_attachment(contents[file.id], maintype=kind, subtype=subtype, filename=file.name)
    return message


def _answered(notice: Notice) -> str | None:
    """The Message-ID of the mail that this answers, if it answers one and it is fit for a header."""
    said = str((notice.thread or {}).get("in_reply_to") or "")
    return said if MESSAGE_ID.fullmatch(said) else None


def _mail_type(media_type: str) -> tuple[str, str]:
    """The two parts of a type; one that would be read as a part of the mail itself is plain bytes."""
    kind, _, subtype = media_type.partition("/")
    return ("application", "octet-stream") if kind in ("message", "multipart") else (kind, subtype)


def thread_id(conversation_id: UUID | None, message_id: str) -> str:
    """The Message-ID that all mails of a conversation answer to; the mail itself is never sent."""
    return f"<{conversation_id}@{message_id.strip('<>').rpartition('@')[2]}>"


def capture(message: EmailMessage, folder: Path) -> Path:
    """Keep a mail as an .eml file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = re.sub(r"[^A-Za-z0-9-]", "", message["Message-ID"].rpartition("@")[0])
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{name}.eml"
    partial = path.with_suffix(".partial")
    partial.write_bytes(message.as_bytes())
    os.replace(partial, path)
    return path
