"""Tasks that wait for tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand the schema."""
    op.create_index(op.f("ix_task_dependencies_depends_on_id"), "task_dependencies", ["depends_on_id"])
    op.create_index(
        "ix_runs_depending",
        "runs",
        ["task_id"],
        postgresql_where=sa.text("state = 'waiting' and started_at is null"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_runs_depending", "runs")
    op.drop_index(op.f("ix_task_dependencies_depends_on_id"), "task_dependencies")
