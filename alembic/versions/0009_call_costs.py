"""What a tool call cost, the calls of a tool newest first, and a tool's own approval policy."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand the schema."""
    op.add_column("tool_calls", sa.Column("cost_usd", sa.Numeric(24, 12), nullable=True))
    op.create_index("ix_tool_calls_history", "tool_calls", ["workspace_id", "tool", "id"])
    op.add_column("tools", sa.Column("approval", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("tools", "approval")
    op.drop_index("ix_tool_calls_history", "tool_calls")
    op.drop_column("tool_calls", "cost_usd")
