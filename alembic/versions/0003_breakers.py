"""Circuit breakers of model providers, and the runs that wait for one."""

import sqlalchemy as sa
from alembic import op

from app.db import TENANT_ROLE

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "breakers",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("opens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_id", sa.Uuid(), nullable=True),
        sa.Column("probe_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(opened_at is null) = (probe_at is null)", name=op.f("ck_breakers_probe_at")),
        sa.CheckConstraint("(probe_id is null) = (probe_until is null)", name=op.f("ck_breakers_probe")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_breakers")),
    )
    op.execute("alter table breakers enable row level security")
    op.execute("create policy workspace on breakers using (true)")
    op.execute(f"""
        do $$ begin
            if exists (select from pg_roles where rolname = '{TENANT_ROLE}') then
                revoke insert, update, delete on breakers from {TENANT_ROLE};
            end if;
        end $$
    """)
    op.add_column("runs", sa.Column("breakers", sa.ARRAY(sa.Text()), nullable=True))
    op.create_index(
        "ix_runs_breakers", "runs", ["run_at"], postgresql_where=sa.text("breakers is not null and state = 'queued'")
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_runs_breakers", table_name="runs")
    op.drop_column("runs", "breakers")
    op.drop_table("breakers")
