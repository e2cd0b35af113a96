"""The table of vectors, which is there only where pgvector is: everything but vector search works without it."""

from typing import Literal

from app.db import Connection, Database

# The same table as migration 0007 makes where the extension is at hand by then; a dropped extension took the column.
ENABLE = """
do $$ begin
    if exists (select from pg_available_extensions where name = 'vector') then
        create extension if not exists vector;
        if not exists (select from pg_attribute where attrelid = to_regclass('public.embeddings')
                       and attname = 'embedding' and not attisdropped) then
            drop table if exists embeddings;
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
            create policy workspace on embeddings
                using (workspace_id = nullif(current_setting('app.workspace', true), '')::uuid);
        end if;
    end if;
exception when others then
    raise notice 'documents are searched by text alone: %', sqlerrm;
end $$
"""
STATE = """
select case
    when exists (select from pg_attribute where attrelid = to_regclass('public.embeddings')
                 and attname = 'embedding' and not attisdropped) then 'ready'
    when exists (select from pg_available_extensions where name = 'vector') then 'available'
    else 'missing' end
"""


async def enable(connection: Connection) -> None:
    """Make the table where it can be made; without pgvector, or the right to create it, nothing happens."""
    await connection.execute(ENABLE)


async def state(database: Database) -> Literal["ready", "available", "missing"]:
    """Whether vectors can be stored: `available` says that pgvector is installed on the server and not yet in use."""
    return await database.fetchval(STATE)
