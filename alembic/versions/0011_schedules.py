"""Schedules: runs that found nothing new, the report that a start is told, tasks in a stranger's words."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand the schema."""
    op.add_column("runs", sa.Column("unchanged", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("fires", sa.Column("told_run_id", sa.Uuid(), nullable=True))
    op.add_column("tasks", sa.Column("trusted", sa.Boolean(), server_default=sa.text("true"), nullable=False))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("tasks", "trusted")
    op.drop_column("fires", "told_run_id")
    op.drop_column("runs", "unchanged")
