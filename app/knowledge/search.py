"""Hybrid search: what fits the words and what is near in meaning, merged by their ranks.

It runs on the engine pool with the workspace in SQL, for row-level security keeps the planner from the full-text index.
Without pgvector, or while the embedding provider is away, words alone are looked for, and the answer says so.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from app.db import Connection, Database, Row
from app.errors import ParleyError
from app.knowledge import vectors
from app.knowledge.documents import fits
from app.knowledge.embedding import Embedder, Vector
from app.knowledge.metadata import Filters

log = structlog.stdlib.get_logger(__name__)

MAX_QUERY = 1_000
MAX_RESULTS = 50
CANDIDATES = 50  # Of each kind, however few are asked for.
# Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): ranks of different kinds add up, scores do not.
FUSION = 60
EMBED_SECONDS = 8.0

FITTING = f"select id from documents where workspace_id = $1 and {fits('$2::jsonb')}"
# Any word counts, for people and models ask in sentences; a chunk that has them all stands before those that do not.
BY_TEXT = """
with asked as (
    select plainto_tsquery('english', $2) as every, replace(plainto_tsquery('english', $2)::text, '&', '|')::tsquery as some
)
select chunks.document_id, chunks.number from chunks, asked
where chunks.workspace_id = $1 and chunks.search @@ asked.some
    and ($3::uuid[] is null or chunks.document_id = any($3))
order by chunks.search @@ asked.every desc, ts_rank(chunks.search, asked.some, 1) desc, document_id, number limit $4
"""
# Exact: every vector of the workspace is compared (docs/decisions/0015-exact-vectors-in-a-table-of-their-own.md).
BY_VECTOR = """
select document_id, number, 1 - (embedding <=> (select $2::real[]::halfvec)) as alike from embeddings
where workspace_id = $1 and model = $3 and dimensions = $4 and ($5::uuid[] is null or document_id = any($5))
order by embedding <=> (select $2::real[]::halfvec) limit $6
"""
LOAD = """
select c.document_id, c.number, c.heading, c.page, c.begins_at, c.ends_at, c.text,
    d.title, d.source, d.media_type, d.metadata, d.trusted, d.version
from unnest($2::uuid[], $3::bigint[]) as wanted (document_id, number)
join chunks c on c.document_id = wanted.document_id and c.number = wanted.number
join documents d on d.id = c.document_id
where c.workspace_id = $1
"""

Place = tuple[UUID, int]


@dataclass(frozen=True)
class Result:
    """A chunk that was found.

    Attributes:
        score: Higher is better; to compare within one answer.
        by: `text`, `vector` or both: what found it.
        row: The chunk with its document.
    """

    score: float
    by: list[str]
    row: Row

    @property
    def citation(self) -> str:
        """The document and the place in it, as an answer can quote it."""
        row = self.row
        if row["page"] is not None:
            return f"{row['title']}, p. {row['page']}"
        if row["heading"]:
            return f"{row['title']}, {row['heading']}"
        return f"{row['title']}, characters {row['begins_at']}-{row['ends_at']}"


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        results: Best first.
        without_vectors: Why words alone were looked for; None when both were.
    """

    results: list[Result] = field(default_factory=list[Result])
    without_vectors: str | None = None


async def search(
    database: Database,
    embedder: Embedder,
    workspace_id: UUID,
    query: str,
    filters: Filters | None = None,
    *,
    limit: int = 8,
) -> Found:
    """The chunks of a workspace that answer a query, best first.

    Args:
        database: Through whose engine pool.
        embedder: What made the vectors.
        workspace_id: Whose documents.
        query: In words.
        filters: What the documents must have, from `checked_filters`.
        limit: How many.
    """
    vector, without = await _vector_of(database, embedder, query)  # No connection is held meanwhile.
    async with database.connection() as connection:
        among = await _among(connection, workspace_id, filters)
        rankings = {"text": await _by_text(connection, workspace_id, query, among)}
        if vector is not None:
            rankings["vector"] = await _by_vector(connection, embedder, workspace_id, vector, among)
        results = await _load(connection, workspace_id, merged(rankings)[:limit])
    return Found(results, without)


async def _vector_of(database: Database, embedder: Embedder, query: str) -> tuple[Vector | None, str | None]:
    """The vector of a query, or why there is none."""
    if await vectors.state(database) != "ready":
        return None, "pgvector is not in use on this server"
    try:
        async with asyncio.timeout(EMBED_SECONDS):
            return (await embedder.vectors([query], "query"))[0], None
    except TimeoutError:
        return None, f"{embedder.model} did not answer in {EMBED_SECONDS:g} seconds"
    except ParleyError as error:
        log.warning("documents.no_query_vector", model=embedder.model, reason=error.detail)
        return None, error.detail


async def _among(connection: Connection, workspace_id: UUID, filters: Filters | None) -> list[UUID] | None:
    if not filters:
        return None
    return [row["id"] for row in await connection.fetch(FITTING, workspace_id, dict(filters))]


async def _by_text(connection: Connection, workspace_id: UUID, query: str, among: Sequence[UUID] | None) -> list[Place]:
    rows = await connection.fetch(BY_TEXT, workspace_id, query, among, CANDIDATES)
    return [(row["document_id"], row["number"]) for row in rows]


async def _by_vector(
    connection: Connection, embedder: Embedder, workspace_id: UUID, vector: Vector, among: Sequence[UUID] | None
) -> list[Place]:
    rows = await connection.fetch(BY_VECTOR, workspace_id, vector, embedder.model, len(vector), among, CANDIDATES)
    return [(row["document_id"], row["number"]) for row in rows if row["alike"] >= embedder.least_alike]


def merged(rankings: dict[str, list[Place]]) -> list[tuple[Place, float, list[str]]]:
    """Places with their score and what found them, best first: each ranking adds 1 / (60 + rank)."""
    scores: dict[Place, float] = {}
    by: dict[Place, list[str]] = {}
    for kind, places in rankings.items():
        for rank, place in enumerate(places, 1):
            scores[place] = scores.get(place, 0.0) + 1 / (FUSION + rank)
            by.setdefault(place, []).append(kind)
    # Ties go to the ranking that comes first, in its order.
    return [(place, scores[place], by[place]) for place in sorted(scores, key=lambda place: -scores[place])]


async def _load(connection: Connection, workspace_id: UUID, best: list[tuple[Place, float, list[str]]]) -> list[Result]:
    documents, numbers = [place[0] for place, _, _ in best], [place[1] for place, _, _ in best]
    rows = await connection.fetch(LOAD, workspace_id, documents, numbers)
    found = {(row["document_id"], row["number"]): row for row in rows}
    # One deleted between two statements is left out.
    return [Result(round(score, 6), by, found[place]) for place, score, by in best if place in found]


def shown(result: Result) -> dict[str, Any]:
    """A result as tools and the API show it."""
    row = result.row
    return {
        "text": row["text"],
        "citation": result.citation,
        "document_id": str(row["document_id"]),
        "title": row["title"],
        "source": row["source"],
        "position": {
            "chunk": row["number"],
            "page": row["page"],
            "heading": row["heading"] or None,
            "begins_at": row["begins_at"],
            "ends_at": row["ends_at"],
        },
        "metadata": row["metadata"],
        "trusted": row["trusted"],
        "score": result.score,
        "found_by": result.by,
    }
