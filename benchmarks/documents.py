"""What a search over many chunks takes: by words, by vectors, by both, in one interleaved run.

    python -m benchmarks.documents [CHUNKS] [SEARCHES]

The chunks are made of words that are as frequent as in a language (Zipf), the vectors are those of the local model. PostgreSQL
is started for it in a folder of its own. A search by vectors includes making the query's vector.
"""

import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from alembic import command

from app.cli.processes import alembic_config
from app.db import DEFAULT_WORKSPACE, Database
from app.embedded import Servers
from app.knowledge import documents
from app.knowledge.documents import NewDocument
from app.knowledge.embedding import Embedder
from app.knowledge.indexing import Indexer
from app.knowledge.reading import PLAIN, Reading
from app.knowledge.search import BY_TEXT, BY_VECTOR, CANDIDATES, search
from app.models import new_id
from app.providers import Providers
from app.settings import Settings
from benchmarks.figure import Figure, milliseconds, tell

CHUNKS, SEARCHES = 10_000, 200
PER_DOCUMENT = 100
WORDS = 20_000
WORDS_PER_CHUNK = 180
WARM_UP = 5


def vocabulary(dice: random.Random) -> list[str]:
    sounds = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    return sorted(
        {"".join(dice.choices(sounds, k=dice.randint(2, 4))) for _ in range(WORDS)}, key=lambda _: dice.random()
    )


async def fill(database: Database, embedder: Embedder, chunks: int, dice: random.Random) -> list[str]:
    words = vocabulary(dice)
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for number in range(chunks // PER_DOCUMENT):
        paragraphs = (" ".join(dice.choices(words, weights, k=WORDS_PER_CHUNK)) for _ in range(PER_DOCUMENT))
        text = "\n\n".join(paragraphs)
        new = NewDocument(new_id(), DEFAULT_WORKSPACE, f"Document {number}", Reading(text, PLAIN), len(text))
        rows = await documents.cut(new)
        async with database.engine_tx() as connection:
            await documents.add(connection, new, rows)
    indexer = Indexer(database, embedder)
    while await indexer.index_due():
        pass
    await database.execute("vacuum analyze chunks")
    await database.execute("vacuum analyze embeddings")
    return words


async def measure(chunks: int = CHUNKS, searches: int = SEARCHES) -> list[Figure]:
    dice = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)  # the servers' account passes through when we are root
        with Servers(home) as servers:
            assert servers.postgres
            dsn = servers.postgres.dsn
            await asyncio.to_thread(command.upgrade, alembic_config(dsn), "head")
            settings = Settings.of(database_url=dsn, parley_home=home)
            database = await Database.open(settings)
            try:
                await database.execute("insert into workspaces (id, name) values ($1, 'default')", DEFAULT_WORKSPACE)
                return await compare(database, Embedder(settings, Providers(settings)), chunks, searches, dice)
            finally:
                await database.close()


async def compare(
    database: Database, embedder: Embedder, chunks: int, searches: int, dice: random.Random
) -> list[Figure]:
    filled = await milliseconds(partial(fill, database, embedder, chunks, dice))
    there = await database.fetchval("select count(*) from chunks")
    assert there == await database.fetchval("select count(*) from embeddings")
    words = vocabulary(random.Random(1))
    times: dict[str, list[float]] = {"words": [], "vectors": [], "both": []}
    for number in range(searches + WARM_UP):
        query = " ".join(dice.choices(words[10:5_000], k=4))
        for kind, work in kinds(database, embedder, query).items():
            took = await milliseconds(work)
            if number >= WARM_UP:
                times[kind].append(took)
    ranks = {kind: statistics.quantiles(values, n=100) for kind, values in times.items()}
    return [
        Figure(f"documents: {there} chunks, cut and embedded s", filled / 1000),
        *(
            Figure(f"documents: {there} chunks, search by {kind} ms p{rank}", ranks[kind][rank - 1])
            for kind in ranks
            for rank in (50, 99)
        ),
    ]


def kinds(database: Database, embedder: Embedder, query: str) -> dict[str, Callable[[], Awaitable[object]]]:
    async def by_vector() -> None:
        [vector] = await embedder.vectors([query], "query")
        await database.fetch(BY_VECTOR, DEFAULT_WORKSPACE, vector, embedder.model, len(vector), None, CANDIDATES)

    return {
        "words": lambda: database.fetch(BY_TEXT, DEFAULT_WORKSPACE, query, None, CANDIDATES),
        "vectors": by_vector,
        "both": lambda: search(database, embedder, DEFAULT_WORKSPACE, query),
    }


if __name__ == "__main__":
    tell(asyncio.run(measure(*map(int, sys.argv[1:3]))))
