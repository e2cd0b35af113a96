"""The suite's databases: a template that Alembic builds once, a clone of it for every process of the suite."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from alembic import command
from alembic.config import Config

from app.models import Base

ROOT = Path(__file__).parents[1]
BUILD_LOCK = 7_031_996


def dsn_of(admin_dsn: str, name: str) -> str:
    """The DSN of another database of the same cluster."""
    return urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{name}"))


def template_name() -> str:
    """A template is never stale: its name changes with the migrations."""
    content = b"".join(path.read_bytes() for path in sorted((ROOT / "alembic").rglob("*.py")))
    return f"parley_template_{hashlib.sha256(content).hexdigest()[:12]}_test"


@asynccontextmanager
async def admin(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def clone(admin_dsn: str, name: str) -> str:
    """A fresh copy of the template."""
    async with admin(admin_dsn) as connection:
        await connection.execute("select pg_advisory_lock($1)", BUILD_LOCK)
        await _ensure_template(connection, admin_dsn)
        await connection.execute(f'drop database if exists "{name}" with (force)')
        await connection.execute(f'create database "{name}" template "{template_name()}"')
    return dsn_of(admin_dsn, name)


async def drop(admin_dsn: str, name: str) -> None:
    async with admin(admin_dsn) as connection:
        await connection.execute(f'drop database if exists "{name}" with (force)')


async def _ensure_template(connection: Any, admin_dsn: str) -> None:
    name = template_name()
    if await connection.fetchval("select exists (select from pg_database where datname = $1)", name):
        return
    unfinished = f"parley_unfinished_{name}"
    await connection.execute(f'drop database if exists "{unfinished}" with (force)')
    await connection.execute(f'create database "{unfinished}"')
    await asyncio.to_thread(migrate, dsn_of(admin_dsn, unfinished))
    await connection.execute(f'alter database "{unfinished}" rename to "{name}"')


def migrate(dsn: str) -> None:
    """`alembic upgrade head` on a database."""
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["dsn"] = dsn
    command.upgrade(config, "head")


# Children before parents. Most tables are empty, and DELETE on those costs next to nothing; TRUNCATE makes files.
EMPTY = ";".join(f'delete from "{table.name}"' for table in reversed(Base.metadata.sorted_tables))


async def empty(dsn: str) -> None:
    """Take every row out."""
    async with admin(dsn) as connection:
        await connection.execute(EMPTY)
