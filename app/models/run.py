"""Runs, the tool-call ledger and approvals."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, part_of_conversation, points_at, unique_in_workspace

LIVE = "state in ('queued', 'running', 'waiting')"


class Run(Owned, Base):
    """One execution of one turn of a conversation."""

    __tablename__ = "runs"
    __table_args__ = (
        unique_in_workspace(),
        part_of_conversation(),
        points_at("tasks", "task_id"),
        UniqueConstraint("conversation_id", "number"),
        CheckConstraint("state in ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled')", name="state"),
        CheckConstraint("(finished_at is not null) = (state in ('completed', 'failed', 'cancelled'))", name="finished"),
        CheckConstraint("(state = 'running') = (lease_until is not null)", name="lease"),
        # At most one live run per conversation, so a batched claim of `queued and ready` can't conflict.
        Index("uq_runs_ready", "conversation_id", unique=True, postgresql_where=text(f"ready and {LIVE}")),
        # By workspace, so that a claim can take turns between them.
        Index(
            "ix_runs_due",
            "lane",
            "workspace_id",
            text("priority desc"),
            "run_at",
            "id",
            postgresql_where=text("state = 'queued' and ready and concurrency_key is null"),
        ),
        Index(
            "ix_runs_due_keyed",
            "lane",
            "workspace_id",
            "concurrency_key",
            text("priority desc"),
            "run_at",
            postgresql_where=text("state = 'queued' and ready and concurrency_key is not null"),
        ),
        Index("ix_runs_lease", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_runs_deadline", "deadline_at", postgresql_where=text(f"deadline_at is not null and {LIVE}")),
        Index(
            "ix_runs_queue_deadline",
            "queue_deadline",
            postgresql_where=text("queue_deadline is not null and state = 'queued'"),
        ),
        Index(
            "ix_runs_concurrency",
            "workspace_id",
            "concurrency_key",
            postgresql_where=text("state = 'running' and concurrency_key is not null"),
        ),
        Index("ix_runs_depending", "task_id", postgresql_where=text("state = 'waiting' and started_at is null")),
        Index("ix_runs_breakers", "run_at", postgresql_where=text("breakers is not null and state = 'queued'")),
        Index(None, "task_id", "id", postgresql_where=text("task_id is not null")),
        Index("ix_runs_live", "workspace_id", "id", postgresql_where=text(LIVE)),
        Index(None, "parent_run_id", postgresql_where=text("parent_run_id is not null")),
    )

    conversation_id: Mapped[UUID]
    number: Mapped[int]
    parent_run_id: Mapped[UUID | None]
    root_run_id: Mapped[UUID]
    retry_of: Mapped[UUID | None]
    task_id: Mapped[UUID | None]
    fire_id: Mapped[UUID | None]
    state: Mapped[str]
    ready: Mapped[bool]
    waits: Mapped[int] = mapped_column(server_default=text("0"))
    reason: Mapped[str | None]
    lane: Mapped[str] = mapped_column(server_default=text("'default'"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    run_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queue_deadline: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    timeout_seconds: Mapped[float | None]
    ran_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    attempt: Mapped[int] = mapped_column(server_default=text("1"))
    retry: Mapped[dict[str, Any] | None]
    crash_count: Mapped[int] = mapped_column(server_default=text("0"))
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    write_no: Mapped[int] = mapped_column(server_default=text("0"))
    owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    breakers: Mapped[list[str] | None]
    cancel_requested_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None]
    detached: Mapped[bool] = mapped_column(server_default=text("false"))
    agent_version: Mapped[int | None]
    pins: Mapped[dict[str, Any] | None]
    model: Mapped[str | None]
    concurrency_key: Mapped[str | None]
    concurrency_limit: Mapped[int | None]
    principal_id: Mapped[UUID | None]
    notification: Mapped[dict[str, Any] | None]
    budget: Mapped[dict[str, Any] | None]
    output_schema: Mapped[dict[str, Any] | None]
    result: Mapped[str | None]
    output: Mapped[Any | None]
    unchanged: Mapped[bool] = mapped_column(server_default=text("false"))
    error: Mapped[dict[str, Any] | None]
    requests: Mapped[int] = mapped_column(server_default=text("0"))
    input_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    output_tokens: Mapped[int] = mapped_column(server_default=text("0"))
    cost_usd: Mapped[Decimal] = mapped_column(server_default=text("0"))
    cost_unknown: Mapped[bool] = mapped_column(server_default=text("false"))
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ToolCall(Owned, Base):
    """The ledger row of one tool call; its key is stable over recovery and retry."""

    __tablename__ = "tool_calls"
    __table_args__ = (
        part_of_conversation(),
        UniqueConstraint("conversation_id", "message_seq", "call_index", "sub_index", name="uq_tool_calls_effect"),
        CheckConstraint("state in ('proposed', 'started', 'done', 'failed', 'denied', 'unknown')", name="state"),
        Index(None, "run_id"),
        Index("ix_tool_calls_history", "workspace_id", "tool", "id"),
    )

    conversation_id: Mapped[UUID | None]
    message_seq: Mapped[int | None]
    call_index: Mapped[int | None]
    sub_index: Mapped[int | None] = mapped_column(server_default=text("0"))
    run_id: Mapped[UUID | None]
    tool_call_id: Mapped[str]
    tool: Mapped[str]
    tool_version: Mapped[int | None]
    arguments: Mapped[Any]
    args_sha256: Mapped[str]
    state: Mapped[str]
    idempotent: Mapped[bool]
    risk: Mapped[str]
    fence: Mapped[int]
    result: Mapped[Any | None]
    error: Mapped[str | None]
    artifact_id: Mapped[UUID | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    duration_ms: Mapped[float | None]
    cost_usd: Mapped[Decimal | None]


class Approval(Owned, Base):
    """A question to a person, bound to the hash of the tool and its arguments."""

    __tablename__ = "approvals"
    __table_args__ = (
        unique_in_workspace(),
        part_of_conversation(),
        points_at("runs", "run_id", ondelete="CASCADE"),
        CheckConstraint("kind in ('tool', 'budget', 'effect', 'question')", name="kind"),
        CheckConstraint("state in ('pending', 'approved', 'denied', 'expired', 'cancelled')", name="state"),
        CheckConstraint("on_expiry in ('tell', 'fail')", name="on_expiry"),
        Index(
            "uq_approvals_pending", "run_id", "kind", "subject", unique=True, postgresql_where=text("state = 'pending'")
        ),
        Index("ix_approvals_expiry", "expires_at", postgresql_where=text("state = 'pending'")),
    )

    conversation_id: Mapped[UUID]
    run_id: Mapped[UUID]
    kind: Mapped[str]
    subject: Mapped[str]
    tool: Mapped[str | None]
    arguments: Mapped[Any | None]
    args_sha256: Mapped[str | None]
    risk: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    expires_at: Mapped[datetime | None]
    on_expiry: Mapped[str] = mapped_column(server_default=text("'tell'"))
    decision: Mapped[Any | None]
    decided_by: Mapped[UUID | None]
    decided_at: Mapped[datetime | None]
    reason: Mapped[str | None]


class Hold(Owned, Base):
    """No run of its scope starts: paused (running ones go back to the queue) or draining (they finish)."""

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("scope in ('all', 'workspace', 'agent', 'task')", name="scope"),
        CheckConstraint("mode in ('pause', 'drain')", name="mode"),
        CheckConstraint("(ref is null) = (scope in ('all', 'workspace'))", name="ref"),
        UniqueConstraint("workspace_id", "scope", "ref", postgresql_nulls_not_distinct=True),
    )

    scope: Mapped[str]
    ref: Mapped[UUID | None]
    mode: Mapped[str]
    reason: Mapped[str | None]
    principal_id: Mapped[UUID | None]
