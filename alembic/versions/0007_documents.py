"""Documents and their chunks, searched by text and, where pgvector is, by vectors."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OWN = "workspace_id = nullif(current_setting('app.workspace', true), '')::uuid"
SEARCH = "setweight(to_tsvector('english', title || ' ' || heading), 'B') || to_tsvector('english', text)"
# Vectors have a table of their own, made only where the extension is or can be had: everything else works without it.
# A server that has no pgvector, or a role that may not create it, is no error.
VECTORS = f"""
do $$ begin
    if exists (select from pg_available_extensions where name = 'vector') then
        create extension if not exists vector;
        create table embeddings (
            workspace_id uuid not null,
            document_id uuid not null,
            number bigint not null,
            model text not null,
            dimensions bigint not null,
            embedding halfvec not null,
            primary key (document_id, number),
            foreign key (document_id, number) references chunks (document_id, number) on delete cascade
        ) with (toast_tuple_target = 8160);
        alter table embeddings alter column embedding set storage external;
        create index ix_embeddings_workspace_id on embeddings (workspace_id);
        alter table embeddings enable row level security;
        create policy workspace on embeddings using ({OWN});
    end if;
exception when others then
    raise notice 'documents are searched by text alone: %', sqlerrm;
end $$
"""


def upgrade() -> None:
    """Expand the schema."""
    op.create_table(
        "documents",
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'indexing'"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("embedding_model", sa.Text(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("principal_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state in ('indexing', 'ready', 'failed')", name=op.f("ck_documents_state")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_documents_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("workspace_id", "id", name=op.f("uq_documents_workspace_id_id")),
    )
    op.create_index(
        op.f("ix_documents_workspace_id_source"),
        "documents",
        ["workspace_id", "source"],
        unique=True,
        postgresql_where=sa.text("source is not null"),
    )
    op.create_index(
        op.f("ix_documents_next_attempt_at"),
        "documents",
        ["next_attempt_at"],
        postgresql_where=sa.text("state <> 'ready'"),
    )
    op.create_table(
        "chunks",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("heading", sa.Text(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=True),
        sa.Column("begins_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("search", postgresql.TSVECTOR(), sa.Computed(SEARCH, persisted=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "document_id"],
            ["documents.workspace_id", "documents.id"],
            name=op.f("fk_chunks_workspace_id_document_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "number", name=op.f("pk_chunks")),
    )
    op.create_index(op.f("ix_chunks_workspace_id"), "chunks", ["workspace_id"])
    op.create_index(op.f("ix_chunks_search"), "chunks", ["search"], postgresql_using="gin")
    for table in ("documents", "chunks"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy workspace on {table} using ({OWN})")
    op.execute(VECTORS)


def downgrade() -> None:
    """Take it back; the extension may be somebody else's too, and stays."""
    op.execute("drop table if exists embeddings")
    op.drop_table("chunks")
    op.drop_table("documents")
