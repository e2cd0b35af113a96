"""Outgoing notifications: the outbox, where its messages went, and who wants no more of them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, part_of_conversation, points_at, unique_in_workspace


class Delivery(Owned, Base):
    """One outgoing notification to one address."""

    __tablename__ = "deliveries"
    __table_args__ = (
        part_of_conversation(),
        CheckConstraint("state in ('pending', 'sending', 'sent', 'dead', 'suppressed')", name="state"),
        # One per event and address, so a second progress or approval is not swallowed.
        Index(
            "uq_deliveries_event",
            "conversation_id",
            "event_seq",
            "channel",
            "address",
            unique=True,
            postgresql_where=text("resend_of is null and event_seq is not null"),
        ),
        Index(
            "uq_deliveries_dedup",
            "workspace_id",
            "dedup_key",
            unique=True,
            postgresql_where=text("dedup_key is not null"),
        ),
        Index("ix_deliveries_due", "next_attempt_at", postgresql_where=text("state = 'pending'")),
        Index("ix_deliveries_lease", "lease_until", postgresql_where=text("state = 'sending'")),
        Index(None, "workspace_id", "id"),
        Index(None, "run_id"),
        # What was told of a task lately, for its rules.
        Index(None, "task_id", "created_at", postgresql_where=text("task_id is not null")),
    )

    conversation_id: Mapped[UUID | None]
    event_seq: Mapped[int | None]
    event: Mapped[str]
    resend_of: Mapped[UUID | None]
    dedup_key: Mapped[str | None]
    fingerprint: Mapped[str | None]
    admitted_at: Mapped[datetime | None]
    held: Mapped[bool] = mapped_column(server_default=text("false"))
    run_id: Mapped[UUID | None]
    task_id: Mapped[UUID | None]
    channel: Mapped[str]
    address: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    reason: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=text("now()"))
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    message_id: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    sent_at: Mapped[datetime | None]


class SlackThread(Owned, Base):
    """The thread of a conversation in one Slack channel.

    Until its first message is posted it only reserves the place: `opening_until` says for how long.
    """

    __tablename__ = "slack_threads"
    __table_args__ = (
        unique_in_workspace(),
        part_of_conversation(),
        UniqueConstraint("conversation_id", "address"),
        Index("uq_slack_threads_thread", "team", "channel", "thread_ts", unique=True),
    )

    conversation_id: Mapped[UUID]
    address: Mapped[str]
    team: Mapped[str | None]
    channel: Mapped[str | None]
    thread_ts: Mapped[str | None]
    opening_until: Mapped[datetime | None]


class SlackMessage(Owned, Base):
    """A message of ours that may be changed later: a run's progress, or a question until it is decided."""

    __tablename__ = "slack_messages"
    __table_args__ = (
        points_at("slack_threads", "thread_id", ondelete="CASCADE"),
        UniqueConstraint("thread_id", "ts"),
        Index(None, "run_id"),
    )

    thread_id: Mapped[UUID]
    ts: Mapped[str]
    run_id: Mapped[UUID]
    event: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class ReplyAddress(Owned, Base):
    """Whose answer a mail to one of our own addresses is, for which conversation; only the token's SHA-256 is kept."""

    __tablename__ = "reply_addresses"
    __table_args__ = (part_of_conversation(), UniqueConstraint("conversation_id", "address"))

    conversation_id: Mapped[UUID]
    address: Mapped[str]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Mute(Owned, Base):
    """An address that wants no more of a task's messages, or of a conversation's."""

    __tablename__ = "mutes"
    __table_args__ = (
        in_workspace(),
        points_at("tasks", "task_id", ondelete="CASCADE"),
        part_of_conversation(),
        CheckConstraint("num_nonnulls(task_id, conversation_id) = 1", name="of"),
        Index("uq_mutes_task", "task_id", "channel", "address", unique=True),
        Index("uq_mutes_conversation", "conversation_id", "channel", "address", unique=True),
    )

    channel: Mapped[str]
    address: Mapped[str]
    task_id: Mapped[UUID | None]
    conversation_id: Mapped[UUID | None]
