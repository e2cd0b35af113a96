"""The resource /artifacts."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, Field

from app import artifacts, audit
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.multipart import read_form
from app.api.strict import check_text, resource
from app.artifacts import ANY_TYPE, NewArtifact
from app.errors import InvalidRequest
from app.models import Artifact, new_id

router = resource("artifacts")

Reads = Annotated[Caller, may("artifacts:read")]
Writes = Annotated[Caller, may("artifacts:write")]

FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The file."},
                        "name": {"type": "string", "description": "Its name; the uploaded one when left out."},
                    },
                }
            }
        },
    }
}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
}
# Nothing in a stored file may act in a browser on this server's behalf: it is downloaded, never shown or run.
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=3600",
}


class ArtifactOut(BaseModel):
    """A file."""

    id: UUID
    name: str = Field(examples=["report.csv"])
    media_type: str = Field(examples=["text/csv"])
    size: int = Field(description="Bytes.", examples=[1024])
    sha256: str = Field(description="Of the content.")
    conversation_id: UUID | None = Field(description="Where a run made it; null for an upload.")
    run_id: UUID | None
    created_at: datetime


def show(row: Artifact) -> ArtifactOut:
    """An artifact as the API shows it."""
    return ArtifactOut.model_validate(row, from_attributes=True)


@router.post("/artifacts", status_code=201, summary="Upload a file", openapi_extra=FORM)
async def create_artifact(request: Request, caller: Writes, key: Idempotent, response: Response) -> ArtifactOut:
    """Keeps the form's `file`, up to `PARLEY_ARTIFACT_BYTES`."""
    artifact = artifacts.checked(await _uploaded(request, caller), caller.settings)
    async with caller.transaction() as session:
        if repeat := await key.claim(session, caller, "artifact", artifact.id):
            row = await artifacts.get(session, caller.workspace_id, repeat.uuid)
        else:
            row = artifacts.row_of(artifact)
            session.add(row)
            await session.flush()
            await session.refresh(row, ["created_at"])
            audit.record(session, caller.entry("artifact.create", "artifact", row.id, sha256=row.sha256))
        response.headers["Location"] = f"/artifacts/{row.id}"
        return show(row)


async def _uploaded(request: Request, caller: Caller) -> NewArtifact:
    form = await read_form(request)
    file, given = form.get("file"), form.get("name")
    if file is None:
        raise InvalidRequest("the form has no field called file", field="file")
    name = given.content.decode("utf-8", "replace") if given else (file.filename or "file").replace("\\", "/")
    name = name if given else name.rpartition("/")[2]
    check_text(name, "name")
    return NewArtifact(
        id=new_id(),
        workspace_id=caller.workspace_id,
        name=name,
        media_type=file.media_type or ANY_TYPE,
        content=file.content,
        principal_id=caller.principal.id,
    )


@router.get("/artifacts/{artifact_id}", summary="Show a file")
async def get_artifact(artifact_id: UUID, caller: Reads) -> ArtifactOut:
    """What it is; the content has a path of its own."""
    async with caller.transaction() as session:
        return show(await artifacts.get(session, caller.workspace_id, artifact_id))


@router.get("/artifacts/{artifact_id}/content", summary="Download a file", response_class=Response, responses=FILE)
async def get_content(artifact_id: UUID, caller: Reads) -> Response:
    """The bytes, to be saved: a browser neither shows nor runs them."""
    async with caller.transaction() as session:
        row = await artifacts.get(session, caller.workspace_id, artifact_id, whole=True)
        headers = {**SAFE, "ETag": f'"{row.sha256}"', "Content-Disposition": disposition(row.name)}
        return Response(row.content, media_type=row.media_type, headers=headers)


@router.delete("/artifacts/{artifact_id}", status_code=204, summary="Delete a file")
async def delete_artifact(artifact_id: UUID, caller: Writes) -> None:
    """Really deletes it; agents that read a message which names it are told that it is gone."""
    async with caller.transaction() as session:
        await artifacts.remove(session, caller.workspace_id, artifact_id)
        audit.record(session, caller.entry("artifact.delete", "artifact", artifact_id))


def disposition(name: str) -> str:
    """The header that says what a download is called, whatever its name holds."""
    plain = "".join(each if (each.isascii() and each.isalnum()) or each in "._- " else "_" for each in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
