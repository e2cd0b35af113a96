"""Tools from OpenAPI documents: looked at first, or saved; done again, each changed operation is a new version."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError

from app import audit
from app.api.access import Caller, may
from app.api.idempotency import IdempotencyKey, Idempotent
from app.api.multipart import Part, is_form, read_form
from app.api.openapi import schema_of
from app.api.problems import fields_of, misfit
from app.api.shapes import Body
from app.api.strict import is_json, read_json, resource
from app.credentials import rows as credentials
from app.errors import EgressRefused, InvalidRequest, InvalidTool, NotFound, UnknownReference, UnsupportedMediaType
from app.models import new_id
from app.tools import Risk, sources
from app.tools.openapi import MAX_DOCUMENT_BYTES, Import, check_document, read_document, read_operations
from app.tools.sources import Action, Contents, Taken

router = resource("tools")

Writes = Annotated[Caller, may("tools:write")]
FETCH_SECONDS = 20.0
# What of an import its source keeps, for the next time.
KEPT = ("url", "base_url", "include", "credential", "timeout_seconds", "validate_responses")


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
    validate_responses: bool = Field(default=False, description="Fail calls whose answer is not what it declares.")
    preview: bool = Field(default=False, description="Only say what would be made.")


class ImportedOut(BaseModel):
    """A tool of the document or server."""

    name: str = Field(examples=["shop_getOrder"])
    description: str
    method: str | None = Field(default=None, description="Of an operation.", examples=["GET"])
    url: str
    risk: Risk
    parameters: dict[str, Any]
    action: Action = Field(description="What was done, or would be.")
    version: int | None = Field(description="The version served; null in a preview of a new tool.")


class SkippedOut(BaseModel):
    """What can't be a tool."""

    operation: str = Field(description="The operation, or the server's name of the tool.")
    reason: str


class ImportOut(BaseModel):
    """What a document or server became, or would become."""

    name: str
    preview: bool
    tools: list[ImportedOut]
    skipped: list[SkippedOut]


FORM = {
    "type": "object",
    "required": ["file", "name"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The document, JSON or YAML."},
        "include": {"type": "string", "description": "The operationIds wanted, with commas between; else all."},
        **{name: {"type": "string"} for name in ("name", "base_url", "credential", "timeout_seconds")},
        **{name: {"type": "string", "enum": ["true", "false"]} for name in ("validate_responses", "preview")},
    },
}
SENT = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": schema_of(ImportBody)}, "multipart/form-data": {"schema": FORM}},
    }
}


@router.post("/tools/import", summary="Import an OpenAPI document", openapi_extra=SENT)
async def import_tools(request: Request, caller: Writes, key: Idempotent) -> ImportOut:
    """Makes a tool of each operation, named `<name>_<operationId>`. Done again, what changed is a new version.

    The document is in the body, in a form's `file`, or where `url` says. A tool whose operation is gone from the
    document is disabled, and enabled again when it is back.
    """
    return await take_in(await _sent(request), caller, key)


async def _sent(request: Request) -> ImportBody:
    """What to import, as JSON or as a form with the document's file.

    Raises:
        UnsupportedMediaType: the body is neither.
        InvalidRequest: naming the field.
    """
    kind = request.headers.get("content-type", "")
    if is_form(kind):
        return _of_form(await read_form(request))
    if not is_json(kind):
        raise UnsupportedMediaType("send application/json, or a file as multipart/form-data")
    return _body(await asyncio.to_thread(read_json, await request.body()))


def _of_form(form: dict[str, Part]) -> ImportBody:
    if "file" not in form:
        raise InvalidRequest("the form has no field called file", field="file")
    said: dict[str, Any] = {name: part.text(name) for name, part in form.items()}
    for own in ("document", "url"):
        if own in said:
            raise InvalidRequest("the form has a file: it takes neither document nor url", field=own)
    if "include" in said:
        said["include"] = [each.strip() for each in said["include"].split(",")]
    said["document"] = said.pop("file")
    return _body(said)


def _body(said: Any) -> ImportBody:
    try:
        return ImportBody.model_validate(said)
    except ValidationError as error:
        raise misfit(error, fields_of(ImportBody)) from error


async def take_in(body: ImportBody, caller: Caller, key: IdempotencyKey) -> ImportOut:
    """Read the document, outside any transaction, then save its tools in one.

    Raises:
        InvalidTool: naming what is wrong with the document.
        Duplicate: when a name is taken by a tool from elsewhere.
    """
    if not body.preview and (repeated := await repeat(body.name, caller, key)):
        return repeated
    await check_credential(body.credential, caller)
    read = await _read(body, caller)
    skipped = [(each.operation, each.reason) for each in read.skipped]
    found = Contents(read.definitions, skipped, read.names)
    async with caller.transaction() as session:
        taken = await _taken(body, caller, session, found, key)
    return show_source(body.name, taken, skipped, preview=body.preview)


async def repeat(name: str, caller: Caller, key: IdempotencyKey) -> ImportOut | None:
    """A source in its present state, when this request has made it before."""
    async with caller.transaction() as session:
        if not await key.made(session, caller):
            return None
        source, tools = await sources.present(session, caller.workspace_id, name)
    return show_source(name, tools, source.skipped)


def show_source(name: str, tools: list[Taken], skipped: Iterable[Sequence[str]], *, preview: bool = False) -> ImportOut:
    """A source as the answer shows it."""
    left_out = [SkippedOut(operation=operation, reason=reason) for operation, reason in skipped]
    return ImportOut(name=name, preview=preview, tools=[show_taken(each) for each in tools], skipped=left_out)


async def _taken(body: ImportBody, caller: Caller, session: Any, found: Contents, key: IdempotencyKey) -> list[Taken]:
    who, workspace_id = caller.principal.id, caller.workspace_id
    if body.preview:
        return [await sources.take(session, workspace_id, who, each, source=None) for each in found.definitions]
    if await key.claim(session, caller, "import", f"{new_id()} {body.name}"):  # The same request came first, just now.
        return (await sources.present(session, workspace_id, body.name))[1]
    spec = body.model_dump(mode="json", include=set(KEPT))
    source = await sources.put(session, workspace_id, body.name, "openapi", spec)
    taken = await sources.save(session, source, who, found)
    audit.record(session, caller.entry("tool.import", "tool", body.name, tools=len(taken)))
    return taken


async def check_credential(name: str | None, caller: Caller) -> None:
    """Refuse a credential that does not exist, by its field.

    Raises:
        UnknownReference: when there is none of that name.
    """
    if name is None:
        return
    try:
        async with caller.transaction() as session:
            await credentials.named(session, caller.workspace_id, name)
    except NotFound as error:
        raise UnknownReference(error.detail, field="credential") from error


async def _read(body: ImportBody, caller: Caller) -> Import:
    if (body.document is None) == (body.url is None):
        raise InvalidRequest("either document or url is required", field="document")
    text: bytes | str | dict[str, Any] | None = body.document
    if body.url is not None:
        try:
            answer = await caller.engine.egress.of(caller.workspace_id).fetch(
                "GET", body.url, timeout_seconds=FETCH_SECONDS, max_bytes=MAX_DOCUMENT_BYTES, follow_redirects=True
            )
        except EgressRefused as error:
            raise EgressRefused(error.detail, field="url") from error
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
        validate_responses=body.validate_responses,
    )


def show_taken(taken: Taken) -> ImportedOut:
    """A tool as the answer shows it."""
    spec = taken.definition.spec
    shown: dict[str, Any] = {
        name: spec.get(name) for name in ("name", "description", "method", "url", "risk", "parameters")
    }
    return ImportedOut(**shown, action=taken.action, version=taken.version)
