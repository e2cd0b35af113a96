"""Threads, reply addresses and mutes of notifications."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"
TABLES = ("slack_threads", "slack_messages", "reply_addresses", "mutes")


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "slack_threads",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("thread_ts", sa.Text(), nullable=True),
        sa.Column("opening_until", sa.DateTime(timezone=True), nullable=True),
        *_owned("slack_threads"),
        _part_of("slack_threads", "conversation_id", "conversations"),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_slack_threads_workspace_id_id")),
        sa.UniqueConstraint("conversation_id", "address", name=op.f("uq_slack_threads_conversation_id_address")),
    )
    op.create_index("uq_slack_threads_thread", "slack_threads", ["team", "channel", "thread_ts"], unique=True)
    op.create_table(
        "slack_messages",
        sa.Column("thread_id", sa.Uuid(), nullable=False),
        sa.Column("ts", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        *_owned("slack_messages"),
        _part_of("slack_messages", "thread_id", "slack_threads"),
        sa.UniqueConstraint("thread_id", "ts", name=op.f("uq_slack_messages_thread_id_ts")),
    )
    op.create_index(op.f("ix_slack_messages_run_id"), "slack_messages", ["run_id"])
    op.create_table(
        "reply_addresses",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        *_owned("reply_addresses"),
        _part_of("reply_addresses", "conversation_id", "conversations"),
        sa.UniqueConstraint("conversation_id", "address", name=op.f("uq_reply_addresses_conversation_id_address")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_reply_addresses_token_sha256")),
    )
    op.create_table(
        "mutes",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        *_owned("mutes"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_mutes_workspace_id")),
        _part_of("mutes", "task_id", "tasks"),
        _part_of("mutes", "conversation_id", "conversations"),
        sa.CheckConstraint("num_nonnulls(task_id, conversation_id) = 1", name=op.f("ck_mutes_of")),
    )
    for of in ("task", "conversation"):
        op.create_index(f"uq_mutes_{of}", "mutes", [f"{of}_id", "channel", "address"], unique=True)
    op.add_column("workspaces", sa.Column("notification_rules", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("deliveries", sa.Column("fingerprint", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("deliveries", sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        op.f("ix_deliveries_task_id_created_at"),
        "deliveries",
        ["task_id", "created_at"],
        postgresql_where=sa.text("task_id is not null"),
    )
    for table in TABLES:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy workspace on {table} using ({OWN})")


def downgrade() -> None:
    """Take it back."""
    for table in reversed(TABLES):
        op.drop_table(table)
    op.drop_index(op.f("ix_deliveries_task_id_created_at"), table_name="deliveries")
    for column in ("held", "admitted_at", "fingerprint"):
        op.drop_column("deliveries", column)
    op.drop_column("workspaces", "notification_rules")


def _owned(table: str) -> list[Any]:
    """What every row of a workspace has."""
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    ]


def _part_of(table: str, column: str, whole: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["workspace_id", column],
        [f"{whole}.workspace_id", f"{whole}.id"],
        name=op.f(f"fk_{table}_workspace_id_{column}"),
        ondelete="CASCADE",
    )
