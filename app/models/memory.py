"""Memories: what agents, tasks and people are to remember."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, Index, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, points_at, unique_in_workspace

# English stems find more in English; words of other languages are cut alike on both sides, so they still meet.
SEARCHED = "setweight(to_tsvector('english', coalesce(key, '')), 'A') || setweight(to_tsvector('english', text), 'B')"


class Memory(Owned, Base):
    """One thing to remember; it belongs to one agent, task or person, and is gone with it.

    Attributes:
        user: A person as the application that started the conversation calls them; others are principals.
        key: Names it among its owner's: remembering under the same key replaces it.
        trusted: Whether it came from a trusted conversation or a person, and not from a webhook's payload.
        run_id: The run that wrote it last, None when a person did.
        written_by: On whose behalf it was written last.
        search: Words of key and text, for recall.
    """

    __tablename__ = "memories"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        points_at("agents", "agent_id", ondelete="CASCADE"),
        points_at("tasks", "task_id", ondelete="CASCADE"),
        points_at("principals", "principal_id", ondelete="CASCADE"),
        CheckConstraint('num_nonnulls(agent_id, task_id, principal_id, "user") = 1', name="owner"),
        Index(
            "uq_memories_key",
            "workspace_id",
            "agent_id",
            "task_id",
            "principal_id",
            "user",
            "key",
            unique=True,
            postgresql_where=sql("key is not null"),
            postgresql_nulls_not_distinct=True,
        ),
        Index(None, "agent_id", postgresql_where=sql("agent_id is not null")),
        Index(None, "task_id", postgresql_where=sql("task_id is not null")),
        Index(None, "principal_id", postgresql_where=sql("principal_id is not null")),
        Index(None, "workspace_id", "user", postgresql_where=sql('"user" is not null')),
        Index(None, "search", postgresql_using="gin"),
    )

    agent_id: Mapped[UUID | None]
    task_id: Mapped[UUID | None]
    principal_id: Mapped[UUID | None]
    user: Mapped[str | None]
    key: Mapped[str | None]
    text: Mapped[str]
    trusted: Mapped[bool] = mapped_column(server_default=sql("true"))
    conversation_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    written_by: Mapped[UUID | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    search: Mapped[Any] = mapped_column(TSVECTOR, Computed(SEARCHED, persisted=True), deferred=True)
