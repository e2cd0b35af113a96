"""Flow control: holds, and due runs by workspace and by concurrency key."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

QUEUED = "state = 'queued' and ready"


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "holds",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("ref", sa.Uuid(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("scope in ('all', 'workspace', 'agent', 'task')", name=op.f("ck_holds_scope")),
        sa.CheckConstraint("mode in ('pause', 'drain')", name=op.f("ck_holds_mode")),
        sa.CheckConstraint("(ref is null) = (scope in ('all', 'workspace'))", name=op.f("ck_holds_ref")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sa.UniqueConstraint(
            "workspace_id",
            "scope",
            "ref",
            name=op.f("uq_holds_workspace_id_scope_ref"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.execute("alter table holds enable row level security")
    op.execute(
        "create policy workspace on holds using"
        " (workspace_id = nullif(current_setting('app.workspace', true), '')::uuid)"
    )
    op.drop_index("ix_runs_due", table_name="runs")
    op.create_index(
        "ix_runs_due",
        "runs",
        ["lane", "workspace_id", sa.text("priority desc"), "run_at", "id"],
        postgresql_where=sa.text(f"{QUEUED} and concurrency_key is null"),
    )
    op.create_index(
        "ix_runs_due_keyed",
        "runs",
        ["lane", "workspace_id", "concurrency_key", sa.text("priority desc"), "run_at"],
        postgresql_where=sa.text(f"{QUEUED} and concurrency_key is not null"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_runs_due_keyed", table_name="runs")
    op.drop_index("ix_runs_due", table_name="runs")
    op.create_index(
        "ix_runs_due",
        "runs",
        ["lane", sa.text("priority desc"), "run_at", "id"],
        postgresql_where=sa.text(QUEUED),
    )
    op.drop_table("holds")
