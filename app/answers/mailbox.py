"""Takes mails that came in for a reply address."""

import asyncio
from collections.abc import Iterable
from email.utils import parseaddr
from uuid import UUID

import structlog

from app.answers.mail import File, Mail
from app.answers.people import WRITE, people, who_may
from app.answers.quoted import written
from app.answers.take import NOT_KEPT, Answer, Answered, Door
from app.artifacts import MAX_ATTACHED, MAX_ATTACHED_BYTES, NewArtifact, checked
from app.db import Database
from app.errors import ParleyError
from app.models import new_id
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
        files, left_out = self._kept(answer, mail.files)
        if not text and not files:
            return await self._door.refuse(answer, "there was no new text in it")
        said = "\n\n".join([text or "(no text)", *left_out])
        return await self._door.message(answer, said, files)

    def _kept(self, answer: Answer, files: Iterable[File]) -> tuple[list[NewArtifact], list[str]]:
        """The files that may be kept, and a word about each that may not."""
        kept: list[NewArtifact] = []
        left_out: list[str] = []
        for number, file in enumerate(files, start=1):
            name = _file_name(file.name) or f"attachment-{number}"
            try:
                artifact = self._artifact(answer, name, file)
                too_many = len(kept) == MAX_ATTACHED or _size(kept) + len(file.content) > MAX_ATTACHED_BYTES
                if too_many:
                    left_out.append(NOT_KEPT.format(name, "there were too many"))
                else:
                    kept.append(artifact)
            except ParleyError as error:
                left_out.append(NOT_KEPT.format(name, error.detail))
        return kept, left_out

    def _artifact(self, answer: Answer, name: str, file: File) -> NewArtifact:
        owner: dict[str, UUID | None] = {"conversation_id": answer.conversation_id, "principal_id": answer.principal_id}
        return checked(
            NewArtifact(new_id(), answer.workspace_id, name, file.media_type, file.content, **owner), self._settings
        )


def _file_name(given: str) -> str:
    """The last part of a name, of characters that can be printed; nothing of it can lead elsewhere."""
    last = given.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable()).strip(". ")[:200]


def _size(files: Iterable[NewArtifact]) -> int:
    return sum(len(file.content) for file in files)
