"""The rows of documents: a document and its chunks are written in one transaction, and searched by text at once."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.db import Connection, UniqueViolation
from app.errors import Duplicate, InvalidRequest, NotFound
from app.knowledge.chunking import chunks_of
from app.knowledge.metadata import Filters, checked_metadata
from app.knowledge.reading import Reading
from app.models import Chunk, Document

MAX_TITLE = 300
MAX_SOURCE = 2_000
ROWS_AT_ONCE = 500

# The id is the caller's: the same document added again, after a crash, is no second one.
INSERT = """
insert into documents (id, workspace_id, title, source, media_type, size, sha256, content, metadata, trusted, version,
    chunks, conversation_id, run_id, principal_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $12, $13, $14) on conflict (id) do nothing returning true
"""
FIND = "select sha256, media_type, title from documents where workspace_id = $1 and id = $2 for no key update"
# Who is at work on the vectors of the old content finds another version, and writes nothing.
REPLACE = """
update documents set media_type = $3, size = $4, sha256 = $5, content = $6, chunks = $7, version = version + 1,
    state = 'indexing', reason = null, embedding_model = null, attempts = 0, next_attempt_at = now(), updated_at = now()
where workspace_id = $1 and id = $2
"""
DESCRIBE = """
update documents set title = $3, source = $4, metadata = $5, trusted = $6, updated_at = now()
where workspace_id = $1 and id = $2
"""
RETITLE = "update chunks set title = $3 where workspace_id = $1 and document_id = $2 and title <> $3"
CLEAR = "delete from chunks where workspace_id = $1 and document_id = $2"
INSERT_CHUNKS = """
insert into chunks (workspace_id, document_id, title, number, heading, page, begins_at, ends_at, text)
select $1, $2, $3, c.number, c.heading, c.page, c.begins_at, c.ends_at, c.text
from unnest($4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[])
    as c (number, heading, page, begins_at, ends_at, text)
"""


def fits(filters: str) -> str:
    """The condition on `documents` that a row has what the filters ask for; a list in the metadata has each of its values.

    Args:
        filters: The statement's placeholder of the filters, as `jsonb`.
    """
    return f"""not exists (
        select from jsonb_each({filters}) as wanted (name, any_of) where not exists (
            select from jsonb_array_elements(wanted.any_of) as one (value)
            where (documents.metadata || jsonb_build_object('document_id', documents.id, 'title', documents.title,
                'source', documents.source, 'media_type', documents.media_type)) -> wanted.name @> one.value))"""


@dataclass(frozen=True)
class NewDocument:
    """A document about to be kept, checked by `checked`.

    Attributes:
        size: Bytes of what was sent.
        source: Where it comes from; no two documents of a workspace have the same.
        trusted: False when its text may be of anybody's making.
    """

    id: UUID
    workspace_id: UUID
    title: str
    reading: Reading
    size: int
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    source: str | None = None
    trusted: bool = True
    conversation_id: UUID | None = None
    run_id: UUID | None = None
    principal_id: UUID | None = None

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.reading.text.encode()).hexdigest()


# The chunks of a document: number, heading, page, where it begins and ends, text.
ChunkRows = list[tuple[int, str, int | None, int, int, str]]


def checked(new: NewDocument) -> NewDocument:
    """The document, if it can be kept.

    Raises:
        InvalidRequest: naming the field.
    """
    check_title(new.title)
    if new.source is not None and not 1 <= len(new.source) <= MAX_SOURCE:
        raise InvalidRequest(f"a source has 1 to {MAX_SOURCE} characters", field="source")
    checked_metadata(new.metadata)
    return new


def check_title(title: str) -> None:
    """Refuse what is no title.

    Raises:
        InvalidRequest: always the field `title`.
    """
    if not title.strip() or len(title) > MAX_TITLE or not title.isprintable():
        raise InvalidRequest(f"a title has 1 to {MAX_TITLE} printable characters", field="title")


def title_of(reading: Reading, name: str) -> str:
    """What a document without a title is called: what it calls itself, else the file's name, else how it begins."""
    said = reading.title or name or reading.text[:MAX_TITLE].strip().partition("\n")[0].lstrip("# ")
    printable = "".join(each if each.isprintable() else " " for each in said)
    return " ".join(printable.split())[:MAX_TITLE] or "Document"


async def cut(new: NewDocument) -> ChunkRows:
    """The chunks of a document; done apart, for a long text takes a while."""
    return await asyncio.to_thread(_cut, new.reading)


def _cut(reading: Reading) -> ChunkRows:
    return [
        (number, each.heading, each.page, each.begins_at, each.ends_at, reading.text[each.begins_at : each.ends_at])
        for number, each in enumerate(chunks_of(reading))
    ]


# --- writing: through the engine pool, for tools write in their run's transaction -----------------------


async def add(connection: Connection, new: NewDocument, chunks: ChunkRows) -> bool:
    """Keep a document, in an `engine_tx()`; whether it was not kept before.

    Raises:
        Duplicate: when another one has its source.
    """
    try:
        added = await connection.fetchval(
            INSERT,
            new.id,
            new.workspace_id,
            new.title,
            new.source,
            new.reading.media_type,
            new.size,
            new.sha256,
            new.reading.text,
            dict(new.metadata),
            new.trusted,
            len(chunks),
            new.conversation_id,
            new.run_id,
            new.principal_id,
        )
    except UniqueViolation as error:
        raise _source_taken(new.source) from error
    if added:
        await _insert_chunks(connection, new, chunks)
    return bool(added)


async def replace(connection: Connection, new: NewDocument, chunks: ChunkRows) -> bool:
    """Put a document in the place of the one that has its id, in an `engine_tx()`; whether its text is another.

    Raises:
        NotFound: when there is none of that id.
        Duplicate: when another one has its source.
    """
    before = await connection.fetchrow(FIND, new.workspace_id, new.id)
    if before is None:
        raise missing(new.id)
    key = new.workspace_id, new.id
    try:
        await connection.execute(DESCRIBE, *key, new.title, new.source, dict(new.metadata), new.trusted)
    except UniqueViolation as error:
        raise _source_taken(new.source) from error
    if (before["sha256"], before["media_type"]) == (new.sha256, new.reading.media_type):
        await connection.execute(RETITLE, *key, new.title)
        return False
    reading = new.reading
    await connection.execute(REPLACE, *key, reading.media_type, new.size, new.sha256, reading.text, len(chunks))
    await connection.execute(CLEAR, *key)
    await _insert_chunks(connection, new, chunks)
    return True


async def _insert_chunks(connection: Connection, new: NewDocument, chunks: ChunkRows) -> None:
    for start in range(0, len(chunks), ROWS_AT_ONCE):
        columns = zip(*chunks[start : start + ROWS_AT_ONCE], strict=True)
        await connection.execute(INSERT_CHUNKS, new.workspace_id, new.id, new.title, *(list(each) for each in columns))


def _source_taken(source: str | None) -> Duplicate:
    said = f"a document from {(source or '')[:200]!r} exists already: replace it with PUT /documents/{{id}}"
    return Duplicate(said, field="source")


def missing(document_id: UUID) -> NotFound:
    """What is said of an id that no document has."""
    return NotFound(f"there is no document {document_id}")


# --- the rest: through sessions --------------------------------------------------------------------------


async def get(session: AsyncSession, workspace_id: UUID, document_id: UUID, *, whole: bool = False) -> Document:
    """A document, with its text when `whole`.

    Raises:
        NotFound: when there is none of that id.
    """
    query = select(Document).where(Document.workspace_id == workspace_id, Document.id == document_id)
    found = await session.scalar(query.options(undefer(Document.content)) if whole else query)
    if found is None:
        raise missing(document_id)
    return found


async def page(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    state: str | None = None,
    filters: Filters | None = None,
) -> Sequence[Document]:
    """Documents, newest first, from after one on."""
    query = select(Document).where(Document.workspace_id == workspace_id)
    if after:
        query = query.where(Document.id < after)
    if state:
        query = query.where(Document.state == state)
    if filters:
        query = query.where(text(fits("cast(:filters as jsonb)")).bindparams(filters=json.dumps(filters)))
    return (await session.scalars(query.order_by(Document.id.desc()).limit(limit))).all()


async def chunks(
    session: AsyncSession, workspace_id: UUID, document_id: UUID, *, after: int | None, limit: int
) -> Sequence[Chunk]:
    """The chunks of a document in their order, from after one on."""
    query = select(Chunk).where(Chunk.workspace_id == workspace_id, Chunk.document_id == document_id)
    if after is not None:
        query = query.where(Chunk.number > after)
    return (await session.scalars(query.order_by(Chunk.number).limit(limit))).all()


async def change(
    session: AsyncSession,
    workspace_id: UUID,
    document_id: UUID,
    *,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    trusted: bool | None = None,
) -> Document:
    """Change what is said of a document; its text stays.

    Raises:
        NotFound: when there is none of that id.
    """
    row = await get(session, workspace_id, document_id)
    if title is not None and title != row.title:
        row.title = title
        own = (Chunk.workspace_id == workspace_id, Chunk.document_id == document_id)
        await session.execute(update(Chunk).where(*own).values(title=title))
    row.tags = dict(metadata) if metadata is not None else row.tags
    row.trusted = row.trusted if trusted is None else trusted
    row.updated_at = func.now()
    await session.flush()
    await session.refresh(row)
    return row


async def delete(session: AsyncSession, workspace_id: UUID, document_id: UUID) -> None:
    """Take a document away with its chunks and vectors, for good.

    Raises:
        NotFound: when there is none of that id.
    """
    gone = await session.scalar(
        delete_rows(Document)
        .where(Document.workspace_id == workspace_id, Document.id == document_id)
        .returning(Document.id)
    )
    if gone is None:
        raise missing(document_id)
