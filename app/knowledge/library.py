"""The door of tools to the documents of their workspace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db import Connection, Database
from app.knowledge import documents
from app.knowledge.documents import NewDocument
from app.knowledge.embedding import Embedder
from app.knowledge.metadata import checked_filters
from app.knowledge.reading import MARKDOWN, Reading, checked
from app.knowledge.search import Found, search
from app.knowledge.writer import Hold, Writer, by_hand


@dataclass(frozen=True)
class Library:
    """The documents of one workspace, as one call may use them.

    Attributes:
        hold: Called first in a transaction that adds; raises when the call's run is not held any more.
    """

    database: Database
    embedder: Embedder
    workspace_id: UUID
    writer: Writer
    hold: Hold[Connection] = by_hand

    async def search(self, query: str, filters: Mapping[str, Any] | None, limit: int) -> Found:
        """The chunks that answer a query, best first.

        Raises:
            InvalidRequest: naming the filter at fault.
        """
        return await search(
            self.database, self.embedder, self.workspace_id, query, checked_filters(filters), limit=limit
        )

    async def add(self, document_id: UUID, title: str, text: str, metadata: Mapping[str, Any]) -> NewDocument:
        """Keep a text as a document; under the same id it is kept once.

        Raises:
            InvalidRequest: naming the field.
            LeaseLost: when the call's run is not held any more.
        """
        new = documents.checked(
            NewDocument(
                id=document_id,
                workspace_id=self.workspace_id,
                title=title,
                reading=checked(Reading(text, MARKDOWN), field="text"),
                size=len(text.encode()),
                metadata=metadata,
                trusted=self.writer.trusted,
                conversation_id=self.writer.conversation_id,
                run_id=self.writer.run_id,
                principal_id=self.writer.principal_id,
            )
        )
        chunks = await documents.cut(new)
        async with self.database.engine_tx() as connection:
            await self.hold(connection)
            await documents.add(connection, new, chunks)
        return new
