"""Alembic's entry: one connection, one migrator at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.embedded import with_running_servers
from app.errors import DatabaseUnavailable, ParleyError
from app.models import Base
from app.settings import Settings, place_of

MIGRATION_LOCK = 7_031_995
# Made only where pgvector is, so no model describes it.
OPTIONAL_TABLES = {"embeddings"}


def run(connection: Connection) -> None:
    """Migrate under an advisory lock, so that two processes that start together do it once."""
    connection.execute(text("select pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=False,
        include_name=lambda name, kind, _: kind != "table" or name not in OPTIONAL_TABLES,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    """Open the one connection."""
    dsn = context.config.attributes.get("dsn") or with_running_servers(Settings.load()).dsn()
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    except OSError as error:
        said = f"PostgreSQL can't be reached at {place_of(dsn)} (DATABASE_URL): {error}"
        raise DatabaseUnavailable(said) from error
    finally:
        await engine.dispose()


def main() -> None:
    """Migrate; from Alembic's own command an error with a name is one line."""
    try:
        asyncio.run(connect_and_run())
    except ParleyError as error:
        if "dsn" in context.config.attributes:
            raise
        raise SystemExit(f"alembic: {error.detail}") from None


main()
