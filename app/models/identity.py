"""Workspaces, principals, API keys, the audit log and idempotency keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, new_id, points_at, unique_in_workspace


class Workspace(Base):
    """A tenant. `default` exists from the start."""

    __tablename__ = "workspaces"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    notification_rules: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Principal(Owned, Base):
    """Who acts: an API key, a user or the system itself."""

    __tablename__ = "principals"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        CheckConstraint("kind in ('key', 'user', 'system')", name="kind"),
    )

    kind: Mapped[str]
    name: Mapped[str]
    email: Mapped[str | None]
    slack_user_id: Mapped[str | None]
    timezone: Mapped[str | None]


class ApiKey(Owned, Base):
    """A key of the form `parley_<id>_<secret>`; only the secret's SHA-256 is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (points_at("principals", "principal_id", ondelete="CASCADE"),)

    principal_id: Mapped[UUID]
    name: Mapped[str]
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditEntry(Owned, Base):
    """Who did what; only ever inserted."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "workspace_id", "id"),)

    principal_id: Mapped[UUID | None]
    action: Mapped[str]
    subject_kind: Mapped[str]
    subject_id: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    request_id: Mapped[str | None]
    address: Mapped[str | None]


class Idempotency(Base):
    """What an Idempotency-Key made; inserted in the creating transaction."""

    __tablename__ = "idempotency"
    __table_args__ = (Index(None, "created_at"),)

    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    principal_id: Mapped[UUID] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    resource_kind: Mapped[str]
    resource_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WorkerProcess(Base):
    """A worker, API or scheduler process that was alive at `seen_at`. For display only: leases are on the runs."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    slots: Mapped[int]
    running: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
