"""A TCP proxy that does to connections what networks do: delays, stalls, half-closes, resets, cuts after some bytes."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Self

CHUNK = 65_536


@dataclass(eq=False)
class Link:
    """One connection through the proxy.

    Attributes:
        budget: Bytes from the server that still get through before the connection is reset; None: any number.
    """

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    budget: int | None = None
    vanished: bool = False
    said_goodbye: bool = False

    def say_goodbye(self) -> None:
        """Tell the server that nothing more comes."""
        if not self.vanished and not self.said_goodbye:
            self.said_goodbye = True
            with contextlib.suppress(OSError):
                self.server.write_eof()

    def vanish(self) -> None:
        """The client's host is gone without a word: its server hears nothing any more, not even that."""
        self.vanished = True
        self.client.transport.abort()

    def reset(self) -> None:
        """End both sides without a goodbye."""
        for writer in (self.client, self.server):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@dataclass
class Proxy:
    """Passes bytes on to one server."""

    host: str
    to_port: int
    port: int = 0
    links: list[Link] = field(default_factory=list)
    delay_seconds: float = 0.0
    _server: asyncio.Server | None = None
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        self.heal()
        self.reset()
        while self.links:
            await asyncio.sleep(0.01)

    # --- faults ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Reset every connection."""
        for link in list(self.links):
            link.reset()

    def cut(self, after: int, every: int = 1) -> None:
        """Reset one connection in `every`, each after so many more bytes of its server's answers."""
        for index, link in enumerate(self.links):
            if index % every == 0:
                link.budget = after

    async def vanish(self, seconds: float, every: int = 1) -> None:
        """Let the clients of some connections vanish; their servers are left alone for so long."""
        gone = self.links[::every]
        for link in gone:
            link.vanish()
        await asyncio.sleep(seconds)
        for link in gone:
            link.reset()

    def half_close(self) -> None:
        """Tell every server that its client has nothing more to say."""
        for link in self.links:
            link.say_goodbye()

    def stall(self) -> None:
        """Nothing gets through until `heal`."""
        self._open.clear()

    def heal(self) -> None:
        """Pass everything on at once again."""
        self.delay_seconds = 0.0
        self._open.set()
        for link in self.links:
            link.budget = None

    # --- passing on --------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(self.host, self.to_port, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server_writer)
        self.links.append(link)
        try:
            await asyncio.gather(self._up(reader, link), self._down(server_reader, link))
        finally:
            self.links.remove(link)
            link.reset()

    async def _up(self, reader: asyncio.StreamReader, link: Link) -> None:
        """From the client to the server."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._wait()
                if not link.said_goodbye:
                    link.server.write(data)
                    await link.server.drain()
        link.say_goodbye()

    async def _down(self, reader: asyncio.StreamReader, link: Link) -> None:
        """From the server to the client, as far as its budget goes."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._wait()
                allowed = len(data) if link.budget is None else min(len(data), link.budget)
                if not link.vanished:
                    link.client.write(data[:allowed])
                    await link.client.drain()
                if allowed < len(data):
                    break
                link.budget = None if link.budget is None else link.budget - allowed
        link.reset()

    async def _wait(self) -> None:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        await self._open.wait()
