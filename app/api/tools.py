"""The resource /tools."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, Field

from app import audit
from app.api.access import Caller, may
from app.api.idempotency import IdempotencyKey, Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.shapes import Body
from app.api.strict import resource
from app.api.tool_bodies import (
    NO_CONTENT,
    Content,
    RegisterBody,
    ToolBody,
    ToolPatch,
    changed,
    check_approval,
    definition_of,
    spec_of,
)
from app.api.tool_imports import ImportBody, ImportOut, check_credential, take_in
from app.api.tool_sources import connect
from app.errors import (
    Conflict,
    Disabled,
    InvalidArguments,
    InvalidTool,
    NotFound,
    UnknownReference,
)
from app.knowledge.library import Library
from app.knowledge.memories import Memories, Owner
from app.knowledge.writer import Writer
from app.models import RegisteredTool, ToolVersion, new_id
from app.sandbox import Limits
from app.settings import Settings
from app.tools import Risk, Tool
from app.tools import registered as rows
from app.tools.clock import CallClock
from app.tools.definition import Definition
from app.tools.hand import Executed, HandContext, execute
from app.tools.registry import INSTALLED, check_free, check_own, find

router = resource("tools")

Reads = Annotated[Caller, may("tools:read")]
Writes = Annotated[Caller, may("tools:write")]


class ArgumentsBody(Body):
    """The arguments of one call."""

    arguments: dict[str, Any] = Field(default_factory=dict[str, Any], examples=[{"text": "Parley"}])


class ExecuteBody(ArgumentsBody):
    """One call by name."""

    tool: str = Field(description="The tool's name.", examples=["reverse_string"])


class ToolOut(BaseModel):
    """A tool."""

    name: str = Field(examples=["reverse_string"])
    kind: str = Field(description="builtin, extension, or how it was registered.", examples=["python"])
    description: str
    parameters: dict[str, Any] = Field(description="JSON schema of the arguments.")
    output_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the result, where it is known."
    )
    risk: Risk
    idempotent: bool
    timeout_seconds: float
    enabled: bool
    disabled_reason: str | None = Field(default=None, description="Why it is disabled, where no person did it.")
    available: bool = Field(description="Whether it can be offered with the present settings.")
    id: UUID | None = Field(default=None, description="Of a registered tool.")
    version: int | None = None
    sha256: str | None = Field(default=None, description="Names the version's content.")
    code: str | None = None
    limits: Limits | None = None
    allowed_imports: list[str] | None = None
    tools: list[str] | None = Field(default=None, description="The tools that its code may call.")
    method: str | None = None
    url: str | None = None
    headers: dict[str, str] | None = None
    query: dict[str, Any] | None = None
    body: Any = None
    body_format: str | None = None
    response_path: str | None = None
    credential: str | None = Field(default=None, description="The name of the credential it uses.")
    digest: str | None = None
    validate_responses: bool | None = Field(default=None, description="Whether answers are held to `output_schema`.")
    source: str | None = Field(default=None, description="mcp: the server, as a tool source.")
    tool: str | None = Field(default=None, description="mcp: the name that the server has for it.")
    retries: int = Field(default=0, description="How often a call is made again when it fails in passing.")
    cost_usd: float = Field(default=0, description="What a finished call costs beside its model requests.")
    approval: Any = Field(default=None, description="Its own approval policy, which agents can't loosen.")
    created_at: datetime | None = None
    updated_at: datetime | None = None


class ExecutedOut(BaseModel):
    """How a call ended: a result or an error."""

    result: Any = Field(description="A JSON value.", examples=["yelraP"])
    duration_ms: float = Field(examples=[1.5])
    error: str | None = Field(description="Why it failed; null when it did not.")


def show_installed(tool: Tool, settings: Settings) -> ToolOut:
    """A tool of the installation as the API shows it."""
    return ToolOut(
        name=tool.name,
        kind=tool.kind,
        description=tool.description,
        parameters=tool.parameters,
        risk=tool.risk,
        idempotent=tool.idempotent,
        timeout_seconds=tool.timeout_seconds,
        enabled=True,
        available=tool.available(settings),
        output_schema=tool.output_schema,
        retries=tool.retries,
        cost_usd=float(tool.cost_usd),
        approval=[rule.model_dump(mode="json", exclude_defaults=True) for rule in tool.approval] or None,
    )


def show(stored: rows.Stored) -> ToolOut:
    """A registered tool as the API shows it."""
    tool, version = stored
    content = spec_of(version.spec).model_dump(exclude={"function", "name", "own"})
    content["output_schema"] = content.pop("returns", None) or content.get("output_schema")
    return ToolOut(
        **content,
        name=tool.name,
        enabled=tool.enabled,
        disabled_reason=tool.disabled_reason,
        available=tool.enabled,
        approval=tool.approval,
        id=tool.id,
        version=version.version,
        sha256=version.sha256,
        created_at=tool.created_at,
        updated_at=tool.updated_at,
    )


# --- reading --------------------------------------------------------------------------------------


@router.get("/tools", summary="List tools")
async def list_tools(
    caller: Reads,
    page: Annotated[PageOf, paged("tools")],
    kind: Annotated[
        str | None, Query(description="builtin, extension, python, http, openapi or mcp.", examples=["python"])
    ] = None,
) -> Page[ToolOut]:
    """Built-in and registered tools by name."""
    after = page.position or ""
    wanted = [tool for name, tool in INSTALLED.items() if name > after and kind in (None, tool.kind)]
    async with caller.transaction() as session:
        found = await rows.page(session, caller.workspace_id, after=after, limit=page.fetch, kind=kind)
    tools = [*(show_installed(tool, caller.settings) for tool in wanted), *map(show, found)]
    tools.sort(key=lambda tool: tool.name)
    return page.cut(tools, lambda tool: tool, key=lambda tool: tool.name)


@router.get("/tools/{name}", summary="Show a tool")
async def get_tool(name: str, caller: Reads) -> ToolOut:
    """A built-in or registered tool."""
    if name in INSTALLED:
        return show_installed(INSTALLED[name], caller.settings)
    async with caller.transaction() as session:
        return show(await rows.get(session, caller.workspace_id, name))


@router.get("/tools/{name}/versions", summary="List versions")
async def list_versions(name: str, caller: Reads, page: Annotated[PageOf, paged("tool versions")]) -> Page[ToolOut]:
    """All versions of a registered tool, newest first."""
    if name in INSTALLED:
        return Page(items=[show_installed(INSTALLED[name], caller.settings)], next_cursor=None)
    async with caller.transaction() as session:
        tool, _ = await rows.get(session, caller.workspace_id, name)
        versions = await rows.versions(session, tool, before=page.number, limit=page.fetch)
        return page.cut(versions, lambda each: _of_version(tool, each), key=lambda each: each.version)


def _of_version(tool: RegisteredTool, version: ToolVersion) -> ToolOut:
    return show((tool, version)).model_copy(update={"created_at": version.created_at})


# --- writing --------------------------------------------------------------------------------------


@router.post("/tools", status_code=201, summary="Make a tool")
async def create_tool(body: ToolBody, caller: Writes, key: Idempotent, response: Response) -> ToolOut | ImportOut:
    """Checks and saves a tool; it can be called from the next run on.

    The kind openapi makes one of each operation of a document, mcp one of each tool of a server.
    """
    if body.kind == "mcp":
        return await connect(body, caller, key)
    if body.kind == "openapi":
        fields = {name: value for name, value in body.given.items() if name not in ("kind", "description")}
        return await take_in(ImportBody(**fields), caller, key)
    return await _create(body, caller, key, response)


@router.post("/tools/register", status_code=201, summary="Register a Python function")
async def register_tool(body: RegisterBody, caller: Writes, key: Idempotent, response: Response) -> ToolOut:
    """The short way to make a Python tool: one `async def`, whose parameters are read from its signature."""
    whole = ToolBody(kind="python", name=body.name, description=body.description, code=body.code)
    return await _create(whole, caller, key, response, async_only=True)


async def _create(
    body: ToolBody, caller: Caller, key: Idempotent, response: Response, *, async_only: bool = False
) -> ToolOut:
    check_free(str(body.name))
    await check_credential(body.credential, caller)
    await _check_tools(body.name, body.tools, caller)
    values = {name: value for name, value in body.given.items() if name not in NO_CONTENT}
    only = {"async_only": True} if async_only else {}
    definition = await definition_of(body.kind, values | only)
    check_approval(body, definition)
    tool_id = new_id()
    async with caller.transaction() as session:
        if repeat := await key.claim(session, caller, "tool", f"{tool_id} {body.name}"):
            stored = await rows.get(session, caller.workspace_id, repeat.id.partition(" ")[2])
        else:
            stored = await rows.create(
                session, caller.workspace_id, caller.principal.id, definition, tool_id=tool_id, approval=body.approval
            )
            sha256 = definition.sha256
            audit.record(session, caller.entry("tool.create", "tool", body.name, sha256=sha256, **_policy(body)))
        response.headers["Location"] = f"/tools/{body.name}"
        return show(stored)


def _policy(body: Content) -> dict[str, Any]:
    """What the audit log keeps of a body's approval policy."""
    return {} if body.approval is None else {"approval": body.approval}


async def _check_tools(name: str, called: list[str] | None, caller: Caller) -> None:
    """Refuse tools that do not exist, or that code can't call, by their field."""
    for index, tool in enumerate(called or []):
        at = f"tools.{index}"
        if tool == name:
            raise InvalidTool("a function can't call itself as a tool", field=at)
        try:
            await _at_hand(tool, caller)
        except (NotFound, Disabled) as error:
            raise UnknownReference(error.detail, field=at) from error


@router.patch("/tools/{name}", summary="Change a tool")
async def patch_tool(name: str, changes: ToolPatch, caller: Writes) -> ToolOut:
    """New content is a new version, in force for whatever starts after this."""
    check_own(name)
    async with caller.transaction() as session:
        _, version = await rows.get(session, caller.workspace_id, name)
    await check_credential(changes.credential, caller)
    await _check_tools(name, changes.tools, caller)
    definition = await changed(spec_of(version.spec), changes)
    check_approval(changes, definition or Definition(version.spec, version.sha256))
    async with caller.transaction() as session:
        stored = await rows.change(
            session,
            caller.workspace_id,
            caller.principal.id,
            name,
            definition=definition,
            enabled=changes.enabled,
            approval=changes.approval,
        )
        audit.record(session, caller.entry("tool.patch", "tool", name, version=stored[1].version, **_policy(changes)))
        return show(stored)


@router.delete("/tools/{name}", status_code=204, summary="Delete a tool")
async def delete_tool(name: str, caller: Writes) -> None:
    """Agents that name it go on without it; its name is free again."""
    async with caller.transaction() as session:
        try:
            await rows.delete(session, caller.workspace_id, name)
        except NotFound:
            check_own(name)
            raise
        audit.record(session, caller.entry("tool.delete", "tool", name))


# --- executing ------------------------------------------------------------------------------------


@router.post("/tools/execute", summary="Call a tool by name")
async def execute_named(body: ExecuteBody, caller: Writes, key: Idempotent) -> ExecutedOut:
    """As `/tools/{name}/execute`, with the name in the body."""
    try:
        return await _execute(body.tool, body.arguments, caller, key)
    except NotFound as error:
        raise UnknownReference(error.detail, field="tool") from error


@router.post("/tools/{name}/execute", summary="Call a tool")
async def execute_tool(name: str, body: ArgumentsBody, caller: Writes, key: Idempotent) -> ExecutedOut:
    """Calls a tool by hand, outside any run. A call that fails is 200 with `error`."""
    return await _execute(name, body.arguments, caller, key)


async def _execute(name: str, arguments: dict[str, Any], caller: Caller, key: IdempotencyKey) -> ExecutedOut:
    tool, stored = await _at_hand(name, caller)
    engine = caller.engine
    context = HandContext(
        workspace_id=caller.workspace_id,
        settings=caller.settings,
        egress=engine.egress.of(caller.workspace_id),
        credentials=engine.credentials,
        sessions=engine.sessions,
        memories=_memories(caller),
        documents=_documents(caller),
        providers=engine.providers,
        effect_key=new_id(),
        database=caller.database,
        tools=await _of_code(stored, caller),
        clock=CallClock(tool.timeout_seconds),
        principal_id=caller.principal.id,
    )
    async with caller.database.engine_tx() as connection:
        repeat = await key.claim(connection, caller, "tool_call", context.effect_key)
        if not repeat:  # Before the call: one that takes this process down has an author, too.
            await audit.record_engine(connection, caller.entry("tool.execute", "tool", name, call=context.effect_key))
    if repeat:
        return await _executed(caller, repeat.uuid)
    try:
        done: Executed = await execute(context, tool, arguments, version=stored.version if stored else None)
    except InvalidArguments as error:
        async with caller.database.connection() as connection:
            await key.give_back(connection, context.effect_key)
        field = f"arguments.{error.field}" if error.field else "arguments"
        raise InvalidArguments(error.detail, field=field) from error
    return ExecutedOut(result=done.result, duration_ms=done.duration_ms, error=done.error)


def _documents(caller: Caller) -> Library:
    return Library(caller.database, caller.engine.embedder, caller.workspace_id, Writer(caller.principal.id))


def _memories(caller: Caller) -> Memories:
    """A call by hand has a person, and no agent or task."""
    who = caller.principal.id
    return Memories(caller.database, caller.workspace_id, {"person": Owner(principal_id=who)}, Writer(who))


EXECUTED = "select result, duration_ms, error from tool_calls where workspace_id = $1 and id = $2"


async def _executed(caller: Caller, call_id: UUID) -> ExecutedOut:
    row = await caller.database.fetchrow(EXECUTED, caller.workspace_id, call_id)
    if row is None:
        raise Conflict("this call is under way, or was cut off before its result was stored")
    return ExecutedOut(**dict(row))


async def _of_code(stored: ToolVersion | None, caller: Caller) -> dict[str, Tool]:
    """The tools that the code of a tool calls; one that is gone is missed when the code runs."""
    found: dict[str, Tool] = {}
    called: list[str] = stored.spec.get("tools", []) if stored else []
    for name in called:
        with suppress(NotFound, Disabled):
            found[name] = (await _at_hand(name, caller))[0]
    return found


async def _at_hand(name: str, caller: Caller) -> tuple[Tool, ToolVersion | None]:
    async with caller.transaction() as session:
        return await find(session, caller.workspace_id, name)
