"""The process's sessions with MCP servers: one for each server, credential and conversation, closed when idle.

A conversation keeps its session between calls, for servers that remember something; no other conversation shares it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from app.credentials import Access, Credentials, redact
from app.egress import Egress
from app.errors import EgressFailed, ToolError
from app.redaction import SHORTEST_KNOWN

if TYPE_CHECKING:
    from app.tools.mcp_wire import Connection

MAX_SESSIONS = 64
MAX_PAGES = 100
MAX_TOOLS = 1000
LIST_SECONDS = 30.0

Json = dict[str, Any]
Progress = Callable[[str, int | None, int | None], Awaitable[None]]
T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """An MCP server: one of a workspace by URL, or one of the operator's by command.

    Attributes:
        name: What its tools' names begin with.
        workspace_id: Whose it is; None for the operator's.
        url: Where it is.
        credential: The credential it wants, by name.
        command: The program, for a server on this machine.
        args: Its arguments.
        env: Its environment, beside the few variables that every program needs.
        cwd: Where it starts.
    """

    name: str
    workspace_id: UUID | None = None
    url: str | None = None
    credential: str | None = None
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False, hash=False)
    cwd: str | None = None


Key = tuple[Server, UUID | None]
Changed = Callable[[Server], None]


class Sessions:
    """Calls to MCP servers; one per process."""

    def __init__(self, egress: Egress, credentials: Credentials) -> None:
        """Reach servers through this guard, with these credentials."""
        self._egress = egress
        self._credentials = credentials
        self._open: dict[Key, Connection] = {}
        self.on_change: Changed = lambda _: None

    async def tools(self, server: Server) -> list[Json]:
        """The tools that a server offers now, as it describes them, without any secret.

        Raises:
            ToolError: it could not be reached, refuses, or does not answer as MCP says.
        """
        try:
            async with asyncio.timeout(LIST_SECONDS):
                listed = await self._asked(
                    server, None, lambda link: link.list_tools(max_pages=MAX_PAGES, max_tools=MAX_TOOLS)
                )
                return redact(listed, await self.secrets(server))
        except TimeoutError as error:
            said = f"mcp: {_place(server)} did not list its tools within {LIST_SECONDS:g} s"
            raise EgressFailed(said) from error

    async def call(
        self,
        server: Server,
        tool: str,
        arguments: Json,
        *,
        conversation_id: UUID | None,
        effect_key: UUID,
        progress: Progress,
    ) -> Json:
        """The result of one call, as the server gave it: with the `secrets` that it may show.

        Raises:
            ToolError: it could not be reached, refuses, or does not answer as MCP says.
        """

        async def tell(text: str, done: int | None, total: int | None) -> None:
            await progress(redact(text, await self.secrets(server)), done, total)

        return await self._asked(
            server, conversation_id, lambda link: link.call(tool, arguments, str(effect_key), tell)
        )

    async def aclose(self) -> None:
        """End all sessions, and the children of the operator's servers."""
        links = list(self._open.values())
        self._open.clear()
        await asyncio.gather(*(link.close() for link in links))

    # --- one request -----------------------------------------------------------------------------------

    async def _asked(
        self, server: Server, conversation_id: UUID | None, ask: Callable[["Connection"], Awaitable[T]]
    ) -> T:
        """Ask in the conversation's session; one that the server has forgotten is begun anew."""
        # The SDK takes most of a second to load, and most processes never need it.
        wire: Any = await asyncio.to_thread(import_module, "app.tools.mcp_wire")
        key = server, conversation_id if server.url else None
        link = self._link(wire, key)
        try:
            try:
                return await ask(link)
            except wire.Rejected as gone:
                if gone.code != wire.SESSION_GONE:
                    raise
                link.leave()
                link = self._link(wire, key)
                return await ask(link)
        except wire.Rejected as error:
            if error.code in (-32601, -32602):  # No such method, or no such tool: the list may be out of date.
                self.on_change(server)
            raise await self._told(server, link, error, reached=error.code != wire.UNREACHED) from None

    def _link(self, wire: Any, key: Key) -> "Connection":
        """The session, opened if need be; one that has failed or gone idle is replaced."""
        link = self._open.get(key)
        if link is None or not link.alive:
            self._make_room()
            link = self._open[key] = self._opening(wire, key[0])
        return link

    def _opening(self, wire: Any, server: Server) -> "Connection":
        if server.url is None:
            return wire.Connection.stdio(server.command, list(server.args), server.env, server.cwd)

        async def access(stale: int | None) -> Access:
            return await self._access(server, stale)

        return wire.Connection.http(
            server.url, self._egress.of(server.workspace_id), access, lambda: self.on_change(server)
        )

    def _make_room(self) -> None:
        """Forget what is closed, and let the session that has been idle longest go when there are too many."""
        for key in [key for key, link in self._open.items() if not link.alive]:
            del self._open[key]
        idle = [key for key, link in self._open.items() if link.idle and key[0].url]
        if len(self._open) >= MAX_SESSIONS and idle:
            self._open.pop(min(idle, key=lambda key: self._open[key].used)).leave()

    async def _access(self, server: Server, stale: int | None) -> Access:
        if server.credential is None or server.workspace_id is None:
            return Access()
        return await self._credentials.access(server.workspace_id, server.credential, stale=stale)

    async def _told(self, server: Server, link: "Connection", error: Any, *, reached: bool) -> ToolError:
        """What the caller is told, without any secret: what stood in the way, else the server's own words."""
        failure = None if reached else link.failure
        kind = type(failure) if isinstance(failure, ToolError) else ToolError
        said = f"mcp: {_place(server)}: {failure.detail if failure else error.said}"
        return kind(redact(said, await self.secrets(server)))

    async def secrets(self, server: Server) -> tuple[str, ...]:
        """What a server's answers must not show: its credential, or what it was started with.

        Nobody says which variables of an environment are secrets; a short one is none.
        """
        given = tuple(value for value in server.env.values() if len(value) >= SHORTEST_KNOWN)
        try:
            return given + (await self._access(server, None)).secrets
        except ToolError:
            return given


def _place(server: Server) -> str:
    return f"{server.name} ({server.url or server.command})"
