"""The migrations make exactly the tables that the models describe."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.api.health import SCHEMA
from tests.cluster import Cluster
from tests.databases import admin, dsn_of

ROOT = Path(__file__).parents[1]


def config(dsn: str = "") -> Config:
    made = Config(toml_file=ROOT / "pyproject.toml")
    made.attributes["dsn"] = dsn
    return made


async def test_autogenerate_finds_nothing(database_url: str) -> None:
    """`alembic check`: the template was made by the migrations alone."""
    await asyncio.to_thread(command.check, config(database_url))


def test_there_is_one_line_of_migrations_and_the_code_knows_its_end() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [SCHEMA]


@pytest.fixture
async def empty_database(cluster: Cluster) -> AsyncIterator[str]:
    name = f"parley_migrated_{os.getpid()}_test"
    async with admin(cluster.postgres_dsn_admin) as connection:
        await connection.execute(f'drop database if exists "{name}" with (force)')
        await connection.execute(f'create database "{name}"')
        yield dsn_of(cluster.postgres_dsn_admin, name)
        await connection.execute(f'drop database if exists "{name}" with (force)')


async def upgraded(dsn: str) -> int:
    """The exit code of a process of its own; Alembic keeps its state in globals."""
    program = [sys.executable, "-m", "alembic", "upgrade", "head"]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT, env={**os.environ, "DATABASE_URL": dsn})
    return await process.wait()


async def test_two_processes_that_start_together_migrate_once(empty_database: str) -> None:
    assert await asyncio.gather(upgraded(empty_database), upgraded(empty_database)) == [0, 0]
    await asyncio.to_thread(command.check, config(empty_database))


async def test_the_way_back_leaves_nothing(empty_database: str) -> None:
    await asyncio.to_thread(command.upgrade, config(empty_database), "head")
    await asyncio.to_thread(command.downgrade, config(empty_database), "base")
    async with admin(empty_database) as connection:
        left = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    assert [row["tablename"] for row in left] == ["alembic_version"]
    await asyncio.to_thread(command.upgrade, config(empty_database), "head")
