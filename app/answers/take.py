"""Taking an answer: noted once, in the transaction that makes it a message or a decision of its conversation.

Who may not answer is told so once per conversation, by the same channel; what a machine sent is never answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app import artifacts
from app.approvals import Decision, answer_or_reply, decide
from app.artifacts import NewArtifact
from app.conversations import Accepted, Turn, lock
from app.db import Connection, Database, Row
from app.errors import NotFound, ParleyError
from app.identity import Principal
from app.messages import Json, clean_text
from app.models import new_id
from app.notifications import Notice
from app.notifications.deliver import insert as insert_deliveries
from app.notifications.plan import PlannedDelivery, message_id
from app.settings import Settings
from app.settle import Settled

AN_HOUR = 30  # Answers by one sender to one conversation: two machines that answer each other come to an end.
KEPT = 100  # Refused ones, of a conversation.
REFUSED_EVENT = "answer.refused"


@dataclass(frozen=True)
class Answer:
    """An answer whose conversation is known.

    Attributes:
        channel: email or slack.
        source_id: What the channel calls it; a repeat has the same.
        sender: Who it says it is from, as the channel writes it.
        address: Where an answer to it goes.
        thread: What an answer to it has to say to stand below it: `in_reply_to`, `subject`.
        principal: Who that is here, if anybody.
    """

    workspace_id: UUID
    conversation_id: UUID
    channel: str
    source_id: str
    sender: str
    address: str
    thread: Json = field(default_factory=dict[str, Any])
    principal: Principal | None = None

    @property
    def principal_id(self) -> UUID | None:
        """Who acts."""
        return self.principal.id if self.principal else None

    @property
    def notification(self) -> Json:
        """What the run that answers it tells, and where: an answer goes back to where the question came from."""
        names = {"email": "email_address", "slack": "slack_channel"}
        on = ["completed", "failed", "cancelled", "waiting"]
        return {
            "config": {"channels": [self.channel], names[self.channel]: self.address, "on": on},
            "thread": self.thread,
        }


@dataclass(frozen=True)
class Answered:
    """What became of an answer.

    Attributes:
        outcome: message, decision, duplicate or refused.
        accepted: What a new message asks for after the commit ...
        settled: ... and what a decision, or a refusal that is told.
    """

    outcome: str
    reason: str | None = None
    run_id: UUID | None = None
    accepted: Accepted | None = None
    settled: Settled | None = None


class Door:
    """Where answers come in."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Take answers through this database's engine pool."""
        self._database = database
        self._settings = settings

    async def message(self, answer: Answer, text: str, files: Sequence[NewArtifact] = ()) -> Answered:
        """Make an answer a message of its conversation, or the answer to the one question that is open there.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away; send it again.
        """
        try:
            async with self._database.engine_tx("say") as connection:
                if repeated := await _repeated(connection, answer):
                    return repeated
                if await _too_many(connection, answer):
                    reason = f"this conversation takes at most {AN_HOUR} answers an hour from one sender"
                    return await _refuse(connection, self._settings, answer, reason, polite=False)
                return await self._take(connection, answer, text, files)
        except ParleyError as error:
            if error.status >= 500 or isinstance(error, NotFound):
                raise
            return await self.refuse(answer, error.detail)

    async def _take(self, connection: Connection, answer: Answer, text: str, files: Sequence[NewArtifact]) -> Answered:
        for file in files:
            await artifacts.insert(connection, file)
        turn = Turn(
            clean_text(text),
            attachments=[file.id for file in files],
            principal_id=answer.principal_id,
            source=answer.channel,
            source_id=f"{answer.conversation_id}/{answer.source_id}",
            run={"notification": answer.notification},
        )
        place = (answer.workspace_id, answer.conversation_id)
        accepted = await answer_or_reply(connection, self._settings, *place, turn)
        await _note(connection, answer, "message", run_id=accepted.run_id)
        return Answered("message", run_id=accepted.run_id, accepted=accepted)

    async def decision(self, answer: Answer, approval_id: UUID, decision: Decision) -> Answered:
        """Decide a question of the conversation.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away; send it again.
        """
        try:
            async with self._database.engine_tx("decide") as connection:
                if repeated := await _repeated(connection, answer):
                    return repeated
                if await connection.fetchval(OF, approval_id, answer.conversation_id) is None:
                    raise NotFound("the conversation has no such question")
                settled = await decide(
                    connection, answer.workspace_id, approval_id, decision, principal_id=answer.principal_id
                )
                await _note(connection, answer, "decision", run_id=settled.events[0].run_id)
                return Answered("decision", run_id=settled.events[0].run_id, settled=settled)
        except ParleyError as error:
            if error.status >= 500:
                raise
            return await self.refuse(answer, error.detail, polite=False)

    async def refuse(self, answer: Answer, reason: str, *, polite: bool = True) -> Answered:
        """Write down that an answer is not taken, and tell its sender once; never a machine (`polite`)."""
        async with self._database.engine_tx("say") as connection:
            if repeated := await _repeated(connection, answer):
                return repeated
            return await _refuse(connection, self._settings, answer, reason, polite=polite)


OF = "select id from approvals where id = $1 and conversation_id = $2"
FIRST = "select reason, run_id from answers where conversation_id = $1 and channel = $2 and source_id = $3"
COUNT = """
select count(*) from answers
where conversation_id = $1 and channel = $2 and sender = $3 and created_at > now() - interval '1 hour'
"""
NOTE = """
insert into answers (id, workspace_id, conversation_id, channel, source_id, sender, outcome, reason, run_id, principal_id,
    told)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
FORGET = """
delete from answers where id in (
    select id from answers where conversation_id = $1 and outcome = 'refused' and not told order by id desc offset $2)
"""
TOLD = "select exists (select from answers where conversation_id = $1 and channel = $2 and sender = $3 and told)"


async def _repeated(connection: Connection, answer: Answer) -> Answered | None:
    """What became of the same answer when it came first. The head's lock lets one at a time ask."""
    await lock(connection, answer.workspace_id, answer.conversation_id)
    row: Row | None = await connection.fetchrow(FIRST, answer.conversation_id, answer.channel, answer.source_id)
    return Answered("duplicate", row["reason"], row["run_id"]) if row else None


async def _too_many(connection: Connection, answer: Answer) -> bool:
    return await connection.fetchval(COUNT, answer.conversation_id, answer.channel, answer.sender) >= AN_HOUR


async def _note(
    connection: Connection,
    answer: Answer,
    outcome: str,
    *,
    reason: str | None = None,
    run_id: UUID | None = None,
    told: bool = False,
) -> UUID:
    number = new_id()
    of = (number, answer.workspace_id, answer.conversation_id, answer.channel, answer.source_id, answer.sender)
    await connection.execute(NOTE, *of, outcome, reason, run_id, answer.principal_id, told)
    return number


async def _refuse(connection: Connection, settings: Settings, answer: Answer, reason: str, *, polite: bool) -> Answered:
    told = polite and not await connection.fetchval(TOLD, answer.conversation_id, answer.channel, answer.sender)
    number = await _note(connection, answer, "refused", reason=reason, told=told)
    await connection.execute(FORGET, answer.conversation_id, KEPT)
    if told:
        await _tell(connection, settings, answer, number, reason)
    return Answered("refused", reason, settled=Settled([], work_is_due=told))


async def _tell(connection: Connection, settings: Settings, answer: Answer, number: UUID, reason: str) -> None:
    """Plan the one polite answer."""
    notice = Notice(
        event=REFUSED_EVENT,
        workspace_id=answer.workspace_id,
        conversation_id=answer.conversation_id,
        run_id=None,
        event_seq=None,
        title="Your answer was not taken",
        base_url=settings.base_url,
        text=f"{reason[:1].upper()}{reason[1:]}.\n\nThis is said once: further answers that can't be taken get none.",
        thread=answer.thread,
    )
    key = f"{REFUSED_EVENT}:{number}"
    own_id = message_id(key, notice.base_url)
    planned = PlannedDelivery(
        answer.channel,
        answer.address,
        REFUSED_EVENT,
        None,
        "pending",
        None,
        own_id,
        key,
        notice.fingerprint,
        notice.payload(),
    )
    await insert_deliveries(connection, notice, [planned])
