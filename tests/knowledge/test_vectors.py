"""A server without pgvector, or a role that may not create it: everything migrates, and words are searched."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from alembic import command

from app.cli.checks import run_checks
from app.cli.processes import alembic_config
from app.db import DEFAULT_WORKSPACE, TENANT_ROLE, Database
from app.knowledge import vectors
from app.knowledge.indexing import Indexer
from app.knowledge.search import search
from app.settings import Settings
from tests.cluster import Cluster
from tests.databases import admin, dsn_of
from tests.knowledge.test_search import Meaning, add, index

DESCRIBED = """
select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, c.reloptions, c.relrowsecurity,
    (select count(*) from pg_policy p where p.polrelid = c.oid) as policies,
    (select string_agg(pg_get_indexdef(i.indexrelid), ';' order by i.indexrelid::regclass::text) from pg_index i
     where i.indrelid = c.oid) as indexes,
    (select string_agg(pg_get_constraintdef(k.oid), ';' order by k.conname) from pg_constraint k
     where k.conrelid = c.oid) as constraints
from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.oid = to_regclass('public.embeddings') and a.attnum > 0 order by a.attnum
"""


@pytest.fixture
async def without_rights(cluster: Cluster) -> AsyncIterator[tuple[str, str]]:
    """The DSN of an empty database whose owner may not create the extension, and the DSN of somebody who may."""
    name, password = f"parley_plain_{os.getpid()}_test", secrets.token_hex(8)
    async with admin(cluster.postgres_dsn_admin) as connection:
        await connection.execute(f'drop database if exists "{name}" with (force)')
        await connection.execute(f'drop role if exists "{name}"')
        await connection.execute(f"create role \"{name}\" login createrole password '{password}'")
        if await connection.fetchval("select true from pg_roles where rolname = $1", TENANT_ROLE):
            await connection.execute(f'grant {TENANT_ROLE} to "{name}"')
        await connection.execute(f'create database "{name}" owner "{name}"')
    dsn = dsn_of(cluster.postgres_dsn_admin, name)
    host = urlsplit(dsn).netloc.rpartition("@")[2]
    yield urlunsplit(urlsplit(dsn)._replace(netloc=f"{name}:{password}@{host}")), dsn
    async with admin(cluster.postgres_dsn_admin) as connection:
        await connection.execute(f'drop database if exists "{name}" with (force)')
        await connection.execute(f'drop role if exists "{name}"')


async def test_it_migrates_without_pgvector_and_takes_it_when_it_comes(without_rights: tuple[str, str]) -> None:
    dsn, powerful = without_rights
    await asyncio.to_thread(command.upgrade, alembic_config(dsn), "head")
    await asyncio.to_thread(command.check, alembic_config(dsn))
    settings = Settings.of(database_url=dsn, parley_pool_size=2)
    database = await Database.open(settings)
    try:
        await database.execute("insert into workspaces (id, name) values ($1, 'default')", DEFAULT_WORKSPACE)
        assert await vectors.state(database) == "available"
        await add(database, "words", "A lighthouse keeper counts ships.")
        embedder = Meaning()
        await index(database, embedder)
        found = await search(database, embedder, DEFAULT_WORKSPACE, "ships")
        assert [result.row["title"] for result in found.results] == ["words"]
        assert found.without_vectors
        assert await said_by_doctor(settings) == "warning"

        async with admin(powerful) as connection:
            await connection.execute("create extension vector")
        async with database.connection() as connection:
            await vectors.enable(connection)
        assert await vectors.state(database) == "ready"
        assert await said_by_doctor(settings) == "ok"
        await Indexer(database, embedder).refresh()
        await index(database, embedder)
        assert await database.fetchval("select count(*) from embeddings") == 1
        await asyncio.to_thread(command.check, alembic_config(dsn))

        async with admin(powerful) as connection:
            await connection.execute("drop extension vector cascade")
        assert await vectors.state(database) == "available"
        found = await search(database, embedder, DEFAULT_WORKSPACE, "ships")
        assert [result.row["title"] for result in found.results] == ["words"]
    finally:
        await database.close()
    await asyncio.to_thread(command.downgrade, alembic_config(dsn), "base")


async def said_by_doctor(settings: Settings) -> str:
    [check] = [each for each in await run_checks(settings) if each.name == "document vectors"]
    return check.state


async def test_enabling_makes_the_table_that_the_migration_makes(database: Database) -> None:
    by_migration = await database.fetch(DESCRIBED)
    assert by_migration
    async with database.connection() as connection:
        await connection.execute("drop table embeddings")
        await vectors.enable(connection)
        await vectors.enable(connection)
    assert await database.fetch(DESCRIBED) == by_migration
