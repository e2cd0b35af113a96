"""Answers that people sent from outside."""

from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, part_of_conversation


class Answer(Owned, Base):
    """One mail, Slack message or button that answered a conversation, and what became of it.

    Who is refused is told so once per conversation: `told`.
    """

    __tablename__ = "answers"
    __table_args__ = (
        part_of_conversation(),
        CheckConstraint("outcome in ('message', 'decision', 'refused')", name="outcome"),
        UniqueConstraint("conversation_id", "channel", "source_id"),
        Index(None, "conversation_id", "id"),
        Index("uq_answers_told", "conversation_id", "channel", "sender", unique=True, postgresql_where=text("told")),
    )

    conversation_id: Mapped[UUID]
    channel: Mapped[str]
    source_id: Mapped[str]
    sender: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    run_id: Mapped[UUID | None]
    principal_id: Mapped[UUID | None]
    told: Mapped[bool] = mapped_column(server_default=text("false"))
