"""Artifacts: files that people upload and tools make."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "artifacts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_artifacts_workspace_id")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "conversation_id"],
            ["conversations.workspace_id", "conversations.id"],
            name=op.f("fk_artifacts_workspace_id_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_artifacts_workspace_id_id")),
    )
    op.create_index(
        op.f("ix_artifacts_conversation_id"),
        "artifacts",
        ["conversation_id"],
        postgresql_where=sa.text("conversation_id is not null"),
    )
    op.execute("alter table artifacts enable row level security")
    op.execute(f"create policy workspace on artifacts using ({OWN})")


def downgrade() -> None:
    """Take it back."""
    op.drop_table("artifacts")
