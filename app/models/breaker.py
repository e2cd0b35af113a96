"""Circuit breakers of model providers."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base


class Breaker(Base):
    """A provider and credential that failed lately, shared by all processes; no row says that all is well.

    Keys and addresses of providers are settings, so a breaker belongs to no workspace.
    """

    __tablename__ = "breakers"
    __table_args__ = (
        CheckConstraint("(opened_at is null) = (probe_at is null)", name="probe_at"),
        CheckConstraint("(probe_id is null) = (probe_until is null)", name="probe"),
    )

    key: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str]
    address: Mapped[str]
    failures: Mapped[int]
    opens: Mapped[int] = mapped_column(server_default=text("0"))
    error: Mapped[str | None]
    opened_at: Mapped[datetime | None]
    probe_at: Mapped[datetime | None]
    probe_id: Mapped[UUID | None]
    probe_until: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
