"""Outgoing notifications: the outbox."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, part_of_conversation


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
    )

    conversation_id: Mapped[UUID | None]
    event_seq: Mapped[int | None]
    event: Mapped[str]
    resend_of: Mapped[UUID | None]
    dedup_key: Mapped[str | None]
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
