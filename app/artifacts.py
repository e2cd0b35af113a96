"""Artifacts: files that people upload and tools make, kept with their content in PostgreSQL, each up to a cap."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.db import Connection, Row
from app.errors import BodyTooLarge, InvalidRequest, NotFound, UnknownReference
from app.models import Artifact
from app.settings import Settings

MAX_NAME = 200
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
ANY_TYPE = "application/octet-stream"
MAX_ATTACHED = 10  # Files of one message.
MAX_ATTACHED_BYTES = 20_000_000  # Of all its files; more is shown to no model.

# The id is the caller's: the same artifact kept again, after a crash, is no second one.
INSERT = """
insert into artifacts (id, workspace_id, name, media_type, size, sha256, content, conversation_id, run_id, principal_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id) do nothing returning true
"""

# The lock keeps the files until the message that names them is committed.
NAMED = """
select id, name, media_type, size from artifacts where workspace_id = $1 and id = any($2::uuid[]) for key share
"""


@dataclass(frozen=True)
class NewArtifact:
    """A file about to be kept, checked by `checked`."""

    id: UUID
    workspace_id: UUID
    name: str
    media_type: str
    content: bytes
    conversation_id: UUID | None = None
    run_id: UUID | None = None
    principal_id: UUID | None = None

    @property
    def shown(self) -> dict[str, Any]:
        """What events and tool results tell of it."""
        return {
            "artifact_id": str(self.id),
            "name": self.name,
            "media_type": self.media_type,
            "size": len(self.content),
        }


def checked(artifact: NewArtifact, settings: Settings) -> NewArtifact:
    """The artifact, if it may be kept.

    Raises:
        InvalidRequest: naming the field.
        BodyTooLarge: when it is over `PARLEY_ARTIFACT_BYTES`.
    """
    name = artifact.name
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or "/" in name or "\\" in name or not name.strip(". "):
        raise InvalidRequest(f"a file's name is 1 to {MAX_NAME} printable characters without a slash", field="name")
    if not MEDIA_TYPE.fullmatch(artifact.media_type):
        raise InvalidRequest(
            f"{artifact.media_type[:100]!r} is not a media type such as text/plain", field="media_type"
        )
    if len(artifact.content) > settings.parley_artifact_bytes:
        raise BodyTooLarge(f"an artifact has at most {settings.parley_artifact_bytes} bytes")
    return artifact


async def insert(connection: Connection, artifact: NewArtifact) -> bool:
    """Keep an artifact; whether it was not kept before."""
    return bool(
        await connection.fetchval(
            INSERT,
            artifact.id,
            artifact.workspace_id,
            artifact.name,
            artifact.media_type,
            len(artifact.content),
            hashlib.sha256(artifact.content).hexdigest(),
            artifact.content,
            artifact.conversation_id,
            artifact.run_id,
            artifact.principal_id,
        )
    )


def row_of(artifact: NewArtifact) -> Artifact:
    """The artifact as the row of a session."""
    return Artifact(
        id=artifact.id,
        workspace_id=artifact.workspace_id,
        name=artifact.name,
        media_type=artifact.media_type,
        size=len(artifact.content),
        sha256=hashlib.sha256(artifact.content).hexdigest(),
        content=artifact.content,
        principal_id=artifact.principal_id,
    )


async def get(session: AsyncSession, workspace_id: UUID, artifact_id: UUID, *, whole: bool = False) -> Artifact:
    """An artifact, with its content when `whole`.

    Raises:
        NotFound: when there is none of that id.
    """
    query = select(Artifact).where(Artifact.workspace_id == workspace_id, Artifact.id == artifact_id)
    found = await session.scalar(query.options(undefer(Artifact.content)) if whole else query)
    if found is None:
        raise NotFound(f"there is no artifact {artifact_id}")
    return found


async def references(
    connection: Connection, workspace_id: UUID, ids: Sequence[UUID], *, field: str = "attachments"
) -> list[dict[str, Any]]:
    """What a message keeps of the files it names, in their order; they stay at least until the caller's commit.

    Needs the transaction that accepts the message, which has locked the heads it locks already.

    Raises:
        UnknownReference: naming the one that the workspace does not have.
        InvalidRequest: when one is named twice, or they are too many or too large together.
    """
    if len(ids) > MAX_ATTACHED:
        raise InvalidRequest(f"a message has at most {MAX_ATTACHED} files", field=field)
    rows = {row["id"]: row for row in await connection.fetch(NAMED, workspace_id, list(ids))} if ids else {}
    for position, artifact_id in enumerate(ids):
        if artifact_id not in rows:
            raise UnknownReference(f"there is no artifact {artifact_id}", field=f"{field}.{position}")
        if artifact_id in ids[:position]:
            raise InvalidRequest(f"names the artifact {artifact_id} twice", field=f"{field}.{position}")
    if (size := sum(row["size"] for row in rows.values())) > MAX_ATTACHED_BYTES:
        said = f"the files have {size} bytes together; a message's have at most {MAX_ATTACHED_BYTES}"
        raise InvalidRequest(said, field=field)
    return [_reference(rows[artifact_id]) for artifact_id in ids]


async def remove(session: AsyncSession, workspace_id: UUID, artifact_id: UUID) -> None:
    """Really delete an artifact; where a message names it, the model is told that it is gone.

    Raises:
        NotFound: when there is none of that id.
    """
    gone = delete(Artifact).where(Artifact.workspace_id == workspace_id, Artifact.id == artifact_id)
    if await session.scalar(gone.returning(Artifact.id)) is None:
        raise NotFound(f"there is no artifact {artifact_id}")


def _reference(row: Row) -> dict[str, Any]:
    names = ("name", "media_type", "size")
    return {"artifact_id": str(row["id"]), **{name: row[name] for name in names}}
