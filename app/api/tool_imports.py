"""Tools from OpenAPI documents: looked at first, or saved; done again, each changed operation is a new version."""

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app import audit
from app.api.access import Caller, may
from app.api.idempotency import IdempotencyKey, Idempotent
from app.api.shapes import Body
from app.api.strict import resource
from app.credentials import rows as credentials
from app.errors import Duplicate, InvalidRequest, InvalidTool, NotFound, UnknownReference
from app.models import new_id
from app.tools import BUILT_IN, Risk
from app.tools import registered as rows
from app.tools.openapi import MAX_DOCUMENT_BYTES, Import, check_document, read_document, read_operations
from app.tools.python import Definition

router = resource("tools")

Writes = Annotated[Caller, may("tools:write")]
FETCH_SECONDS = 20.0
Action = Literal["create", "update", "unchanged"]


class ImportBody(Body):
    """A document to be made into tools."""

    name: str = Field(
        pattern=r"^[a-zA-Z_][a-zA-Z0-9_-]{1,30}$", description="Begins the tools' names.", examples=["shop"]
    )
    document: dict[str, Any] | str | None = Field(default=None, description="OpenAPI 3.0 or 3.1, as JSON or as text.")
    url: str | None = Field(default=None, max_length=4000, description="Where the document is, instead.")
    base_url: str | None = Field(default=None, max_length=4000, description="The service, if not the document's.")
    include: list[str] | None = Field(default=None, max_length=1000, description="The operationIds wanted; else all.")
    credential: str | None = Field(default=None, max_length=100, description="The name of a credential.")
    timeout_seconds: float | None = Field(default=None, gt=0, le=120, description="How long a call may take.")
    preview: bool = Field(default=False, description="Only say what would be made.")


class ImportedOut(BaseModel):
    """A tool of the document."""

    name: str = Field(examples=["shop_getOrder"])
    description: str
    method: str = Field(examples=["GET"])
    url: str
    risk: Risk
    parameters: dict[str, Any]
    action: Action = Field(description="What was done, or would be.")
    version: int | None = Field(description="The version served; null in a preview of a new tool.")


class SkippedOut(BaseModel):
    """An operation that can't be a tool."""

    operation: str
    reason: str


class ImportOut(BaseModel):
    """What a document became, or would become."""

    name: str
    preview: bool
    tools: list[ImportedOut]
    skipped: list[SkippedOut]


@router.post("/tools/import", summary="Import an OpenAPI document")
async def import_tools(body: ImportBody, caller: Writes, key: Idempotent) -> ImportOut:
    """Makes a tool of each operation, named `<name>_<operationId>`. Done again, what changed is a new version."""
    return await take_in(body, caller, key)


async def take_in(body: ImportBody, caller: Caller, key: IdempotencyKey) -> ImportOut:
    """Read the document, outside any transaction, then save its tools in one.

    Raises:
        InvalidTool: naming what is wrong with the document.
        Duplicate: when a name is taken by a tool of another kind.
    """
    await _check_credential(body, caller)
    found = await _read(body, caller)
    async with caller.transaction() as session:
        repeated = None if body.preview else await key.claim(session, caller, "import", f"{new_id()} {body.name}")
        tools = [
            await _take(each, caller, session, save=not body.preview and not repeated) for each in found.definitions
        ]
        if not body.preview and not repeated:
            audit.record(session, caller.entry("tool.import", "tool", body.name, tools=len(tools)))
    skipped = [SkippedOut(operation=each.operation, reason=each.reason) for each in found.skipped]
    return ImportOut(name=body.name, preview=body.preview, tools=tools, skipped=skipped)


async def _check_credential(body: ImportBody, caller: Caller) -> None:
    if body.credential is None:
        return
    try:
        async with caller.transaction() as session:
            await credentials.named(session, caller.workspace_id, body.credential)
    except NotFound as error:
        raise UnknownReference(error.detail, field="credential") from error


async def _read(body: ImportBody, caller: Caller) -> Import:
    if (body.document is None) == (body.url is None):
        raise InvalidRequest("either document or url is required", field="document")
    text: bytes | str | dict[str, Any] | None = body.document
    if body.url is not None:
        answer = await caller.engine.egress.fetch(
            "GET", body.url, timeout_seconds=FETCH_SECONDS, max_bytes=MAX_DOCUMENT_BYTES, follow_redirects=True
        )
        if answer.status != 200:
            raise InvalidTool(f"url: the server answered {answer.status}", field="url")
        text = answer.body
    # Long documents take a while to read: not on the event loop.
    return await asyncio.to_thread(_operations, text, body)


def _operations(text: Any, body: ImportBody) -> Import:
    document = check_document(text) if isinstance(text, dict) else read_document(text)
    return read_operations(
        document,
        name=body.name,
        base_url=body.base_url,
        include=body.include,
        source=body.url,
        credential=body.credential,
        timeout_seconds=body.timeout_seconds,
    )


async def _take(definition: Definition, caller: Caller, session: Any, *, save: bool) -> ImportedOut:
    name = str(definition.spec["name"])
    if name in BUILT_IN:
        raise Duplicate(f"{name} is a built-in tool", field="name")
    try:
        tool, version = await rows.get(session, caller.workspace_id, name)
    except NotFound:
        if save:
            await rows.create(session, caller.workspace_id, caller.principal.id, definition)
        return _shown(definition, "create", 1 if save else None)
    if tool.kind != "openapi":
        raise Duplicate(f"a tool called {name} exists already, of the kind {tool.kind}", field="name")
    if version.sha256 == definition.sha256:
        return _shown(definition, "unchanged", version.version)
    if save:
        who = caller.principal.id
        _, version = await rows.change(session, caller.workspace_id, who, name, definition=definition, enabled=None)
    return _shown(definition, "update", version.version)


def _shown(definition: Definition, action: Action, version: int | None) -> ImportedOut:
    shown = {name: definition.spec[name] for name in ("name", "description", "method", "url", "risk", "parameters")}
    return ImportedOut(**shown, action=action, version=version)
