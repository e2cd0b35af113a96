"""MCP servers of the operator's own: programs that this process starts and talks to over their input and output.

They come from the file that `PARLEY_MCP_SERVERS` names, and never from the API: whoever writes that file decides what
runs here. Their tools are offered to every workspace, like those of extensions.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.errors import ConfigurationError, ToolError
from app.settings import Settings
from app.tools.mcp import McpSource, McpSpec, execute, read_listing
from app.tools.mcp_sessions import Json, Server, Sessions
from app.tools.registry import INSTALLED
from app.tools.tool import Tool, ToolContext

log = structlog.stdlib.get_logger(__name__)


class Program(BaseModel):
    """One server of the file, in the words that other programs use for it, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str = Field(min_length=1)
    args: list[str] = Field(default_factory=list[str])
    env: dict[str, str] = Field(default_factory=dict[str, str])
    cwd: str | None = None
    trust_hints: bool = True  # It runs here, so it is believed as much as the rest of this machine.
    timeout_seconds: float | None = Field(default=None, gt=0, le=3600)


PROGRAMS = TypeAdapter(dict[str, Program])


def read_servers(path: Path) -> dict[str, Program]:
    """The servers of a file of the form `{"mcpServers": {"name": {"command", "args", "env"}}}`.

    Raises:
        ConfigurationError: saying what is wrong with the file.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        programs = PROGRAMS.validate_python(content["mcpServers"])
    except OSError as error:
        raise _wrong(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _wrong(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong(f'{path} is no JSON of the form {{"mcpServers": {{...}}}}') from error
    return programs


def _wrong(said: str) -> ConfigurationError:
    return ConfigurationError(f"PARLEY_MCP_SERVERS: {said}", field="PARLEY_MCP_SERVERS")


async def offer(settings: Settings, sessions: Sessions) -> list[str]:
    """Start the servers of the file and offer their tools; answers the tools' names.

    A server that does not start, or does not list its tools, is logged and left out until the next start.

    Raises:
        ConfigurationError: saying what is wrong with the file.
    """
    if settings.parley_mcp_servers is None:
        return []
    programs = await asyncio.to_thread(read_servers, settings.parley_mcp_servers)
    found = await asyncio.gather(*(_tools(sessions, name, program) for name, program in programs.items()))
    offered = {tool.name: tool for tools in found for tool in tools}
    for name, tool in offered.items():
        if INSTALLED.get(name, tool).kind != "mcp":
            raise _wrong(f"there is a tool called {name} already")
        INSTALLED[name] = tool
    return list(offered)


def withdraw(names: list[str]) -> None:
    """Offer these tools no longer."""
    for name in names:
        INSTALLED.pop(name, None)


async def _tools(sessions: Sessions, name: str, program: Program) -> list[Tool]:
    server = Server(name, command=program.command, args=tuple(program.args), env=program.env, cwd=program.cwd)
    try:
        listed = await sessions.tools(server)
    except ToolError as error:
        log.error("mcp.server_left_out", server=name, detail=error.detail)
        return []
    source = McpSource(url="", trust_hints=program.trust_hints, timeout_seconds=program.timeout_seconds)
    read = await asyncio.to_thread(read_listing, name, source, listed)
    for tool, reason in read.skipped:
        log.warning("mcp.tool_left_out", server=name, tool=tool, reason=reason)
    log.info("mcp.server_started", server=name, tools=len(read.definitions))
    return [_tool(server, McpSpec.model_validate(each.spec)) for each in read.definitions]


def _tool(server: Server, spec: McpSpec) -> Tool:
    async def call(context: ToolContext, arguments: Json) -> Any:
        return await execute(server, spec.tool, context, arguments)

    return Tool(
        name=spec.name,
        description=spec.description,
        parameters=spec.parameters,
        risk=spec.risk,
        idempotent=spec.idempotent,
        call=call,
        timeout_seconds=spec.timeout_seconds,
        kind=spec.kind,
        output_schema=spec.output_schema,
    )
