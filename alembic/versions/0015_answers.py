"""Answers from mail and Slack."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "answers",
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("told", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("outcome in ('message', 'decision', 'refused')", name=op.f("ck_answers_outcome")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_answers_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_answers")),
        sa.UniqueConstraint(
            "conversation_id", "channel", "source_id", name=op.f("uq_answers_conversation_id_channel_source_id")
        ),
    )
    op.create_index(op.f("ix_answers_conversation_id_id"), "answers", ["conversation_id", "id"])
    op.create_index(
        "uq_answers_told",
        "answers",
        ["conversation_id", "channel", "sender"],
        unique=True,
        postgresql_where=sa.text("told"),
    )
    op.execute("alter table answers enable row level security")
    op.execute(f"create policy workspace on answers using ({OWN})")


def downgrade() -> None:
    """Take it back."""
    op.drop_table("answers")
