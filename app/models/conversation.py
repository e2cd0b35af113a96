"""Conversations, their heads, messages, inputs and events."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, part_of_conversation, points_at, unique_in_workspace


class Conversation(Owned, Base):
    """The row every interaction is."""

    __tablename__ = "conversations"
    __table_args__ = (
        unique_in_workspace(),
        points_at("agents", "agent_id"),
        points_at("tasks", "task_id"),
        CheckConstraint("on_message in ('enqueue', 'reject', 'interrupt', 'steer')", name="on_message"),
        Index(
            "uq_conversations_correlation",
            "task_id",
            "correlation_key",
            unique=True,
            postgresql_where=sql("correlation_key is not null"),
        ),
        Index(None, "task_id", postgresql_where=sql("task_id is not null")),
        Index(None, "parent_id", postgresql_where=sql("parent_id is not null")),
    )

    pattern_type: Mapped[str]
    title: Mapped[str]
    agent_id: Mapped[UUID]
    agent_version: Mapped[int | None]
    origin: Mapped[str]
    trusted: Mapped[bool]
    user: Mapped[str | None]
    parent_id: Mapped[UUID | None]
    parent_run_id: Mapped[UUID | None]
    root_id: Mapped[UUID]
    depth: Mapped[int] = mapped_column(server_default=sql("0"))
    task_id: Mapped[UUID | None]
    fire_id: Mapped[UUID | None]
    forked_from_id: Mapped[UUID | None]
    forked_at_seq: Mapped[int | None]
    correlation_key: Mapped[str | None]
    context_data: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'"))
    on_message: Mapped[str] = mapped_column(server_default=sql("'enqueue'"))
    budget: Mapped[dict[str, Any] | None]
    created_by: Mapped[UUID | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Head(Base):
    """The one counter row per conversation: taken under lock by every writer, so commit order is number order."""

    __tablename__ = "heads"
    __table_args__ = (part_of_conversation(), {"postgresql_with": {"fillfactor": 70}})

    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    state: Mapped[str] = mapped_column(server_default=sql("'idle'"))
    active_run_id: Mapped[UUID | None]
    open_runs: Mapped[int] = mapped_column(server_default=sql("0"))
    message_seq: Mapped[int] = mapped_column(server_default=sql("0"))
    event_seq: Mapped[int] = mapped_column(server_default=sql("0"))
    run_no: Mapped[int] = mapped_column(server_default=sql("0"))
    requests: Mapped[int] = mapped_column(server_default=sql("0"))
    input_tokens: Mapped[int] = mapped_column(server_default=sql("0"))
    output_tokens: Mapped[int] = mapped_column(server_default=sql("0"))
    cost_usd: Mapped[Decimal] = mapped_column(server_default=sql("0"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Message(Base):
    """One Pydantic AI `ModelMessage` of a conversation."""

    __tablename__ = "messages"
    __table_args__ = (
        part_of_conversation(),
        Index("ix_messages_text", sql("to_tsvector('simple', left(text, 20000))"), postgresql_using="gin"),
    )

    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    run_id: Mapped[UUID]
    fence: Mapped[int]
    role: Mapped[str]
    text: Mapped[str]
    body: Mapped[dict[str, Any]]
    format: Mapped[int] = mapped_column(server_default=sql("1"))
    interrupted: Mapped[bool] = mapped_column(server_default=sql("false"))
    model: Mapped[str | None]
    input_tokens: Mapped[int] = mapped_column(server_default=sql("0"))
    output_tokens: Mapped[int] = mapped_column(server_default=sql("0"))
    cost_usd: Mapped[Decimal | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Input(Owned, Base):
    """An accepted message that waits here until the run that consumes it writes it into `messages`."""

    __tablename__ = "inputs"
    __table_args__ = (
        part_of_conversation(),
        CheckConstraint("kind in ('prompt', 'steer', 'answer', 'event')", name="kind"),
        Index("uq_inputs_source", "source", "source_id", unique=True, postgresql_where=sql("source_id is not null")),
        Index(None, "conversation_id", postgresql_where=sql("consumed_seq is null")),
        Index(None, "run_id"),
    )

    conversation_id: Mapped[UUID]
    run_id: Mapped[UUID]
    kind: Mapped[str]
    body: Mapped[dict[str, Any]]
    principal_id: Mapped[UUID | None]
    source: Mapped[str | None]
    source_id: Mapped[str | None]
    consumed_seq: Mapped[int | None]


class Event(Base):
    """One entry of a conversation's permanent, gap-free log; message and tool events hold references."""

    __tablename__ = "events"
    __table_args__ = (part_of_conversation(), Index(None, "run_id", "seq"))

    conversation_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    run_id: Mapped[UUID]
    type: Mapped[str]
    ref: Mapped[int | None]
    call_index: Mapped[int | None]
    payload: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'"))
    at: Mapped[datetime] = mapped_column(server_default=func.now())
