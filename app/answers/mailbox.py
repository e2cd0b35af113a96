"""Takes mails that came in for a reply address."""

import asyncio
from email.utils import parseaddr

import structlog

from app.answers.files import kept
from app.answers.mail import Mail
from app.answers.people import WRITE
from app.answers.quoted import written
from app.answers.take import Answer, Answered, Door
from app.db import Database
from app.identity import people, who_may
from app.notifications.replies import ReplyTo, find_reply, token_of
from app.settings import Settings

STRANGER = "it came from another address than the one that was written to"
NOBODY = "unknown"  # The sender of a mail whose header names no one address.
FORBIDDEN = f"you are not allowed to answer here: your API key needs the scope {WRITE}"

log = structlog.stdlib.get_logger(__name__)


class Mailbox:
    """Finds the conversation of a mail by its reply address, and gives it what its author wrote."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Take answers through this database's engine pool."""
        self._database = database
        self._settings = settings
        self._door = Door(database, settings)

    async def take(self, mail: Mail) -> Answered | None:
        """Take a mail; None when no reply address that is open is among its receivers.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away; send it again.
        """
        reply = await self._reply_of(mail)
        if reply is None:
            log.info("mail.for_nobody", sender=mail.sender)
            return None
        # Plain ASCII: other letters become ASCII ones in lower case, and would be taken for those who were written to.
        sender = (mail.sender or NOBODY).lower()
        found = await people(self._database, self._settings, reply.workspace_id, email=sender)
        writer = who_may(found, WRITE)
        answer = Answer(
            workspace_id=reply.workspace_id,
            conversation_id=reply.conversation_id,
            channel="email",
            source_id=mail.message_id,
            sender=sender,
            address=sender,
            thread={"in_reply_to": mail.message_id, "subject": mail.subject},
            principal=writer,
        )
        if mail.automatic or mail.forged:
            reason = mail.automatic or "its sender could not be verified (DMARC)"
            return await self._door.refuse(answer, reason, polite=False)
        if sender != reply.address:
            return await self._door.refuse(answer, STRANGER, polite=self._may_be_told(mail))
        if found and writer is None:
            return await self._door.refuse(answer, FORBIDDEN)
        return await self._say(answer, mail)

    def _may_be_told(self, mail: Mail) -> bool:
        """Whether a stranger is told: only whom a mail is really from, and never one of our own addresses."""
        sender = (mail.sender or "").lower()
        local, _, domain = sender.partition("@")
        ours = {self._settings.parley_reply_address, parseaddr(self._settings.smtp_from_email)[1]}
        of_ours = {address.lower() for address in ours if address}
        return bool(sender) and mail.vouched and of_ours.isdisjoint({sender, f"{local.partition('+')[0]}@{domain}"})

    async def _reply_of(self, mail: Mail) -> ReplyTo | None:
        for address in mail.to:
            token = token_of(self._settings, address)
            if token and (reply := await find_reply(self._database, token)):
                return reply
        return None

    async def _say(self, answer: Answer, mail: Mail) -> Answered:
        text = await asyncio.to_thread(written, mail.text, mail.html, self._settings)
        files, left_out = kept(answer, mail.files, self._settings)
        if not text and not files:
            return await self._door.refuse(answer, "there was no new text in it")
        said = "\n\n".join([text or "(no text)", *left_out])
        return await self._door.message(answer, said, files)
