"""Artifacts: files that people upload and tools make."""

from uuid import UUID

from sqlalchemy import Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, part_of_conversation, unique_in_workspace


class Artifact(Owned, Base):
    """A file with its content; one that a run made belongs to its conversation and disappears with it."""

    __tablename__ = "artifacts"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        part_of_conversation(),
        Index(None, "conversation_id", postgresql_where=text("conversation_id is not null")),
    )

    name: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    conversation_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]
    principal_id: Mapped[UUID | None]
