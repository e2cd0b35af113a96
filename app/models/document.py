"""Documents and their chunks: what agents can look up.

The vectors of chunks are in the table `embeddings`, which exists only where pgvector does (`app.knowledge.vectors`).
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, points_at, unique_in_workspace

SEARCH = "setweight(to_tsvector('english', title || ' ' || heading), 'B') || to_tsvector('english', text)"


class Document(Owned, Base):
    """A text that agents can search; it belongs to its workspace, whoever added it."""

    __tablename__ = "documents"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        CheckConstraint("state in ('indexing', 'ready', 'failed')", name="state"),
        Index(None, "workspace_id", "source", unique=True, postgresql_where=text("source is not null")),
        Index(None, "next_attempt_at", postgresql_where=text("state <> 'ready'")),
    )

    title: Mapped[str]
    source: Mapped[str | None]
    media_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    content: Mapped[str] = mapped_column(deferred=True)
    tags: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
    trusted: Mapped[bool]
    version: Mapped[int]
    chunks: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=text("'indexing'"))
    reason: Mapped[str | None]
    embedding_model: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    conversation_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    principal_id: Mapped[UUID | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Chunk(Base):
    """A part of a document, as long as an answer needs; the title is repeated so that it counts in the search."""

    __tablename__ = "chunks"
    __table_args__ = (
        points_at("documents", "document_id", ondelete="CASCADE"),
        Index(None, "workspace_id"),
        Index(None, "search", postgresql_using="gin"),
    )

    workspace_id: Mapped[UUID]
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    heading: Mapped[str]
    page: Mapped[int | None]
    begins_at: Mapped[int]
    ends_at: Mapped[int]
    text: Mapped[str]
    search: Mapped[str] = mapped_column(TSVECTOR, Computed(SEARCH, persisted=True))
