"""The resource /documents: what agents can look up, and the search itself."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from app import artifacts, audit
from app.api.access import Caller, may
from app.api.artifacts import SAFE
from app.api.idempotency import Idempotent
from app.api.multipart import Part, is_form, read_form
from app.api.pages import Page, PageOf, paged
from app.api.problems import fields_of, misfit
from app.api.shapes import Body
from app.api.strict import check_text, is_json, read_json, resource
from app.errors import BodyTooLarge, InvalidRequest, NotFound, UnknownReference, UnsupportedMediaType
from app.knowledge import documents, reading
from app.knowledge.documents import MAX_SOURCE, MAX_TITLE, NewDocument
from app.knowledge.metadata import checked_filters, checked_metadata
from app.knowledge.search import MAX_QUERY, MAX_RESULTS, search, shown
from app.models import Chunk, Document, new_id

router = resource("documents")

Reads = Annotated[Caller, may("documents:read")]
Writes = Annotated[Caller, may("documents:write")]

State = Literal["indexing", "ready", "failed"]
METADATA = "By what searches can filter: names with a text, a number, true or false, or a list of these."


class DocumentBody(Body):
    """A document to be kept: its text, or an artifact that holds it."""

    title: str | None = Field(
        default=None, max_length=MAX_TITLE, description="What it is called when it is cited.", examples=["Handbook"]
    )
    text: str | None = Field(default=None, description="The text itself.", examples=["# Returns\n\nWithin 30 days."])
    artifact_id: UUID | None = Field(default=None, description="Instead of `text`: an artifact to read.")
    media_type: str | None = Field(
        default=None,
        max_length=200,
        description="text/plain (when left out), text/markdown or text/html; of an artifact, its own when left out.",
        examples=["text/markdown"],
    )
    metadata: dict[str, Any] = Field(
        default_factory=dict[str, Any], description=METADATA, examples=[{"team": "support", "year": 2026}]
    )
    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_SOURCE,
        description="Where it comes from; no two documents have the same.",
        examples=["https://example.com/handbook"],
    )
    trusted: bool = Field(default=True, description="False: agents are told to read its text as data.")


class DocumentPatch(Body):
    """Changes of what is said of a document; its text is replaced by PUT."""

    title: str | None = Field(default=None, min_length=1, max_length=MAX_TITLE, description="A new title.")
    metadata: dict[str, Any] | None = Field(default=None, description="In place of all that was noted.")
    trusted: bool | None = Field(default=None, description="Whether agents may take its text at its word.")


class DocumentOut(BaseModel):
    """A document."""

    id: UUID
    title: str = Field(examples=["Handbook"])
    source: str | None
    media_type: str = Field(description="What it was read as.", examples=["application/pdf"])
    size: int = Field(description="Bytes of what was sent.", examples=[1024])
    sha256: str = Field(description="Of its text.")
    metadata: dict[str, Any]
    trusted: bool = Field(description="False: its text may be of anybody's making.")
    version: int = Field(description="Rises when its text changes.", examples=[1])
    chunks: int = Field(description="How many parts it is searched in.", examples=[3])
    state: State = Field(description="How far its vectors are; by its words it is found at once.")
    reason: str | None = Field(description="Why it has no vectors.")
    embedding_model: str | None = Field(description="What made its vectors.", examples=["local"])
    conversation_id: UUID | None = Field(description="Where a run added it; null when a person did.")
    run_id: UUID | None
    created_at: datetime
    updated_at: datetime


class ChunkOut(BaseModel):
    """A part of a document."""

    number: int = Field(examples=[0])
    page: int | None
    heading: str | None
    begins_at: int = Field(description="Its first character in the document's text.")
    ends_at: int
    text: str


class SearchBody(Body):
    """What to look for."""

    query: str = Field(
        min_length=1, max_length=MAX_QUERY, description="In words.", examples=["How long can I return it?"]
    )
    filters: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="Only documents with this metadata: a value, or a list of which one must be there, per name. "
        "document_id, title, source and media_type can be named, too.",
        examples=[{"team": "support"}],
    )
    limit: int = Field(default=10, ge=1, le=MAX_RESULTS, description="How many results.")


class Position(BaseModel):
    """The place of a passage in its document."""

    chunk: int
    page: int | None
    heading: str | None
    begins_at: int = Field(description="Its first character in the document's text.")
    ends_at: int


class ResultOut(BaseModel):
    """A passage that was found."""

    text: str
    citation: str = Field(description="Document and place, to be quoted as the source.", examples=["Handbook, p. 3"])
    document_id: UUID
    title: str
    source: str | None
    position: Position
    metadata: dict[str, Any]
    trusted: bool
    score: float = Field(description="Higher is better; to compare within one answer.", examples=[0.0325])
    found_by: list[Literal["text", "vector"]]


class FoundOut(BaseModel):
    """What was found, best first."""

    items: list[ResultOut]
    without_vectors: str | None = Field(description="Why words alone were looked for; null when meaning was, too.")


FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Text, Markdown, HTML or PDF."},
        "title": {"type": "string", "description": "The file's own title, or its name, when left out."},
        "metadata": {"type": "string", "description": "A JSON object."},
        "source": {"type": "string"},
        "trusted": {"type": "string", "enum": ["true", "false"]},
    },
}
SENT = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": DocumentBody.model_json_schema()},
            "multipart/form-data": {"schema": FORM},
        },
    }
}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def show(row: Document) -> DocumentOut:
    """A document as the API shows it."""
    fields = {name: getattr(row, name) for name in DocumentOut.model_fields if name != "metadata"}
    return DocumentOut.model_validate({**fields, "metadata": row.tags})


@router.get("/documents", summary="List documents")
async def list_documents(
    caller: Reads,
    page: Annotated[PageOf, paged("documents")],
    state: Annotated[State | None, Query(description="How far their vectors are.")] = None,
    source: Annotated[str | None, Query(max_length=MAX_SOURCE, description="From there.")] = None,
    metadata: Annotated[
        str | None,
        Query(max_length=4_000, description="With this metadata: a JSON object.", examples=['{"year": 2026}']),
    ] = None,
) -> Page[DocumentOut]:
    """Documents, newest first."""
    filters = dict(checked_filters(_object(metadata, "metadata") if metadata else None, "metadata"))
    if source is not None:
        filters["source"] = [source]
    async with caller.transaction() as session:
        found = await documents.page(
            session, caller.workspace_id, after=page.after, limit=page.fetch, state=state, filters=filters
        )
    return page.cut(found, show)


@router.post("/documents", status_code=201, summary="Add a document", openapi_extra=SENT)
async def create_document(request: Request, caller: Writes, key: Idempotent, response: Response) -> DocumentOut:
    """Reads a text, an artifact or an uploaded file; it is found by its words at once, its vectors follow."""
    new = await _sent(request, caller, new_id())
    chunks, document_id = await documents.cut(new), new.id
    async with caller.database.engine_tx() as connection:
        if repeat := await key.claim(connection, caller, "document", new.id):
            document_id = repeat.uuid
        else:
            await documents.add(connection, new, chunks)
            entry = caller.entry("document.create", "document", new.id, title=new.title, sha256=new.sha256)
            await audit.record_engine(connection, entry)
    response.headers["Location"] = f"/documents/{document_id}"
    return await _shown(caller, document_id)


@router.post("/documents/search", summary="Search documents")
async def search_documents(body: SearchBody, caller: Reads) -> FoundOut:
    """The passages that fit the words or are near in meaning, merged; each with the place to cite."""
    filters = checked_filters(body.filters)
    found = await search(
        caller.database, caller.engine.embedder, caller.workspace_id, body.query, filters, limit=body.limit
    )
    items = [ResultOut.model_validate(shown(result)) for result in found.results]
    return FoundOut(items=items, without_vectors=found.without_vectors)


@router.get("/documents/{document_id}", summary="Show a document")
async def get_document(document_id: UUID, caller: Reads) -> DocumentOut:
    """What it is; text and chunks have paths of their own."""
    return await _shown(caller, document_id)


@router.get("/documents/{document_id}/content", summary="Read a document", response_class=Response, responses=CONTENT)
async def get_document_content(document_id: UUID, caller: Reads) -> Response:
    """Its text as it was read, in which positions count characters."""
    async with caller.transaction() as session:
        row = await documents.get(session, caller.workspace_id, document_id, whole=True)
    return Response(row.content, media_type="text/plain", headers={**SAFE, "ETag": f'"{row.sha256}"'})


@router.get("/documents/{document_id}/chunks", summary="List a document's chunks")
async def list_chunks(document_id: UUID, caller: Reads, page: Annotated[PageOf, paged("chunks")]) -> Page[ChunkOut]:
    """The parts in which it is searched, in their order."""
    async with caller.transaction() as session:
        await documents.get(session, caller.workspace_id, document_id)
        found = await documents.chunks(session, caller.workspace_id, document_id, after=page.number, limit=page.fetch)
    return page.cut(found, _show_chunk, lambda row: row.number)


def _show_chunk(row: Chunk) -> ChunkOut:
    return ChunkOut(
        number=row.number,
        page=row.page,
        heading=row.heading or None,
        begins_at=row.begins_at,
        ends_at=row.ends_at,
        text=row.text,
    )


@router.put("/documents/{document_id}", summary="Replace a document", openapi_extra=SENT)
async def put_document(document_id: UUID, request: Request, caller: Writes) -> DocumentOut:
    """Takes what POST takes. The same text keeps its version, its chunks and its vectors."""
    new = await _sent(request, caller, document_id)
    chunks = await documents.cut(new)
    async with caller.database.engine_tx() as connection:
        changed = await documents.replace(connection, new, chunks)
        entry = caller.entry("document.replace", "document", new.id, sha256=new.sha256, changed=changed)
        await audit.record_engine(connection, entry)
    return await _shown(caller, document_id)


@router.patch("/documents/{document_id}", summary="Change a document")
async def patch_document(document_id: UUID, changes: DocumentPatch, caller: Writes) -> DocumentOut:
    """In force for the next search."""
    given = changes.model_dump(exclude_unset=True)
    for name, value in given.items():
        if value is None:
            raise InvalidRequest(f"{name} can't be null", field=name)
    if changes.title is not None:
        documents.check_title(changes.title)
    if changes.metadata is not None:
        checked_metadata(changes.metadata)
    async with caller.transaction() as session:
        row = await documents.change(session, caller.workspace_id, document_id, **given)
        audit.record(session, caller.entry("document.patch", "document", row.id, fields=sorted(given)))
        return show(row)


@router.delete("/documents/{document_id}", status_code=204, summary="Delete a document")
async def delete_document(document_id: UUID, caller: Writes) -> None:
    """Deletes it with its chunks and vectors, for good; what was quoted in conversations stays there."""
    async with caller.transaction() as session:
        await documents.delete(session, caller.workspace_id, document_id)
        audit.record(session, caller.entry("document.delete", "document", document_id))


async def _shown(caller: Caller, document_id: UUID) -> DocumentOut:
    async with caller.transaction() as session:
        return show(await documents.get(session, caller.workspace_id, document_id))


# --- what was sent ----------------------------------------------------------------------------------


async def _sent(request: Request, caller: Caller, document_id: UUID) -> NewDocument:
    """The document of a request, read.

    Raises:
        UnsupportedMediaType: the body is neither JSON nor a form.
        InvalidRequest: naming the field.
    """
    kind = request.headers.get("content-type", "")
    if is_json(kind):
        return await _of_json(await request.body(), caller, document_id)
    if is_form(kind):
        return await _of_form(await read_form(request), caller, document_id)
    raise UnsupportedMediaType("send application/json, or a file as multipart/form-data")


async def _of_json(content: bytes, caller: Caller, document_id: UUID) -> NewDocument:
    try:
        body = DocumentBody.model_validate(await asyncio.to_thread(read_json, content))
    except ValidationError as error:
        raise misfit(error, fields_of(DocumentBody)) from error
    if (body.text is None) == (body.artifact_id is None):
        raise InvalidRequest("either text or artifact_id says what the document holds", field="text")
    if body.artifact_id is not None:
        return await _of_artifact(body, body.artifact_id, caller, document_id)
    content = (body.text or "").encode()
    return await _read(body, content, body.media_type or reading.PLAIN, "", "text", caller, document_id)


async def _of_artifact(body: DocumentBody, artifact_id: UUID, caller: Caller, document_id: UUID) -> NewDocument:
    caller.require("artifacts:read")
    try:
        async with caller.transaction() as session:
            row = await artifacts.get(session, caller.workspace_id, artifact_id, whole=True)
    except NotFound as error:
        raise UnknownReference(error.detail, field="artifact_id") from error
    given = body.media_type or row.media_type
    return await _read(body, row.content, given, row.name, "artifact_id", caller, document_id)


async def _of_form(form: dict[str, Part], caller: Caller, document_id: UUID) -> NewDocument:
    file = form.pop("file", None)
    if file is None:
        raise InvalidRequest("the form has no field called file", field="file")
    said = {name: part.text(name) for name, part in form.items()}
    metadata = _object(said.pop("metadata"), "metadata") if said.get("metadata") else {}
    try:
        body = DocumentBody.model_validate({**said, "metadata": metadata})
    except ValidationError as error:
        raise misfit(error, fields_of(DocumentBody)) from error
    if body.text is not None or body.artifact_id is not None:
        raise InvalidRequest("the form has a file: it takes neither text nor artifact_id", field="text")
    name = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    check_text(name, "file")
    return await _read(body, file.content, body.media_type or file.media_type, name, "file", caller, document_id)


async def _read(
    body: DocumentBody,
    content: bytes,
    given: str | None,
    name: str,
    field: str,
    caller: Caller,
    document_id: UUID,
) -> NewDocument:
    limit = caller.settings.parley_document_bytes
    if len(content) > limit:
        raise BodyTooLarge(f"a document has at most {limit} bytes")
    media_type = reading.media_type_of(given, name, content, field=field)
    found = await reading.read(content, media_type, field=field, workspace_id=caller.workspace_id)
    return documents.checked(
        NewDocument(
            id=document_id,
            workspace_id=caller.workspace_id,
            title=body.title or documents.title_of(found, name),
            reading=found,
            size=len(content),
            metadata=body.metadata,
            source=body.source,
            trusted=body.trusted,
            principal_id=caller.principal.id,
        )
    )


def _object(given: str, field: str) -> dict[str, Any]:
    value = read_json(given.encode())
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field}: this is not a JSON object", field=field)
    return cast("dict[str, Any]", value)
