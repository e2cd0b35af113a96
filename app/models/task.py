"""Tasks, their dependencies, fires and receipts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, points_at, unique_in_workspace

# Whether the run of the last fire of a task `t` has not ended.
LAST_IS_OPEN = """
exists (select from runs r where r.state in ('queued', 'running', 'waiting') and r.id = (
    select f.run_id from fires f where f.task_id = t.id and f.outcome = 'run' order by f.id desc limit 1))
"""


class Task(Owned, Base):
    """A stored intent: prompt, agent, trigger and notification config."""

    __tablename__ = "tasks"
    __table_args__ = (
        unique_in_workspace(),
        points_at("agents", "agent_id"),
        CheckConstraint("overlap in ('skip', 'queue', 'interrupt', 'allow')", name="overlap"),
        CheckConstraint("catch_up in ('latest', 'none', 'all')", name="catch_up"),
        CheckConstraint("conversation in ('new', 'same')", name="conversation"),
        Index(
            "ix_tasks_due",
            "next_fire_at",
            postgresql_where=text("enabled and deleted_at is null and next_fire_at is not null"),
        ),
    )

    task_type: Mapped[str]
    title: Mapped[str]
    prompt: Mapped[str]
    agent_id: Mapped[UUID]
    agent_version: Mapped[int | None]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    paused_reason: Mapped[str | None]
    schedule_expression: Mapped[str | None]
    interval_seconds: Mapped[int | None]
    run_at: Mapped[datetime | None]
    timezone: Mapped[str] = mapped_column(server_default=text("'UTC'"))
    overlap: Mapped[str] = mapped_column(server_default=text("'skip'"))
    catch_up: Mapped[str] = mapped_column(server_default=text("'latest'"))
    catch_up_window_seconds: Mapped[int] = mapped_column(server_default=text("86400"))
    jitter_seconds: Mapped[int] = mapped_column(server_default=text("0"))
    auto_pause_after: Mapped[int | None]
    next_fire_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    consecutive_failures: Mapped[int] = mapped_column(server_default=text("0"))
    trusted: Mapped[bool] = mapped_column(server_default=text("true"))
    trigger_config: Mapped[dict[str, Any] | None]
    notification_config: Mapped[dict[str, Any] | None]
    input: Mapped[Any | None]
    context_data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    attachments: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    conversation: Mapped[str] = mapped_column(server_default=text("'new'"))
    conversation_id: Mapped[UUID | None]
    concurrency_key: Mapped[str | None]
    concurrency_limit: Mapped[int | None]
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    retry: Mapped[dict[str, Any] | None]
    timeout_seconds: Mapped[float | None]
    queue_timeout_seconds: Mapped[float | None]
    deadline: Mapped[datetime | None]
    budget: Mapped[dict[str, Any] | None]
    refused_calls: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_by: Mapped[UUID | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class TaskDependency(Base):
    """One task waits for another; `on_outcome` says which endings count."""

    __tablename__ = "task_dependencies"
    __table_args__ = (
        points_at("tasks", "task_id", ondelete="CASCADE"),
        points_at("tasks", "depends_on_id", ondelete="CASCADE"),
        CheckConstraint("on_outcome in ('success', 'any')", name="on_outcome"),
        Index(None, "depends_on_id"),
    )

    task_id: Mapped[UUID] = mapped_column(primary_key=True)
    depends_on_id: Mapped[UUID] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    on_outcome: Mapped[str] = mapped_column(server_default=text("'success'"))


class Fire(Owned, Base):
    """One start of a task by its schedule or by hand, with its outcome."""

    __tablename__ = "fires"
    __table_args__ = (
        points_at("tasks", "task_id", ondelete="CASCADE"),
        CheckConstraint("kind in ('schedule', 'manual')", name="kind"),
        CheckConstraint("outcome in ('run', 'skipped', 'missed')", name="outcome"),
        Index("uq_fires_due", "task_id", "due_at", unique=True, postgresql_where=text("kind = 'schedule'")),
        Index(None, "task_id", "id"),
    )

    task_id: Mapped[UUID]
    kind: Mapped[str]
    due_at: Mapped[datetime]
    due_until: Mapped[datetime | None]
    count: Mapped[int] = mapped_column(server_default=text("1"))
    outcome: Mapped[str]
    reason: Mapped[str | None]
    run_id: Mapped[UUID | None]
    told_run_id: Mapped[UUID | None]
    conversation_id: Mapped[UUID | None]


class Receipt(Owned, Base):
    """One inbound webhook call with its outcome."""

    __tablename__ = "receipts"
    __table_args__ = (
        points_at("tasks", "task_id", ondelete="CASCADE"),
        CheckConstraint("outcome in ('run', 'duplicate', 'filtered', 'refused')", name="outcome"),
        # Only calls that counted take the key: a forged call can't burn a real delivery id.
        Index(
            "uq_receipts_key",
            "task_id",
            "receipt_key",
            unique=True,
            postgresql_where=text("receipt_key is not null and outcome in ('run', 'filtered')"),
        ),
        Index(None, "task_id", "id"),
        Index("ix_receipts_starts", "task_id", "starts_at", postgresql_where=text("starts_at is not null")),
        Index("ix_receipts_refused", "task_id", "id", postgresql_where=text("outcome = 'refused'")),
    )

    task_id: Mapped[UUID]
    receipt_key: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    outcome: Mapped[str]
    reason: Mapped[str | None]
    run_id: Mapped[UUID | None]
    conversation_id: Mapped[UUID | None]
    starts_at: Mapped[datetime | None]
    replay_of: Mapped[UUID | None]
    body: Mapped[Any | None]
