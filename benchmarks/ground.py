"""What the servers under test stand on: one PostgreSQL and one Valkey of our own, and a database for each of them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from alembic import command
from alembic.config import Config

from app.embedded import Servers
from app.embedded.home import admin_key, encryption_keys, password
from benchmarks import floor
from benchmarks.processes import ROOT, free_port, process, ready
from benchmarks.targets import Floor, Parley

MODULE = [sys.executable, "-m"]


@dataclass
class Ground:
    """The stores.

    Attributes:
        home: A folder of our own.
        blank: A migrated database, which others are copied from; nobody connects to it.
        redis: The Valkey.
        stores: Its processes and PostgreSQL's.
    """

    home: Path
    blank: str
    redis: str
    stores: dict[str, list[int]]
    admin: str = field(default_factory=admin_key)
    secret: str = field(default_factory=password)

    async def database(self, name: str, schema: str | None = None) -> str:
        """A new database: a copy of the blank one, or one with a schema of its own. Its DSN."""
        template = "template0" if schema else f'"{urlsplit(self.blank).path[1:]}"'
        maintenance = _path(self.blank, "/postgres")
        own = f"bench_{name.replace('-', '_')}"
        await execute(maintenance, f"drop database if exists {own}", f"create database {own} template {template}")
        dsn = _path(self.blank, f"/{own}")
        if schema:
            await execute(dsn, schema)
        return dsn

    def settings(self, dsn: str, redis: str, **more: Any) -> dict[str, Any]:
        """The settings of a Parley on these stores."""
        return {
            "database_url": dsn,
            "redis_url": redis,
            "parley_home": str(self.home),
            "parley_secret": self.secret,
            "parley_encryption_keys": encryption_keys(),
            "parley_auth": "on",
            "parley_admin_key": self.admin,
            **more,
        }

    @contextmanager
    def second_valkey(self, name: str) -> Iterator[tuple[str, int]]:
        """Another Valkey: what one server publishes must not wake another. Its URL and process."""
        home = self.home / name
        home.mkdir(mode=0o711)
        with Servers(home, postgres=False) as servers:
            assert servers.valkey
            yield servers.valkey.url, servers.valkey.pid


@asynccontextmanager
async def prepared(home: Path, options: Mapping[str, str] | None = None) -> AsyncIterator[Ground]:
    """PostgreSQL, with options of its own, and Valkey, migrated."""
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(home, options=options))
        assert servers.postgres
        assert servers.valkey
        await asyncio.to_thread(_migrate, servers.postgres.dsn)
        stores = {"postgres": [servers.postgres.pid], "valkey": [servers.valkey.pid]}
        yield Ground(home, servers.postgres.dsn, servers.valkey.url, stores)


@asynccontextmanager
async def floor_servers(ground: Ground, **environment: str) -> AsyncIterator[list[Floor]]:
    """The floor, and the same without its worker."""
    dsn, port, log = await ground.database("floor", floor.SCHEMA), free_port(), ground.home / "floor-api.log"
    variables = {"FLOOR_DSN": dsn, "FLOOR_REDIS": _path(ground.redis, "/1"), **environment}
    with ExitStack() as stack:
        module = [*MODULE, "benchmarks.floor"]
        api = stack.enter_context(process([*module, "api", str(port)], variables, log))
        worker = stack.enter_context(process([*module, "worker"], variables, ground.home / "floor-worker.log"))
        await ready(port, log)
        both = {"api": [api], **ground.stores}
        yield [
            Floor("floor", port, dsn, {"worker": [worker], **both}, variables),
            Floor("floor-inline", port, dsn, both, variables),
        ]


@asynccontextmanager
async def parley_servers(
    ground: Ground,
    name: str = "parley",
    *,
    redis: str | None = None,
    valkey: int | None = None,
    environment: Mapping[str, str] | None = None,
    worker: bool = True,
    **settings: Any,
) -> AsyncIterator[Parley]:
    """A Parley of one API and one worker, or none, on a database of its own."""
    dsn, port = await ground.database(name), free_port()
    chosen = ground.settings(dsn, redis or ground.redis, parley_port=port, **settings)
    variables = {"BENCHMARK_SETTINGS": json.dumps(chosen), **(environment or {})}
    stores = ground.stores | ({"valkey": [valkey]} if valkey else {})
    log = ground.home / f"{name}-api.log"
    with ExitStack() as stack:
        api = stack.enter_context(process([*MODULE, "benchmarks.ours", "serve"], variables, log))
        working = parley_worker(ground.home / f"{name}-worker.log", variables)
        workers = {"worker": [stack.enter_context(working)]} if worker else {}
        await ready(port, log)
        processes = {"api": [api], **workers, **stores}
        parley = Parley(port, dsn, processes, name=name, environment=variables, home=ground.home)
        await parley.prepare(ground.admin)
        yield parley


@contextmanager
def parley_worker(log: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """One worker; its process."""
    with process([*MODULE, "benchmarks.ours", "worker"], environment, log) as pid:
        yield pid


async def execute(dsn: str, *statements: str) -> None:
    """Run statements on a connection of our own."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=path))


def _migrate(dsn: str) -> None:
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["dsn"] = dsn
    command.upgrade(config, "head")
