"""The files that a run made, as the messages about its end show them: by links, and in mails as attachments."""

from dataclasses import dataclass
from uuid import UUID

from app.db import Database
from app.notifications.notice import OUTCOMES, Notice

MAX_LINKED = 20  # Links in one message; the run has the others.
# Attached to one mail: either all files or none. Base64 makes a third more of them, and many servers take 10 MB.
MAX_ATTACHED, MAX_ATTACHED_BYTES = 10, 5_000_000

MADE = """
select id, name, media_type, size from artifacts
where workspace_id = $1 and conversation_id = $2 and run_id = $3 order by created_at, id limit $4
"""
CONTENTS = "select id, content from artifacts where workspace_id = $1 and id = any($2::uuid[])"


@dataclass(frozen=True)
class File:
    """A file that a run made, and where it can be downloaded."""

    id: UUID
    name: str
    media_type: str
    size: int
    url: str


@dataclass(frozen=True)
class Files:
    """The files to show with one notice."""

    database: Database
    workspace_id: UUID
    linked: tuple[File, ...]

    @classmethod
    async def of(cls, database: Database, notice: Notice) -> "Files":
        """Those of a run that has ended; messages on its way show none."""
        if notice.rule not in OUTCOMES or notice.rule == "waiting":
            return cls(database, notice.workspace_id, ())
        rows = await database.fetch(MADE, notice.workspace_id, notice.conversation_id, notice.run_id, MAX_LINKED)
        at = f"{notice.base_url.rstrip('/')}/artifacts"
        linked = tuple(File(**dict(row), url=f"{at}/{row['id']}/content") for row in rows)
        return cls(database, notice.workspace_id, linked)

    async def contents(self) -> dict[UUID, bytes]:
        """The contents of files that fit into a mail together, else of none."""
        fit = len(self.linked) <= MAX_ATTACHED and sum(file.size for file in self.linked) <= MAX_ATTACHED_BYTES
        if not fit or not self.linked:
            return {}
        rows = await self.database.fetch(CONTENTS, self.workspace_id, [file.id for file in self.linked])
        return {row["id"]: row["content"] for row in rows}
