"""MCP tools: what a server says of its tools becomes definitions of ours, and what it answers a result of ours."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from mimetypes import guess_extension
from typing import Any, Literal, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.credentials import redact
from app.errors import InvalidTool, ToolError
from app.messages import clean_text, clean_value
from app.tools.definition import Definition, cleaned, content_sha256, defined, name_within, told_apart
from app.tools.mcp_sessions import Json, Server
from app.tools.schema import check_schema
from app.tools.tool import Risk, Tool, ToolContext

TIMEOUT_SECONDS = 30.0
DESCRIPTION_CHARACTERS = 1024
MAX_SCHEMA_CHARACTERS = 100_000
MAX_FILES = 20  # Of one answer.
OWN = ("risk", "idempotent", "timeout_seconds")


class McpSpec(BaseModel):
    """One version of an MCP tool, as it is stored.

    `own` is what a person has said of this tool; it stays when the server's list is read again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["mcp"] = "mcp"
    name: str
    description: str
    source: str
    tool: str
    url: str
    credential: str | None = None
    parameters: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    risk: Risk
    idempotent: bool
    timeout_seconds: float
    own: dict[str, Any] = Field(default_factory=dict[str, Any])


class McpSource(BaseModel):
    """How a workspace reaches a server, and what it has decided of all its tools."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    description: str = ""
    credential: str | None = None
    risk: Risk | None = None
    idempotent: bool | None = None
    timeout_seconds: float | None = None
    trust_hints: bool = False

    def server(self, name: str, workspace_id: UUID) -> Server:
        """The server as sessions know it."""
        return Server(name, workspace_id, self.url, self.credential)


@dataclass
class Listing:
    """A server's list as definitions; what can't be a tool, with the reason."""

    definitions: list[Definition] = field(default_factory=list[Definition])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


# --- a server's list ----------------------------------------------------------------------------------


def read_listing(name: str, source: McpSource, listed: Sequence[Json]) -> Listing:
    """The definitions of the tools that a server lists; slow for long lists, so not on the event loop."""
    found = Listing()
    for own_name, tool in _named(name, listed):
        try:
            found.definitions.append(define_mcp(own_name, name, source, tool))
        except InvalidTool as error:
            found.skipped.append((str(tool["name"]), error.detail))
    return found


def _named(name: str, listed: Sequence[Json]) -> list[tuple[str, Json]]:
    """Each tool with its name here. Of two that would have one name, the second says by a hash which it is."""
    named: dict[str, Json] = {}
    once = {str(tool["name"]): tool for tool in reversed(listed)}  # The very same name twice is one tool, the first.
    # A name that needed no cleaning goes first, so that it stays when an odd one joins it.
    for remote in sorted(once, key=lambda remote: (cleaned(remote) != remote, remote)):
        own = name_within(name, remote)
        named[told_apart(own, content_sha256({"name": remote})) if own in named else own] = once[remote]
    return list(named.items())


def define_mcp(own_name: str, source_name: str, source: McpSource, tool: Json) -> Definition:
    """The definition of one listed tool.

    Raises:
        InvalidTool: saying what is wrong with it.
    """
    if "malformed" in tool:
        raise InvalidTool(f"its description is not what MCP says: {tool['malformed']}")
    parameters: Json = {"properties": {}, **_schema(tool["inputSchema"])}
    check_schema(parameters, "parameters", error=InvalidTool)
    output = _schema(tool["outputSchema"]) if tool.get("outputSchema") else None
    check_schema(output, "output_schema", of_object=False, error=InvalidTool)
    risk, idempotent = _risk(source, tool.get("annotations") or {})
    return defined(
        McpSpec(
            name=own_name,
            description=_description(tool),
            source=source_name,
            tool=tool["name"],
            url=source.url,
            credential=source.credential,
            parameters=parameters,
            output_schema=output,
            risk=risk,
            idempotent=idempotent,
            timeout_seconds=source.timeout_seconds or TIMEOUT_SECONDS,
        )
    )


def _schema(schema: Json) -> Json:
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARACTERS:
        raise InvalidTool(f"parameters: a schema of more than {MAX_SCHEMA_CHARACTERS} characters", field="parameters")
    return cast("Json", clean_value({name: each for name, each in schema.items() if name not in ("$schema", "$id")}))


def _description(tool: Json) -> str:
    said = [str(tool.get(each) or "").strip() for each in ("title", "description")]
    text = clean_text("\n".join(dict.fromkeys(each for each in said if each)))
    return text[:DESCRIPTION_CHARACTERS] if len(text) >= 5 else f"The tool {tool['name']} of an MCP server"


def _risk(source: McpSource, hints: Json) -> tuple[Risk, bool]:
    """What a call may do, and whether it may be repeated: a person's word, else the worst.

    A server's hints are claims of a stranger: they count only where the source says that this server is to be believed.
    """
    risk, idempotent = Risk.EXTERNAL, False
    if source.trust_hints:
        reads = hints.get("readOnlyHint") is True
        risk = Risk.READ if reads else Risk.EXTERNAL if hints.get("destructiveHint", True) else Risk.WRITE
        idempotent = reads or hints.get("idempotentHint") is True
    return source.risk or risk, idempotent if source.idempotent is None else source.idempotent


# --- a call -------------------------------------------------------------------------------------------


def mcp_tool(spec: McpSpec) -> Tool:
    """The tool of a stored version."""

    async def call(context: ToolContext, arguments: Json) -> Any:
        server = Server(spec.source, context.workspace_id, spec.url, spec.credential)
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
        credential=spec.credential,
        output_schema=spec.output_schema,
    )


async def execute(server: Server, tool: str, context: ToolContext, arguments: Json) -> Any:
    """Call a server's tool and read its answer; no secret of the credential is in it.

    Raises:
        ToolError: the server could not be reached, or says that the call failed.
    """
    answer = await context.sessions.call(
        server,
        tool,
        arguments,
        conversation_id=context.conversation_id,
        effect_key=context.effect_key,
        progress=context.progress,
    )
    secrets = await context.sessions.secrets(server)
    files = _files(tool, answer.get("content") or [])
    answer, files = redact(answer, secrets), redact(files, secrets)
    content: list[Json] = answer.get("content") or []
    if answer.get("isError"):
        said = "\n".join(str(part.get("text", "")) for part in content if part.get("type") == "text").strip()
        if said.lower().startswith("unknown tool"):
            context.sessions.on_change(server)
        raise ToolError(said[:2000] or f"{tool} failed on {server.name} and does not say why")
    kept = await _kept(context, tool, files)
    if "structuredContent" in answer:
        return answer["structuredContent"]
    texts = [text for part in content if (text := _text(part)) is not None]
    return _together(texts, kept)


def _together(texts: list[str], files: list[Json]) -> Any:
    if files:
        return {"text": "\n\n".join(texts), "files": files}
    return "\n\n".join(texts) if texts else None


def _text(part: Json) -> str | None:
    """What of an answer is text; a link is its address."""
    if part.get("type") == "text":
        return str(part["text"])
    if part.get("type") == "resource_link":
        return f"[{part.get('title') or part.get('name')}]({part.get('uri')})"
    resource: Json = part.get("resource") or {}
    return str(resource["text"]) if "text" in resource else None


def _files(tool: str, content: Sequence[Json]) -> list[list[Any]]:
    """Pictures, sounds and other files: type and content of each. Base64 would hide what stands in them."""
    found = [each for part in content if (each := _file(part)) is not None]
    if len(found) > MAX_FILES:
        raise ToolError(f"{tool} answered with more than {MAX_FILES} files")
    try:
        return [[media_type, base64.b64decode(encoded, validate=True)] for media_type, encoded in found]
    except (binascii.Error, ValueError) as error:
        raise ToolError(f"{tool} answered with a file that is no base64") from error


async def _kept(context: ToolContext, tool: str, files: Sequence[Sequence[Any]]) -> list[Json]:
    """Files as artifacts."""
    kept: list[Json] = []
    for number, (media_type, data) in enumerate(files, 1):
        name = f"{cleaned(tool)[:80]}_{number}{guess_extension(media_type) or '.bin'}"
        kept.append(await context.keep(name, media_type, data))
    return kept


def _file(part: Json) -> tuple[str, str] | None:
    if part.get("type") in ("image", "audio"):
        return str(part["mimeType"]), str(part["data"])
    resource: Json = part.get("resource") or {}
    if "blob" in resource:
        return str(resource.get("mimeType") or "application/octet-stream"), str(resource["blob"])
    return None
