"""Approvals: questions to people, each decided once, bound to the tool and the arguments it shows.

A run that asks is parked in the transaction that inserts its questions; the last answer queues it again.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app import audit
from app.audit import Entry
from app.conversations import Accepted, Turn, lock, reply
from app.db import Connection, Database, Row
from app.errors import AlreadyDecided, ApprovalExpired, ApprovalPending, InvalidArguments, InvalidRequest, NotFound
from app.events import EventType, NewEvent, append
from app.messages import Json
from app.models import new_id
from app.notifications.deliver import plan_updates
from app.notifications.text import cut_note
from app.notifications.words import question_of
from app.runs import WAITING_FOR, Fenced, Inline, answered
from app.runs import park as park_run
from app.settings import Settings
from app.settle import LOCK, Settled, announce, failed, settle
from app.tools import ParkKind
from app.tools.registry import INSTALLED
from app.tools.schema import fitting
from app.tools.stored import stored_tool


@dataclass(frozen=True)
class NewApproval:
    """A question about to be asked.

    Attributes:
        kind: tool (may it run?), effect (did it happen?) or question (what is the answer?).
        subject: The call, as `<message number>:<index>`, with `:<number>` for one that its code made.
        tool: Its tool.
        arguments: What is shown, and for `tool` what may run.
        args_sha256: The hash of the call's arguments, to which the decision is bound.
        risk: The tool's risk class.
        expires_seconds: How long it stays open.
        on_expiry: `tell` the model that it expired, or `fail` the run.
    """

    kind: ParkKind
    subject: str
    tool: str
    arguments: Any
    args_sha256: str
    risk: str
    expires_seconds: float
    on_expiry: str


INSERT = """
insert into approvals (id, workspace_id, conversation_id, run_id, kind, subject, tool, arguments, args_sha256, risk,
    expires_at, on_expiry)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + make_interval(secs => $11), $12)
"""


async def park(connection: Connection, settings: Settings, who: Fenced, questions: list[NewApproval]) -> Settled:
    """Ask, and let the run wait: one transaction.

    Needs an `engine_tx()`; publish the answered events after its commit.

    Raises:
        LeaseLost: when `who` does not hold the run any more.
    """
    about = await connection.fetchrow(LOCK, [who.conversation_id], [who.run_id])
    assert about is not None, "a held run has a conversation"
    doubtful = [question.subject for question in questions if question.kind == "effect"]
    await park_run(connection, who, len(questions), doubtful=doubtful)
    asked = [(new_id(), question) for question in questions]
    for approval_id, question in asked:
        await _insert(connection, about["workspace_id"], who, approval_id, question)
    waiting = NewEvent(EventType.RUN_WAITING, {"waiting_for": sorted({WAITING_FOR[each.kind] for each in questions})})
    events = [*(_required(approval_id, question) for approval_id, question in asked), waiting]
    stored = await append(connection, who.conversation_id, who.run_id, events)
    listed = [as_told(number, question, settings) for number, question in asked]
    text = "\n\n".join(told(each) for each in listed)
    due = await announce(connection, settings, about, stored[-1], text=text, asked=listed)
    return Settled(stored, due)


def as_told(number: UUID, question: NewApproval, settings: Settings) -> Json:
    """A question as `Notice.asked` lists it."""
    words = question.arguments.get("question", "") if question.kind == "question" else QUESTIONS[question.kind]
    arguments = "" if question.kind == "question" else literal(question.arguments)
    return {
        "id": str(number),
        "kind": question.kind,
        "tool": question.tool,
        "question": str(words),
        "arguments": arguments[:MAX_SHOWN],
        "left_out": max(0, len(arguments) - MAX_SHOWN),
        "url": f"{settings.base_url}/approvals/{number}/decision",
        "answer": ANSWERS[question.kind],
    }


async def _insert(connection: Connection, workspace_id: UUID, who: Fenced, approval_id: UUID, new: NewApproval) -> None:
    await connection.execute(
        INSERT,
        approval_id,
        workspace_id,
        who.conversation_id,
        who.run_id,
        new.kind,
        new.subject,
        new.tool,
        new.arguments,
        new.args_sha256,
        new.risk,
        new.expires_seconds,
        new.on_expiry,
    )


def _required(approval_id: UUID, question: NewApproval) -> NewEvent:
    payload = {
        "approval_id": str(approval_id),
        "kind": question.kind,
        "tool": question.tool,
        "arguments": question.arguments,
    }
    return NewEvent(EventType.APPROVAL_REQUIRED, payload)


MAX_SHOWN = 2_000  # Characters of a call's arguments in a message; the page of a mail's link shows them whole.

UNUSUAL = re.compile(r"[^\n -~]")
# Of Unicode's letters, marks and signs those that show nothing: fillers, an empty pattern of Braille, joiners, variation selectors.
BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")

QUESTIONS = {
    "tool": "May this be called?",
    "effect": "Whether this interrupted call took effect is not known. Did it happen?",
}
# What is posted to decide, by the kind of question.
ANSWERS = {
    "question": '{"decision": "approve", "arguments": {"answer": "..."}}',
    "effect": '{"decision": "approve", "arguments": {"outcome": "happened"}} (or "repeat", or "fail")',
    "tool": '{"decision": "approve"} or {"decision": "deny", "reason": "..."}',
}


def told(asked: Json) -> str:
    """A listed question as Markdown, and how it is decided."""
    return f"{question_of(asked)}\n\nTo decide: POST {asked['url']} with\n\n    {asked['answer']}"


def literal(arguments: Any) -> str:
    """Arguments as they are read before they are approved.

    What could not be seen, or would reorder what is read, is written as an escape.
    """
    return UNUSUAL.sub(_as_seen, json.dumps(arguments, ensure_ascii=False, indent=2))


def _as_seen(found: re.Match[str]) -> str:
    hidden = unicodedata.category(found[0])[0] in "CZ" or BLANK.fullmatch(found[0])
    return json.dumps(found[0])[1:-1] if hidden else found[0]


def shown(arguments: Any, limit: int) -> tuple[str, int]:
    """Literal arguments with a mark where some are cut, and how many characters are: then nobody may approve them there."""
    text = literal(arguments)
    left_out = max(0, len(text) - limit)
    return text[:limit] + cut_note(left_out), left_out


# --- deciding -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decision:
    """What a person says.

    Attributes:
        approve: Yes or no.
        arguments: Edited arguments (tool), `{"outcome", "result"}` (effect), `{"answer"}` (question).
        reason: Told to the model with a no.
        by: Who says it, as an address.
    """

    approve: bool
    arguments: Json | None = None
    reason: str | None = None
    by: str | None = None


FIND = "select id, conversation_id, run_id, kind, state, tool from approvals where id = $1 and workspace_id = $2"
# The version that the run keeps to.
ASKED_TOOL = """
select v.spec from runs r join tools t on t.workspace_id = r.workspace_id and t.name = $2 and t.deleted_at is null
join tool_versions v on v.tool_id = t.id and coalesce(v.sha256 = r.pins->'tools'->>t.name, v.version = t.published_version)
where r.id = $1
"""
# Invariant: decided once. The lock on the head puts decision, expiry and cancel in a row; the first finds `pending`.
DECIDE = """
update approvals set state = $2, decision = $3, decided_by = $4, reason = $5, decided_at = now()
where id = $1 and state = 'pending' and (expires_at is null or expires_at > now() or $2 = 'expired')
returning kind
"""


async def decide(
    connection: Connection, workspace_id: UUID, approval_id: UUID, decision: Decision, *, principal_id: UUID | None
) -> Settled:
    """Decide an approval; the last one of a run queues it.

    Needs an `engine_tx()`; publish and ring after its commit.

    Raises:
        NotFound: no such approval.
        AlreadyDecided: it was decided, withdrawn or has expired.
        InvalidRequest: the arguments don't fit the kind.
        InvalidArguments: the edited arguments don't fit the tool.
    """
    row = await connection.fetchrow(FIND, approval_id, workspace_id)
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    check(row["kind"], decision)
    if row["kind"] == "tool" and decision.approve and decision.arguments is not None:
        await _check_edited(connection, row, decision.arguments)
    await lock(connection, workspace_id, row["conversation_id"])
    state = "approved" if decision.approve else "denied"
    said = {"arguments": decision.arguments, "by": decision.by}
    body = {name: value for name, value in said.items() if value is not None} or None
    taken = await connection.fetchval(DECIDE, approval_id, state, body, principal_id, decision.reason)
    if taken is None:
        now = await connection.fetchval("select state from approvals where id = $1", approval_id)
        raise AlreadyDecided(f"the approval is {'expired' if now == 'pending' else now}", extra={"state": now})
    return await _answer(connection, workspace_id, row, state, decision.reason)


def check(kind: str, decision: Decision) -> None:
    """Refuse a decision that does not fit its question.

    Raises:
        InvalidRequest: naming the field.
    """
    said = decision.arguments or {}
    if kind == "question" and decision.approve and not str(said.get("answer") or "").strip():
        raise InvalidRequest('a question is approved with its answer: {"answer": "..."}', field="arguments.answer")
    if kind == "effect" and decision.approve and said.get("outcome") not in ("happened", "repeat", "fail"):
        raise InvalidRequest("outcome must be happened, repeat or fail", field="arguments.outcome")


async def _check_edited(connection: Connection, row: Row, arguments: Json) -> None:
    """Refuse arguments with which the call could not be made, while the question can still be answered."""
    tool = INSTALLED.get(row["tool"])
    if tool is None:
        spec = await connection.fetchval(ASKED_TOOL, row["run_id"], row["tool"])
        if spec is None:
            return  # It is gone, and its call will say so.
        tool = stored_tool(spec)
    try:
        fitting(tool.parameters, arguments)
    except InvalidArguments as error:
        field = f"arguments.{error.field}" if error.field else "arguments"
        raise InvalidArguments(error.detail, field=field) from error


async def _answer(connection: Connection, workspace_id: UUID, row: Row, state: str, reason: str | None) -> Settled:
    queued = await answered(connection, row["conversation_id"], row["run_id"])
    payload = {"approval_id": str(row["id"]), "kind": row["kind"], "state": state, "reason": reason}
    events = [NewEvent(EventType.APPROVAL_DECIDED, payload)]
    if queued:
        events.append(NewEvent(EventType.RUN_QUEUED, {"reason": "decided"}))
    stored = await append(connection, row["conversation_id"], row["run_id"], events)
    shown = await plan_updates(connection, workspace_id, stored[0])
    return Settled(stored, queued or shown)


# --- a message while a run waits --------------------------------------------------------------------

# Their ids were made in the order in which they were asked.
OPEN = """
select p.id, p.run_id, p.kind, p.tool, p.arguments->>'question' as question from approvals p join runs r on r.id = p.run_id
where p.conversation_id = $1 and p.state = 'pending' and (p.expires_at is null or p.expires_at > now())
    and r.state = 'waiting' and r.ready
order by p.id
"""


async def open_questions(connection: Connection, conversation_id: UUID) -> list[Row]:
    """What the run whose turn it is waits for: `id, run_id, kind, tool, question` of each, the longest open first.

    Needs the conversation's `lock`.
    """
    return await connection.fetch(OPEN, conversation_id)


def answered_by_words(questions: Sequence[Row]) -> Row | None:
    """The question that a message answers: the agent's own that has been open longest. Calls are decided, not talked about."""
    return next((each for each in questions if each["kind"] == "question"), None)


async def answer_or_reply(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    conversation_id: UUID,
    turn: Turn,
    *,
    inline: Inline | None = None,
) -> Accepted:
    """Accept a message: as the answer to the agent's own question where one is open, else as `conversations.reply` does.

    Needs an `engine_tx()`.

    Raises:
        ApprovalPending: the message would interrupt a run that waits for a decision.
        InvalidRequest: the message is an answer, and brings files.
    """
    head = await lock(connection, workspace_id, conversation_id)
    if head["state"] == "waiting" and turn.text is not None:
        questions = await open_questions(connection, conversation_id)
        if question := answered_by_words(questions):
            if turn.attachments:
                said = "the message answers an open question, and an answer is text; send the files once it is answered"
                raise InvalidRequest(said, field="attachments")
            return await _answer_by_message(connection, workspace_id, conversation_id, question["id"], turn)
        if questions and (turn.on_message or head["on_message"]) == "interrupt":
            raise ApprovalPending
    return await reply(connection, settings, workspace_id, conversation_id, turn, inline=inline)


async def _answer_by_message(
    connection: Connection, workspace_id: UUID, conversation_id: UUID, approval_id: UUID, turn: Turn
) -> Accepted:
    decision = Decision(approve=True, arguments={"answer": turn.text})
    done = await decide(connection, workspace_id, approval_id, decision, principal_id=turn.principal_id)
    by = {"by_message": turn.source or "api"}
    entry = Entry(workspace_id, turn.principal_id, "approval.approve", "approval", str(approval_id), by)
    await audit.record_engine(connection, entry)
    run_id = done.events[0].run_id
    return Accepted(conversation_id, run_id, None, ready=done.work_is_due, events=done.events)


# --- expiry -----------------------------------------------------------------------------------------

EXPIRED = """
select id, workspace_id, conversation_id, run_id, kind, on_expiry from approvals
where state = 'pending' and expires_at <= now() order by expires_at limit 100
"""


async def expired(database: Database) -> list[Row]:
    """Questions whose time is over."""
    return await database.fetch(EXPIRED)


async def expire(connection: Connection, settings: Settings, row: Row) -> Settled | None:
    """Close a question that nobody answered in time: the model is told, or the run fails.

    Needs an `engine_tx()`. None when somebody was first.
    """
    await lock(connection, row["workspace_id"], row["conversation_id"])
    if await connection.fetchval(DECIDE, row["id"], "expired", None, None, None) is None:
        return None
    if row["on_expiry"] == "fail":
        return await settle(connection, settings, row["run_id"], row["conversation_id"], failed(ApprovalExpired()))
    return await _answer(connection, row["workspace_id"], row, "expired", None)
