"""Memories: what agents, tasks and people are to remember."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"
SEARCHED = "setweight(to_tsvector('english', coalesce(key, '')), 'A') || setweight(to_tsvector('english', text), 'B')"


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "memories",
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("trusted", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("written_by", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("search", postgresql.TSVECTOR(), sa.Computed(SEARCHED, persisted=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint('num_nonnulls(agent_id, task_id, principal_id, "user") = 1', name=op.f("ck_memories_owner")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_memories_workspace_id")),
        *(
            sa.ForeignKeyConstraint(
                ["workspace_id", column],
                [f"{table}.workspace_id", f"{table}.id"],
                name=op.f(f"fk_memories_workspace_id_{column}"),
                ondelete="CASCADE",
            )
            for table, column in (("agents", "agent_id"), ("tasks", "task_id"), ("principals", "principal_id"))
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memories")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_memories_workspace_id_id")),
    )
    op.create_index(
        "uq_memories_key",
        "memories",
        ["workspace_id", "agent_id", "task_id", "principal_id", "user", "key"],
        unique=True,
        postgresql_where=sa.text("key is not null"),
        postgresql_nulls_not_distinct=True,
    )
    for column in ("agent_id", "task_id", "principal_id"):
        op.create_index(
            op.f(f"ix_memories_{column}"),
            "memories",
            [column],
            postgresql_where=sa.text(f"{column} is not null"),
        )
    op.create_index(
        op.f("ix_memories_workspace_id_user"),
        "memories",
        ["workspace_id", "user"],
        postgresql_where=sa.text('"user" is not null'),
    )
    op.create_index(op.f("ix_memories_search"), "memories", ["search"], postgresql_using="gin")
    op.execute("alter table memories enable row level security")
    op.execute(f"create policy workspace on memories using ({OWN})")


def downgrade() -> None:
    """Take it back."""
    op.drop_table("memories")
