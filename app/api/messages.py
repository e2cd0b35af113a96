"""The messages of a conversation: saying something, going on, reading what was said."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import approvals, conversations
from app.agents import check_output_schema
from app.api.access import Caller
from app.api.answers import ANSWERS, Answer, MessageOut, Prefer, answer_to, made_before
from app.api.conversations import Attachments, Policy, Reader, Writer, attached, check_context, find, refuse_later
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.conversations import Accepted, Turn
from app.messages import Json
from app.models import Input, Message, Run
from app.runs import TERMINAL_STATES

router = resource("conversations")


class MessageFields(BaseModel):
    """What a message may carry beside its text."""

    model_config = ConfigDict(extra="forbid")

    stream: bool = Field(False, description="Answer with a stream of the run's events.")
    background: bool = Field(False, description="Run in a worker; answer 202 at once.")
    context_data: Json | None = Field(default=None, description="The app's state as of this message, for a sidekick.")
    on_message: Policy | None = Field(default=None, description="Overrides the conversation's policy.")
    output_schema: Json | None = Field(default=None, description="JSON schema of the output, of type object.")
    budget: Json | None = Field(default=None, description="Not offered yet.")
    attachments: Attachments = Field(default_factory=list[UUID], description="Artifacts sent along, by id.")


class MessageBody(MessageFields):
    """A message to a conversation."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"message": "What is the capital of France?", "stream": False}]}
    )

    message: str = Field(min_length=1, max_length=200_000)


class ContinueBody(MessageFields):
    """Goes on, with a message or without."""

    message: str | None = Field(default=None, min_length=1, max_length=200_000)


class PendingOut(BaseModel):
    """A message that waits for its run."""

    id: UUID
    run_id: UUID
    kind: str
    text: str
    created_at: datetime


class MessagesOut(Page[MessageOut]):
    """A page of messages, oldest first, and what waits to become one."""

    pending: list[PendingOut]


@router.post(
    "/conversations/{conversation_id}/messages", summary="Say something", response_model=Answer, responses=ANSWERS
)
async def say(
    conversation_id: UUID,
    body: MessageBody,
    response: Response,
    caller: Writer,
    key: Idempotent,
    prefer: Prefer = None,
) -> Any:
    """200 with the reply, 202 when it parks, backs off or takes longer than asked, or a stream of its events."""
    turn = await turn_of(caller, body.message, body)
    return await _accept(conversation_id, approvals.answer_or_reply, turn, body, response, caller, key, prefer)


@router.post("/conversations/{conversation_id}/continue", summary="Go on", response_model=Answer, responses=ANSWERS)
async def go_on(
    conversation_id: UUID,
    body: ContinueBody,
    response: Response,
    caller: Writer,
    key: Idempotent,
    prefer: Prefer = None,
) -> Any:
    """With a message; without one from the last checkpoint, or by saying "Continue."."""
    turn = await turn_of(caller, body.message, body)
    return await _accept(conversation_id, conversations.carry_on, turn, body, response, caller, key, prefer)


async def _accept(
    conversation_id: UUID,
    take: Callable[..., Awaitable[Accepted]],
    turn: Turn,
    body: MessageFields,
    response: Response,
    caller: Caller,
    key: Idempotent,
    prefer: str | None,
) -> Any:
    inline = None if body.background else caller.engine.inline
    async with caller.database.engine_tx("say") as connection:
        repeat = await key.claim(connection, caller, "run", turn.run_id)
        if repeat:
            accepted = await made_before(connection, repeat)
        else:
            accepted = await take(
                connection, caller.settings, caller.workspace_id, conversation_id, turn, inline=inline
            )
    caller.engine.welcome(accepted)
    return await answer_to(caller, response, accepted, stream=body.stream, background=body.background, prefer=prefer)


async def turn_of(caller: Caller, text: str | None, body: MessageFields) -> Turn:
    """A message body as the turn it asks for."""
    refuse_later(body)
    check_context(body.context_data)
    if body.output_schema is not None:  # A large one takes a while to check.
        await asyncio.to_thread(check_output_schema, body.output_schema, "output_schema")
    return Turn(
        text,
        context=body.context_data,
        attachments=attached(caller, body.attachments),
        on_message=body.on_message,
        principal_id=caller.principal.id,
        run={"output_schema": body.output_schema, "detached": body.background},
    )


@router.get("/conversations/{conversation_id}/messages", summary="Read the messages")
async def list_messages(
    conversation_id: UUID, caller: Reader, page: Annotated[PageOf, paged("messages")]
) -> MessagesOut:
    """Oldest first, with `pending`: accepted messages whose run has not taken them in yet."""
    query = select(Message).where(Message.conversation_id == conversation_id).order_by(Message.seq)
    query = query.where(Message.seq > page.number) if page.number else query
    async with caller.transaction() as session:
        await find(session, caller.workspace_id, conversation_id)
        rows = list(await session.scalars(query.limit(page.fetch)))
        pending = await _pending(session, conversation_id)
    cut = page.cut(rows, lambda row: MessageOut.of(vars(row), conversation_id), lambda row: row.seq)
    return MessagesOut(items=cut.items, next_cursor=cut.next_cursor, pending=pending)


async def _pending(session: AsyncSession, conversation_id: UUID) -> list[PendingOut]:
    query = (
        select(Input)
        .join(Run, Run.id == Input.run_id)
        .where(
            Input.conversation_id == conversation_id,
            Input.consumed_seq.is_(None),
            Run.state.not_in([str(state) for state in TERMINAL_STATES]),
        )
        .order_by(Input.id)
    )
    return [
        PendingOut(id=row.id, run_id=row.run_id, kind=row.kind, text=row.body["text"], created_at=row.created_at)
        for row in await session.scalars(query)
    ]
