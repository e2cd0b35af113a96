"""Conversations: beginning one, reading, watching, forking, exporting."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import audit, conversations
from app.api.access import Caller, may
from app.api.answers import MessageOut, Usage
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.streams import STREAM_RESPONSES, Events, event_page, sse
from app.api.strict import resource
from app.artifacts import MAX_ATTACHED
from app.conversations import Accepted, NewConversation, Turn
from app.db import Connection
from app.errors import Conflict, InvalidRequest, NotAvailable, NotFound
from app.messages import Json, files_of
from app.models import Agent, Conversation, Head, Message, Task, new_id
from app.patterns import PATTERNS, pattern_named

router = resource("conversations")

Policy = Literal["enqueue", "reject", "interrupt", "steer"]
MAX_CONTEXT_BYTES = 200_000
Attachments = Annotated[list[UUID], Field(max_length=MAX_ATTACHED)]
LATER = ("budget",)


class NewConversationBody(BaseModel):
    """A conversation about to begin."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"pattern_type": "chatbot", "context_data": {}}]}
    )

    pattern_type: str = Field(description=f"One of {', '.join(PATTERNS)}.")
    agent: str = Field("assistant", min_length=1, max_length=200, description="Name or id.")
    title: str | None = Field(default=None, max_length=500, description="Cut from the first message when left out.")
    user: str | None = Field(
        default=None, max_length=200, description="Whose conversation, as your application names people."
    )
    context_data: Json = Field(default_factory=dict[str, Any], description="The app's state, for a sidekick.")
    on_message: Policy = Field("enqueue", description="What a message does while a run is open.")
    budget: Json | None = Field(default=None, description="Not offered yet.")


class ChangeBody(BaseModel):
    """Changes to a conversation."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = Field(default=None, max_length=500)
    user: str | None = Field(default=None, max_length=200)
    context_data: Json | None = None
    on_message: Policy | None = None


class ForkBody(BaseModel):
    """From where a conversation is copied."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"from_seq": 2}]})

    from_seq: int = Field(ge=1, description="The last message copied; with `message`, the one it replaces.")
    message: str | None = Field(default=None, min_length=1, max_length=200_000)
    attachments: Attachments = Field(default_factory=list[UUID], description="Artifacts sent with `message`, by id.")


class ForkedFrom(BaseModel):
    """Where a copy came from."""

    conversation_id: UUID
    seq: int


class ConversationOut(BaseModel):
    """A conversation as the API shows it."""

    id: UUID
    pattern_type: str
    title: str
    agent: str
    agent_version: int | None = Field(description="The version it keeps; null follows the published one.")
    origin: str
    trusted: bool
    user: str | None
    parent_id: UUID | None
    task_id: UUID | None
    forked_from: ForkedFrom | None
    context_data: Json
    on_message: Policy
    state: str = Field(description="idle, queued, running or waiting.")
    usage: Usage
    created_at: datetime
    updated_at: datetime


class ForkOut(ConversationOut):
    """A copy, and the run that answers the message it was made with."""

    run_id: UUID | None = None


# --- reading --------------------------------------------------------------------------------------

Found = Row[Conversation, Head, str]
Reader = Annotated[Caller, may("conversations:read")]
Writer = Annotated[Caller, may("conversations:write")]


def selected() -> Select[Conversation, Head, str]:
    """Conversations with their head and their agent's name."""
    return (
        select(Conversation, Head, Agent.name)
        .join(Head, Head.conversation_id == Conversation.id)
        .join(Agent, Agent.id == Conversation.agent_id)
    )


def shown(row: Found) -> ConversationOut:
    """A conversation's rows as the API shows them."""
    conversation, head, agent = row
    source = conversation.forked_from_id
    return ConversationOut(
        id=conversation.id,
        pattern_type=conversation.pattern_type,
        title=conversation.title,
        agent=agent,
        agent_version=conversation.agent_version,
        origin=conversation.origin,
        trusted=conversation.trusted,
        user=conversation.user,
        parent_id=conversation.parent_id,
        task_id=conversation.task_id,
        forked_from=ForkedFrom(conversation_id=source, seq=conversation.forked_at_seq or 0) if source else None,
        context_data=conversation.context_data,
        on_message=conversation.on_message,  # pyright: ignore[reportArgumentType]
        state=head.state,
        usage=Usage.of(head.requests, head.input_tokens, head.output_tokens, head.cost_usd),
        created_at=conversation.created_at,
        updated_at=max(conversation.updated_at, head.updated_at),
    )


async def find(session: AsyncSession, workspace_id: UUID, conversation_id: UUID) -> Found:
    """The conversation of that id.

    Raises:
        NotFound: when the workspace has none.
    """
    query = selected().where(Conversation.workspace_id == workspace_id, Conversation.id == conversation_id)
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"there is no conversation {conversation_id}")
    return row


async def show(caller: Caller, conversation_id: UUID) -> ConversationOut:
    """The conversation of that id as the API shows it."""
    async with caller.transaction() as session:
        return shown(await find(session, caller.workspace_id, conversation_id))


# --- conversations ----------------------------------------------------------------------------------


@router.post("/conversations", summary="Begin a conversation", status_code=201)
async def begin(body: NewConversationBody, caller: Writer, key: Idempotent) -> ConversationOut:
    """It is idle until it gets a message."""
    refuse_later(body)
    pattern = pattern_named(body.pattern_type)
    check_context(body.context_data)
    new = new_id()
    async with caller.database.engine_tx("begin") as connection:
        repeat = await key.claim(connection, caller, "conversation", new)
        if repeat is None:
            agent = await conversations.find_agent(connection, caller.workspace_id, body.agent)
            await conversations.start(
                connection,
                NewConversation(
                    caller.workspace_id,
                    pattern,
                    agent,
                    "api",
                    title=body.title or "",
                    principal_id=caller.principal.id,
                    user=body.user,
                    context_data=body.context_data,
                    on_message=body.on_message,
                    id=new,
                ),
            )
    return await show(caller, repeat.uuid if repeat else new)


SEARCH = """
select distinct conversation_id from messages
where workspace_id = $1 and to_tsvector('simple', left(text, 20000)) @@ websearch_to_tsquery('simple', $2) limit 1000
"""


@router.get("/conversations", summary="List conversations")
async def list_conversations(
    caller: Reader,
    page: Annotated[PageOf, paged("conversations")],
    pattern: Annotated[str | None, Query(description="Of this pattern_type.")] = None,
    agent: Annotated[str | None, Query(description="Of this agent, by name.")] = None,
    state: Annotated[
        Literal["idle", "queued", "running", "waiting"] | None, Query(description="In this state.")
    ] = None,
    origin: Annotated[
        str | None, Query(max_length=50, description="Begun by this door, such as `api` or `schedule`.")
    ] = None,
    task_id: Annotated[UUID | None, Query(description="Of this task.")] = None,
    user: Annotated[str | None, Query(max_length=200, description="Of this user.")] = None,
    q: Annotated[str | None, Query(max_length=500, description="Words in titles and messages.")] = None,
) -> Page[ConversationOut]:
    """Newest first."""
    query = selected().where(Conversation.workspace_id == caller.workspace_id)
    wanted = (
        (Conversation.pattern_type, pattern and pattern_named(pattern, field="pattern").name),
        (Agent.name, agent),
        (Head.state, state),
        (Conversation.origin, origin),
        (Conversation.task_id, task_id),
        (Conversation.user, user),
    )
    for column, value in wanted:
        query = query.where(column == value) if value is not None else query
    if q:
        rows = await caller.database.fetch(SEARCH, caller.workspace_id, q)
        in_text = Conversation.id.in_([row["conversation_id"] for row in rows])
        query = query.where(in_text | Conversation.title.icontains(q, autoescape=True))
    query = query.where(Conversation.id < page.after) if page.after else query
    async with caller.transaction() as session:
        rows = (await session.execute(query.order_by(Conversation.id.desc()).limit(page.fetch))).all()
    return page.cut([shown(row) for row in rows], lambda each: each)


@router.get("/conversations/{conversation_id}", summary="A conversation")
async def get_conversation(conversation_id: UUID, caller: Reader) -> ConversationOut:
    """Its state, origin and totals."""
    return await show(caller, conversation_id)


@router.patch("/conversations/{conversation_id}", summary="Change a conversation")
async def change(conversation_id: UUID, body: ChangeBody, caller: Writer) -> ConversationOut:
    """Each field given replaces the whole field."""
    values = body.model_dump(exclude_unset=True)
    check_context(values.get("context_data"))
    async with caller.transaction() as session:
        conversation, _, _ = await find(session, caller.workspace_id, conversation_id)
        for name, value in values.items():
            if value is None and name != "user":
                raise InvalidRequest(f"{name} can't be null", field=name)
            setattr(conversation, name, value)
        conversation.updated_at = func.now()
    return await show(caller, conversation_id)


@router.delete("/conversations/{conversation_id}", summary="Delete a conversation", status_code=204)
async def remove(conversation_id: UUID, caller: Writer) -> None:
    """Really deletes it, with its messages, runs and events. One with an open run is refused: cancel that first."""
    async with caller.transaction() as session:
        row = await session.execute(
            select(Head.open_runs)
            .where(Head.workspace_id == caller.workspace_id, Head.conversation_id == conversation_id)
            .with_for_update(key_share=False)
        )
        open_runs = row.scalar_one_or_none()
        if open_runs is None:
            raise NotFound(f"there is no conversation {conversation_id}")
        if open_runs:
            raise Conflict("a run of this conversation is open; cancel it first")
        # A task that kept to it begins another one.
        whose = select(Conversation.task_id).where(Conversation.id == conversation_id).scalar_subquery()
        keeps = (Task.workspace_id == caller.workspace_id, Task.id == whose, Task.conversation_id == conversation_id)
        await session.execute(update(Task).where(*keeps).values(conversation_id=None))
        await session.execute(
            delete(Conversation).where(
                Conversation.workspace_id == caller.workspace_id, Conversation.id == conversation_id
            )
        )
        audit.record(session, caller.entry("conversation.delete", "conversation", conversation_id))


def refuse_later(body: BaseModel) -> None:
    """Refuse by name what a later version brings.

    Raises:
        NotAvailable: naming the field.
    """
    for name in LATER:
        if getattr(body, name, None) is not None:
            raise NotAvailable(f"{name} is not offered yet", field=name)


def attached(caller: Caller, ids: list[UUID]) -> list[UUID]:
    """The artifacts sent with a message; whoever sends one could have it read out, so must be allowed to read it.

    Raises:
        MissingScope: naming the scope.
    """
    if ids:
        caller.require("artifacts:read")
    return ids


def check_context(value: Json | None) -> None:
    """Refuse app state that no model could read.

    Raises:
        InvalidRequest: when it is too large.
    """
    if value and len(str(value)) > MAX_CONTEXT_BYTES:
        raise InvalidRequest(f"context_data must be at most {MAX_CONTEXT_BYTES} characters", field="context_data")


@router.post("/conversations/{conversation_id}/fork", summary="Copy a conversation", status_code=201)
async def fork(conversation_id: UUID, body: ForkBody, caller: Writer, key: Idempotent) -> ForkOut:
    """A new conversation with the messages up to one; with `message`, that one is replaced and answered."""
    copy = new_id()
    if body.attachments and not body.message:
        raise InvalidRequest("files are sent with a message; there is none", field="attachments")
    attachments = attached(caller, body.attachments)
    turn = Turn(body.message, attachments=attachments, principal_id=caller.principal.id) if body.message else None
    last = body.from_seq - 1 if turn else body.from_seq
    async with caller.database.engine_tx("fork") as connection:
        repeat = await key.claim(connection, caller, "conversation", copy)
        accepted = None if repeat else await _fork(connection, caller, conversation_id, last, turn, copy)
    if accepted and turn:
        caller.engine.welcome(accepted)
    made = await show(caller, repeat.uuid if repeat else copy)
    run_id = await caller.database.fetchval(FIRST_RUN, made.id) if turn else None
    return ForkOut(**dict(made), run_id=run_id)


FIRST_RUN = "select id from runs where conversation_id = $1 order by number limit 1"


async def _fork(
    connection: Connection, caller: Caller, conversation_id: UUID, last: int, turn: Turn | None, copy: UUID
) -> Accepted:
    return await conversations.fork(
        connection,
        caller.settings,
        caller.workspace_id,
        conversation_id,
        last,
        turn,
        inline=caller.engine.inline,
        copy_id=copy,
    )


# --- events, export ---------------------------------------------------------------------------------


@router.get(
    "/conversations/{conversation_id}/events",
    summary="Watch a conversation",
    responses=STREAM_RESPONSES,
    response_model=None,
)
async def conversation_events(conversation_id: UUID, caller: Reader, wanted: Events) -> Any:
    """Everything that happens in it, from the first event or from a cursor; the stream stays open."""
    async with caller.transaction() as session:
        await find(session, caller.workspace_id, conversation_id)
    if wanted.as_page:
        return await event_page(caller.engine, conversation_id, after=wanted.after, limit=wanted.limit)
    return sse(caller.engine, conversation_id, after=wanted.after)


class ExportOut(BaseModel):
    """A conversation with all its messages."""

    conversation: ConversationOut
    messages: list[MessageOut]


@router.get(
    "/conversations/{conversation_id}/export",
    summary="Export a conversation",
    response_model=ExportOut,
    responses={200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}},
)
async def export(
    conversation_id: UUID,
    caller: Reader,
    format: Annotated[Literal["json", "markdown"], Query(description="How it is written.")] = "json",
) -> Any:
    """Every message, as JSON or as Markdown."""
    async with caller.transaction() as session:
        row = await find(session, caller.workspace_id, conversation_id)
        messages = list(
            await session.scalars(
                select(Message).where(Message.conversation_id == conversation_id).order_by(Message.seq)
            )
        )
    about = shown(row)
    if format == "markdown":
        return Response(markdown_of(about, messages), media_type="text/markdown; charset=utf-8")
    items = [MessageOut.of(vars(message), conversation_id) for message in messages]
    return ExportOut(conversation=about, messages=items)


def markdown_of(about: ConversationOut, messages: list[Message]) -> str:
    """A conversation as Markdown: its title, then what was said."""
    said = [f"## {message.role}\n\n{_told(message)}" for message in messages if message.text]
    return "\n\n".join([f"# {about.title or 'Conversation'}", *said]) + "\n"


def _told(message: Message) -> str:
    files = files_of(message.body)
    lines = [
        f"- {file['media_type']}, {file['size']} bytes, artifact {file['artifact_id']}: {file['name']}"
        for file in files
    ]
    return "\n\n".join([message.text, *(["\n".join(["Files:", "", *lines])] if lines else [])])
