"""Credentials, and the canaries that tell whether the encryption keys are the right ones."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, unique_in_workspace


class Credential(Owned, Base):
    """What a tool needs to be let in; its secrets are sealed.

    Attributes:
        public: What may be shown as it is.
        masks: What is shown of the secrets.
        secret: The secrets, sealed.
        token: The access token of an OAuth credential, sealed.
        token_no: Rises with each token and each change of the secret: who fetched a token for an older one is late.
        refresher: Who is fetching a token just now, until `refreshing_until`.
    """

    __tablename__ = "credentials"
    __table_args__ = (unique_in_workspace(), in_workspace(), UniqueConstraint("workspace_id", "name"))

    name: Mapped[str]
    kind: Mapped[str]
    public: Mapped[dict[str, Any]]
    masks: Mapped[dict[str, Any]]
    secret: Mapped[str]
    token: Mapped[str | None]
    token_expires_at: Mapped[datetime | None]
    token_no: Mapped[int] = mapped_column(server_default=text("0"))
    refresher: Mapped[UUID | None]
    refreshing_until: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Canary(Base):
    """A known text sealed with one encryption key: when it can't be opened, that key is another one now."""

    __tablename__ = "canaries"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
