"""The resource /tool-sources: what tools are read from, and read again."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy import func, select

from app import audit
from app.api.access import Caller, may
from app.api.idempotency import IdempotencyKey, Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.api.tool_bodies import ToolBody
from app.api.tool_imports import ImportBody, ImportOut, check_credential, repeat, show_source, take_in
from app.errors import Conflict, ParleyError
from app.models import RegisteredTool, ToolSource, new_id
from app.tools import Risk
from app.tools import sources as rows
from app.tools.http import check_url
from app.tools.mcp import McpSource

router = resource("tool-sources")

Reads = Annotated[Caller, may("tools:read")]
Writes = Annotated[Caller, may("tools:write")]


class SourceOut(BaseModel):
    """What tools are read from."""

    name: str = Field(description="Begins its tools' names.", examples=["tickets"])
    kind: str = Field(description="mcp or openapi.", examples=["mcp"])
    url: str | None = Field(default=None, description="Where it is; null for a document that was uploaded.")
    description: str | None = None
    credential: str | None = Field(default=None, description="The name of the credential it wants.")
    base_url: str | None = None
    include: list[str] | None = Field(default=None, description="openapi: the operationIds wanted.")
    risk: Risk | None = Field(default=None, description="mcp: what a call of any of its tools may do.")
    idempotent: bool | None = None
    timeout_seconds: float | None = None
    trust_hints: bool | None = Field(default=None, description="mcp: whether its claims about its tools are believed.")
    validate_responses: bool | None = Field(default=None, description="openapi: whether answers are held to schemas.")
    tools: int = Field(description="How many of its tools are enabled.")
    skipped: list[tuple[str, str]] = Field(description="What can't be a tool, each with the reason.")
    error: str | None = Field(description="Why it could not be read last time; its tools stay as they were.")
    read_at: datetime | None = Field(description="When it was read last.")
    next_read_at: datetime | None = Field(description="When it is read again by itself; null: on request only.")
    created_at: datetime
    updated_at: datetime


@router.get("/tool-sources", summary="List tool sources")
async def list_sources(caller: Reads, page: Annotated[PageOf, paged("tool-sources")]) -> Page[SourceOut]:
    """MCP servers and OpenAPI documents by name, with what went wrong when they were read last."""
    async with caller.transaction() as session:
        found = await rows.page(session, caller.workspace_id, after=page.position, limit=page.fetch)
        shown = [await _show(session, source) for source in found]
    return page.cut(shown, lambda source: source, key=lambda source: source.name)


@router.get("/tool-sources/{source}", summary="Show a tool source")
async def get_source(source: str, caller: Reads) -> SourceOut:
    """An MCP server or an OpenAPI document."""
    async with caller.transaction() as session:
        return await _show(session, await rows.get(session, caller.workspace_id, source))


@router.post("/tool-sources/{source}/read", summary="Read a tool source again")
async def read_source(source: str, caller: Writes, key: Idempotent) -> ImportOut:
    """What changed is a new version of its tool; what is gone is disabled, and enabled again when it is back."""
    async with caller.transaction() as session:
        found = await rows.get(session, caller.workspace_id, source)
    if found.kind != "mcp" and found.spec.get("url") is None:
        raise Conflict(f"the document of {source} was uploaded: import it again")
    try:
        if found.kind == "mcp":
            return await _read_mcp(source, McpSource.model_validate(found.spec), caller, key)
        return await take_in(ImportBody(name=source, **found.spec), caller, key)
    except ParleyError as error:
        await rows.failed(caller.database, caller.workspace_id, source, error.detail)
        raise


@router.delete("/tool-sources/{source}", status_code=204, summary="Delete a tool source")
async def delete_source(source: str, caller: Writes) -> None:
    """Its tools go with it."""
    async with caller.transaction() as session:
        await rows.delete(session, caller.workspace_id, source)
        audit.record(session, caller.entry("tool_source.delete", "tool_source", source))


async def connect(body: ToolBody, caller: Caller, key: IdempotencyKey) -> ImportOut:
    """Make an MCP server's tools, or read them again with what the body now says of it.

    Raises:
        InvalidTool: the URL is none.
        ToolError: the server could not be reached, refuses, or does not answer as MCP says.
    """
    await check_credential(body.credential, caller)
    values = {field: value for field, value in body.given.items() if field in McpSource.model_fields}
    check_url(values["url"])
    return await _read_mcp(body.name, McpSource(**values), caller, key)


async def _read_mcp(name: str, spec: McpSource, caller: Caller, key: IdempotencyKey) -> ImportOut:
    """Ask the server, outside any transaction, then save its tools in one; a request that is repeated does neither."""
    if repeated := await repeat(name, caller, key):
        return repeated
    found = await rows.listing(caller.engine.sessions, caller.workspace_id, name, spec)
    who = caller.principal.id
    async with caller.transaction() as session:
        if await key.claim(session, caller, "tool_source", f"{new_id()} {name}"):  # It came first, just now.
            source, taken = await rows.present(session, caller.workspace_id, name)
        else:
            source, taken = await rows.save_mcp(session, caller.workspace_id, who, name, spec, found)
            audit.record(session, caller.entry("tool_source.read", "tool_source", name, tools=len(taken)))
        return show_source(name, taken, source.skipped)


async def _show(session: Any, source: ToolSource) -> SourceOut:
    enabled = select(func.count()).where(
        RegisteredTool.workspace_id == source.workspace_id,
        RegisteredTool.source_id == source.id,
        RegisteredTool.deleted_at.is_(None),
        RegisteredTool.enabled,
    )
    return SourceOut(
        **source.spec,
        name=source.name,
        kind=source.kind,
        tools=await session.scalar(enabled),
        skipped=source.skipped,
        error=source.error,
        read_at=source.read_at,
        next_read_at=source.due_at,
        created_at=source.created_at,
        updated_at=source.updated_at,
    )
