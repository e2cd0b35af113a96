"""Taking an answer: noted once, in the transaction that makes it a message or a decision of its conversation.

Who may not answer is told so once per conversation, by the same channel; what a machine sent is never answered. Whose
answer is taken otherwise than they may think - for one question of several, kept until a call is decided, without its files -
is told that, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any
from uuid import UUID

from app import artifacts, audit
from app.approvals import Decision, answer_or_reply, answered_by_words, decide, open_questions
from app.artifacts import NewArtifact
from app.audit import Entry
from app.conversations import Accepted, Turn, lock
from app.db import Connection, Database, Row
from app.errors import NotFound, ParleyError
from app.identity import Principal
from app.messages import Json, clean_text
from app.models import new_id
from app.notifications import Notice
from app.notifications.deliver import insert as insert_deliveries
from app.notifications.notice import REFUSED
from app.notifications.plan import PlannedDelivery, message_id
from app.notifications.text import one_line
from app.settings import Settings
from app.settle import Settled

MAX_QUOTED = 200
AN_HOUR = 30  # Answers by one sender to one conversation: two machines that answer each other come to an end.
KEPT = 100  # Refused ones, of a conversation.
NOTED = "answer.noted"
ONCE = "This is said once: further answers that can't be taken get none."
ANSWERS = "the message answers a question, and such an answer is text"
NOT_KEPT = "[the file {} was not kept: {}]"
# Where a call is decided, by the channel that asked.
DECIDED = {
    "slack": "Use the buttons below the question.",
    "email": "Whoever may decide it has a link in the mail that asked.",
}


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
        settled: ... and what a decision asks for, or that its sender is told something.
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

    async def message(
        self, answer: Answer, text: str, files: Sequence[NewArtifact] = (), *, left_out: str = ""
    ) -> Answered:
        """Make an answer a message of its conversation, or the answer to the agent's own question that is open there.

        Args:
            answer: Whose, and where it belongs.
            text: What was written.
            files: What came with it.
            left_out: What of it was not taken, as its sender is told.

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
                return await self._take(connection, answer, text, files, left_out)
        except ParleyError as error:
            if error.status >= 500 or isinstance(error, NotFound):
                raise
            return await self.refuse(answer, error.detail)

    async def _take(
        self, connection: Connection, answer: Answer, text: str, files: Sequence[NewArtifact], left_out: str
    ) -> Answered:
        place = (answer.workspace_id, answer.conversation_id)
        head = await lock(connection, *place)
        questions = await open_questions(connection, answer.conversation_id)
        question = answered_by_words(questions)
        if question:
            text, files = "\n\n".join([text, *(NOT_KEPT.format(file.name, ANSWERS) for file in files)]), ()
        for file in files:
            await artifacts.insert(connection, file)
        turn = Turn(
            clean_text(text),
            attachments=[file.id for file in files],
            principal_id=answer.principal_id,
            source=answer.channel,
            source_id=f"{answer.conversation_id}/{answer.source_id}",
            on_message=_policy(head),
            run={"notification": answer.notification},
        )
        accepted = await answer_or_reply(connection, self._settings, *place, turn)
        await _note(connection, answer, "message", run_id=accepted.run_id)
        run_id = questions[0]["run_id"] if questions else accepted.run_id
        said = "\n\n".join(filter(None, [left_out, _still_open(answer, questions, question)]))
        settled = await self._remark(connection, answer, run_id, said) if said else None
        return Answered("message", run_id=accepted.run_id, accepted=accepted, settled=settled)

    async def _remark(self, connection: Connection, answer: Answer, run_id: UUID, said: str) -> Settled:
        """Tell its sender how a message was taken; the same about the same run once."""
        key = sha256("\n".join((str(run_id), answer.sender, said)).encode()).hexdigest()[:32]
        await _tell(connection, self._settings, answer, NOTED, key, "About your message", said)
        return Settled([], work_is_due=True)

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
                action = f"approval.{'approve' if decision.approve else 'deny'}"
                by = {"by_slack": answer.sender, "reason": decision.reason}
                entry = Entry(answer.workspace_id, answer.principal_id, action, "approval", str(approval_id), by)
                await audit.record_engine(connection, entry)
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


def _policy(head: Row) -> str:
    """What an answer does while a run is open: it waits its turn, or interrupts where the conversation says so.

    It never joins the run under way, and is not turned away: only a run of its own answers in the thread that it came from.
    """
    return "interrupt" if head["on_message"] == "interrupt" and head["state"] != "waiting" else "enqueue"


def _still_open(answer: Answer, questions: Sequence[Row], question: Row | None) -> str:
    """What its sender is told of the questions that a message leaves open."""
    rest = [_asked(answer, each) for each in questions if each is not question]
    if not rest:
        return ""
    said = "Your message is kept. It is answered when this is decided:"
    if question:
        said = f"Your message is the answer to: {_quoted(question)}\n\nThis is open still:"
    return "\n".join([f"{said}\n", *rest])


def _asked(answer: Answer, question: Row) -> str:
    if question["kind"] == "question":
        return f"- {_quoted(question)}: answer it by another message."
    asked = "may it be called?" if question["kind"] == "tool" else "did the call that was cut off take effect?"
    return f"- `{question['tool']}`: {asked} {DECIDED[answer.channel]}"


def _quoted(question: Row) -> str:
    return f"“{one_line(question['question'] or '', MAX_QUOTED)}”"


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
# Of mails one is told, whoever it is: anybody can write one, and from as many addresses as they like.
TOLD = """
select exists (select from answers where conversation_id = $1 and channel = $2 and told and (sender = $3 or channel = 'email'))
"""


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
        said = f"{reason[:1].upper()}{reason[1:]}.\n\n{ONCE}"
        # With no words of theirs, not even a subject: whom it goes to may never have written.
        nameless = replace(answer, thread={"in_reply_to": answer.thread.get("in_reply_to")})
        await _tell(connection, settings, nameless, REFUSED, str(number), "Your answer was not taken", said)
    return Answered("refused", reason, settled=Settled([], work_is_due=told))


async def _tell(
    connection: Connection, settings: Settings, answer: Answer, event: str, key: str, title: str, text: str
) -> None:
    """Plan a message to the sender of an answer; under the same key there is one."""
    notice = Notice(
        event=event,
        workspace_id=answer.workspace_id,
        conversation_id=answer.conversation_id,
        run_id=None,
        event_seq=None,
        title=title,
        base_url=settings.base_url,
        text=text,
        thread=answer.thread,
    )
    key = f"{event}:{key}"
    own_id = message_id(key, notice.base_url)
    planned = PlannedDelivery(
        answer.channel,
        answer.address,
        event,
        None,
        "pending",
        None,
        own_id,
        key,
        notice.fingerprint,
        notice.payload(),
    )
    await insert_deliveries(connection, notice, [planned])
