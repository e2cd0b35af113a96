"""Credentials of tools, and the canaries of encryption keys."""

import sqlalchemy as sa
from alembic import op

from app.db import TENANT_ROLE

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "credentials",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("public", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("masks", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("token_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_no", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("refresher", sa.Uuid(), nullable=True),
        sa.Column("refreshing_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_credentials_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credentials")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_credentials_workspace_id_id")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_credentials_workspace_id_name")),
    )
    op.create_table(
        "canaries",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_canaries")),
    )
    op.execute("alter table credentials enable row level security")
    op.execute(f"create policy workspace on credentials using ({OWN})")
    op.execute("alter table canaries enable row level security")
    op.execute("create policy workspace on canaries using (true)")
    op.execute(f"""
        do $$ begin
            if exists (select from pg_roles where rolname = '{TENANT_ROLE}') then
                revoke insert, update, delete on canaries from {TENANT_ROLE};
            end if;
        end $$
    """)


def downgrade() -> None:
    """Take it back."""
    op.drop_table("canaries")
    op.drop_table("credentials")
