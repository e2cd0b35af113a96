"""Sources of tools: MCP servers and OpenAPI documents that are read again."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "tool_sources",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_tool_sources_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool_sources")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_tool_sources_workspace_id_id")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_tool_sources_workspace_id_name")),
    )
    op.create_index(
        op.f("ix_tool_sources_due_at"), "tool_sources", ["due_at"], postgresql_where=sa.text("due_at is not null")
    )
    op.execute("alter table tool_sources enable row level security")
    op.execute(f"create policy workspace on tool_sources using ({OWN})")
    op.add_column("tools", sa.Column("source_id", sa.Uuid(), nullable=True))
    op.add_column("tools", sa.Column("disabled_reason", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_tools_workspace_id_source_id"),
        "tools",
        "tool_sources",
        ["workspace_id", "source_id"],
        ["workspace_id", "id"],
    )
    op.create_index(
        op.f("ix_tools_source_id"), "tools", ["source_id"], postgresql_where=sa.text("source_id is not null")
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index(op.f("ix_tools_source_id"), table_name="tools")
    op.drop_constraint(op.f("fk_tools_workspace_id_source_id"), "tools")
    op.drop_column("tools", "disabled_reason")
    op.drop_column("tools", "source_id")
    op.drop_table("tool_sources")
