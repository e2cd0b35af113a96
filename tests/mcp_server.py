"""A real MCP server, made with the official SDK, on loopback: with a token, or as a child on standard input and output."""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp_types import ToolAnnotations
from pydantic import BaseModel

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Sum(BaseModel):
    """What `add` answers."""

    total: int


def made() -> MCPServer:
    """A server with a tool of every sort."""
    server = MCPServer("things", log_level="CRITICAL")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> Sum:
        """Add two numbers."""
        return Sum(total=a + b)

    @server.tool(structured_output=False)
    def greet(name: str) -> str:
        """Greet somebody."""
        return f"Hello, {name}! {os.environ.get('GREETING', '')}".strip()

    @server.tool(structured_output=False)
    def environment(name: str) -> str:
        """A variable of the server's environment, or its process id."""
        return str(os.getpid()) if name == "pid" else os.environ.get(name, "")

    @server.tool()
    def fail(text: str) -> str:
        """Fail with a text."""
        raise ValueError(text)

    @server.tool(structured_output=False)
    def picture() -> Any:
        """A picture of one pixel."""
        return ["one pixel", Image(data=PIXEL, format="png")]

    @server.tool(structured_output=False)
    def count() -> str:
        """Count to one."""
        return "1"

    @server.tool(structured_output=False)
    async def steps(ctx: Context) -> str:
        """Tell how far it is."""
        await ctx.report_progress(1, 2, "half of it")
        return "done"

    @server.tool(structured_output=False)
    async def ask(ctx: Context) -> str:
        """Ask the client's model."""
        await ctx.session.create_message(messages=[], max_tokens=1)
        return "asked"

    @server.tool(structured_output=False)
    async def learn(name: str, ctx: Context) -> str:
        """Offer another tool from now on, and say so."""

        def learned() -> str:
            return "learned"

        server.add_tool(learned, name=name, description="Learned later")
        await ctx.session.send_tool_list_changed()
        return "learned"

    @server.tool(structured_output=False)
    async def unlearn(name: str) -> str:
        """Offer a tool no longer."""
        server.remove_tool(name)
        return "forgotten"

    @server.tool(structured_output=False)
    async def sleep(seconds: float) -> str:
        """Take long."""
        await asyncio.sleep(seconds)
        return "slept"

    return server


@dataclass
class Running:
    """A server that listens."""

    url: str
    port: int
    token: str | None
    server: MCPServer
    old: bool = False
    lost: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)


def refusal(state: Running, headers: dict[str, str]) -> int | None:
    if state.token and headers.get("authorization") != f"Bearer {state.token}":
        return 401
    if state.old and headers.get("mcp-method") == "server/discover":
        return 400
    if state.lost and "mcp-session-id" in headers:
        state.lost = False
        return 404
    return None


@asynccontextmanager
async def running(*, token: str | None = None, old: bool = False) -> AsyncIterator[Running]:
    """The server on a free port, in this process; an old one knows sessions and the `initialize` handshake only."""
    things = made()
    app = things.streamable_http_app()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        state = Running(f"http://127.0.0.1:{port}/mcp", port, token, things, old)

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                state.asked.append({"method": scope["method"], **headers})
                status = refusal(state, headers)
                if status:
                    await send({"type": "http.response.start", "status": status, "headers": []})
                    await send({"type": "http.response.body", "body": b"not like this"})
                    return
            await app(scope, receive, send)

        config = uvicorn.Config(guarded, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
        http = uvicorn.Server(config)
        http.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(http.serve(sockets=[listener]))
        while not http.started:
            await asyncio.sleep(0.005)
        try:
            yield state
        finally:
            http.should_exit = True
            await task


if __name__ == "__main__":
    made().run(transport="stdio")
