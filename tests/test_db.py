"""PostgreSQL going away between and under statements is told as such, whatever the driver calls it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from app.db import DEFAULT_WORKSPACE, Database
from app.errors import DatabaseUnavailable
from app.settings import Settings

SSL_REQUEST = 8  # Bytes; a startup message is longer.


def fatal(code: str, message: str) -> bytes:
    """A FATAL ErrorResponse as it stands on the wire."""
    fields = b"".join(name + value.encode() + b"\0" for name, value in [(b"S", "FATAL"), (b"V", "FATAL")])
    fields += b"C" + code.encode() + b"\0M" + message.encode() + b"\0\0"
    return b"E" + (4 + len(fields)).to_bytes(4, "big") + fields


class Between:
    """Stands before PostgreSQL and passes everything on, until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._clients: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.starting_up = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.starting_up:
            if len(await reader.read(1_000)) == SSL_REQUEST:
                writer.write(b"N")
                await reader.read(1_000)
            writer.write(fatal("57P03", "the database system is starting up"))
            writer.close()
            return
        self._clients.append(writer)
        up, down = await asyncio.open_connection(*self._target)
        for source, target in ((reader, down), (up, writer)):
            task = asyncio.create_task(_pump(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def say_goodbye(self) -> None:
        """What PostgreSQL says to idle clients just before it closes their connections."""
        for client in self._clients:
            client.write(fatal("57P02", "terminating connection because of crash of another server process"))

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
    target.close()


@asynccontextmanager
async def between(settings: Settings) -> AsyncIterator[tuple[Between, Database]]:
    """A database reached through a `Between`."""
    url = urlsplit(settings.dsn())
    assert url.hostname
    assert url.port
    stand = Between(url.hostname, url.port)
    server = await asyncio.start_server(stand.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    values: dict[str, Any] = {"database_url": settings.dsn().replace(f":{url.port}/", f":{port}/")}
    database = await Database.open(Settings.of(**values))
    try:
        yield stand, database
    finally:
        await database.close()
        server.close()
        await stand.close()


async def test_a_goodbye_between_two_statements(settings: Settings) -> None:
    async with between(settings) as (stand, database):
        assert await database.fetchval("select 1") == 1
        stand.say_goodbye()
        await asyncio.sleep(0.05)
        with pytest.raises(DatabaseUnavailable):
            await database.fetchval("select 1")
        assert await database.fetchval("select 1") == 1  # over a new connection


async def test_a_session_while_postgresql_starts_up(settings: Settings) -> None:
    async with between(settings) as (stand, database):
        stand.starting_up = True
        with pytest.raises(DatabaseUnavailable) as caught:
            async with database.transaction(DEFAULT_WORKSPACE):
                pass
        assert caught.value.retry_after
        stand.starting_up = False
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            assert await session.scalar(text("select 1")) == 1
