"""Artifacts: files that people upload and tools make, kept with their content in PostgreSQL, each up to a cap."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.db import Connection
from app.errors import BodyTooLarge, InvalidRequest, NotFound
from app.models import Artifact
from app.settings import Settings

MAX_NAME = 200
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
ANY_TYPE = "application/octet-stream"

# The id is the caller's: the same artifact kept again, after a crash, is no second one.
INSERT = """
insert into artifacts (id, workspace_id, name, media_type, size, sha256, content, conversation_id, run_id, principal_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id) do nothing returning true
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
