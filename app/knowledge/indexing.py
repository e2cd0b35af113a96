"""Vectors follow: a pass takes documents whose chunks have none yet, and asks the embedding model for them.

A document is found by its words as soon as it is committed. Its `state` says how far its vectors are; a pass that dies
leaves a document that the next one takes over, with the vectors that were stored. No transaction is open while the model
is asked.
"""

from uuid import UUID

import structlog

from app.db import Database, Row
from app.errors import ModelUnavailable, ParleyError
from app.knowledge import vectors
from app.knowledge.embedding import Embedder, Vector

log = structlog.stdlib.get_logger(__name__)

AT_ONCE = 64  # Chunks in one request; Google takes at most 100.
HOLD_SECONDS = 120.0  # After which whoever took a document counts as dead: longer than a request and its write.
RETRY_SECONDS, RETRY_MOST_SECONDS = 5.0, 300.0
FAILED_SECONDS = 3600.0  # A key or model that was refused may be mended some day.

# Documents embedded by another model, or kept while there was no pgvector, or whose vectors went with it.
REFRESH = """
update documents set state = 'indexing', reason = null, attempts = 0, next_attempt_at = now()
where state = 'ready' and (embedding_model is distinct from $1
    or not exists (select from embeddings where embeddings.document_id = documents.id))
"""
WITHOUT = """
update documents set state = 'ready', embedding_model = null, reason = 'pgvector is not in use: found by words alone'
where state <> 'ready'
"""
# Invariant: whoever takes a document has it alone until the time it sets is over.
TAKE = """
update documents set next_attempt_at = now() + make_interval(secs => $1::float), attempts = attempts + 1
where id = (select id from documents where state <> 'ready' and next_attempt_at <= now()
            order by next_attempt_at limit 1 for update skip locked)
returning id, workspace_id, version, attempts
"""
HOLD = """
update documents set next_attempt_at = now() + make_interval(secs => $4::float)
where id = $1 and version = $2 and attempts = $3 and state <> 'ready' returning true
"""
OPEN = """
select c.number, c.heading, c.text from chunks c where c.document_id = $1 and not exists (
    select from embeddings e where e.document_id = c.document_id and e.number = c.number and e.model = $2)
order by c.number limit $3
"""
# Invariant: the vectors are of the version that was read; a document replaced meanwhile takes none of the old one's.
STORE = """
insert into embeddings (workspace_id, document_id, number, model, dimensions, embedding)
select d.workspace_id, d.id, v.number, $4, $5, v.vector::real[]::halfvec
from (select id, workspace_id from documents where id = $1 and version = $2 and attempts = $3 for share) as d,
    unnest($6::bigint[], $7::text[]) as v (number, vector)
on conflict (document_id, number) do update
set model = excluded.model, dimensions = excluded.dimensions, embedding = excluded.embedding
"""
READY = """
update documents set state = 'ready', reason = null, embedding_model = $4
where id = $1 and version = $2 and attempts = $3
"""
PUT_OFF = """
update documents set state = $4, reason = $5, next_attempt_at = now() + make_interval(secs => $6::float)
where id = $1 and version = $2 and attempts = $3
"""


class Indexer:
    """Gives documents their vectors; any number of processes may have one."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        """Work with this embedding model."""
        self._database = database
        self._embedder = embedder

    async def refresh(self) -> None:
        """Find documents whose vectors are not the configured model's; once per process is enough."""
        if await vectors.state(self._database) == "ready":
            await self._database.execute(REFRESH, self._embedder.model)

    async def index_due(self) -> bool:
        """Work on one document that is due; whether there may be more."""
        if await vectors.state(self._database) != "ready":
            await self._database.execute(WITHOUT)
            return False
        taken = await self._database.fetchrow(TAKE, HOLD_SECONDS)
        if taken is None:
            return False
        who = taken["id"], taken["version"], taken["attempts"]
        try:
            await self._index(who)
        except ParleyError as error:
            await self._put_off(taken, who, error)
        return True

    async def _index(self, who: tuple[UUID, int, int]) -> None:
        while rows := await self._database.fetch(OPEN, who[0], self._embedder.model, AT_ONCE):
            found = await self._embedder.vectors([_said(row) for row in rows], "document")
            numbers, texts = [row["number"] for row in rows], [_written(vector) for vector in found]
            await self._database.execute(STORE, *who, self._embedder.model, len(found[0]), numbers, texts)
            if not await self._database.fetchval(HOLD, *who, HOLD_SECONDS):
                return  # Replaced, deleted, or taken over.
        await self._database.execute(READY, *who, self._embedder.model)

    async def _put_off(self, taken: Row, who: tuple[UUID, int, int], error: ParleyError) -> None:
        later = isinstance(error, ModelUnavailable)
        wait = min(RETRY_SECONDS * 2 ** min(taken["attempts"] - 1, 10), RETRY_MOST_SECONDS)
        log.warning("document.not_indexed", document_id=str(who[0]), code=error.code, reason=error.detail)
        state, seconds = ("indexing", wait) if later else ("failed", FAILED_SECONDS)
        await self._database.execute(PUT_OFF, *who, state, error.detail, seconds)


def _said(row: Row) -> str:
    """What a vector is made of: a chunk says more below its headings."""
    return f"{row['heading']}\n\n{row['text']}" if row["heading"] else row["text"]


def _written(vector: Vector) -> str:
    """A vector as PostgreSQL reads it; an array of arrays would not come apart in `unnest`."""
    return "{" + ",".join(map(str, vector)) + "}"
