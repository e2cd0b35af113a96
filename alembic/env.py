"""Alembic's entry: one connection, one migrator at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.embedded import with_running_servers
from app.models import Base
from app.settings import Settings

MIGRATION_LOCK = 7_031_995


def run(connection: Connection) -> None:
    """Migrate under an advisory lock, so that two processes that start together do it once."""
    connection.execute(text("select pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=False)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    """Open the one connection."""
    dsn = context.config.attributes.get("dsn") or with_running_servers(Settings.load()).dsn()
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(connect_and_run())
