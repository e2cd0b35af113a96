"""What inbound webhooks need beyond their receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand the schema."""
    op.add_column("tasks", sa.Column("refused_calls", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("receipts", sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("receipts", sa.Column("replay_of", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_receipts_starts",
        "receipts",
        ["task_id", "starts_at"],
        postgresql_where=sa.text("starts_at is not null"),
    )
    op.create_index(
        "ix_receipts_refused", "receipts", ["task_id", "id"], postgresql_where=sa.text("outcome = 'refused'")
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_receipts_refused", "receipts")
    op.drop_index("ix_receipts_starts", "receipts")
    op.drop_column("receipts", "replay_of")
    op.drop_column("receipts", "starts_at")
    op.drop_column("tasks", "refused_calls")
