"""Hybrid search: words and meaning together find more than each alone, and never what is another's."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from app.db import DEFAULT_WORKSPACE, Database
from app.errors import ModelUnavailable
from app.knowledge import documents, vectors
from app.knowledge.documents import NewDocument
from app.knowledge.embedding import Embedder
from app.knowledge.indexing import Indexer
from app.knowledge.metadata import checked_filters
from app.knowledge.reading import PLAIN, Reading
from app.knowledge.search import merged, search
from app.models import new_id
from app.providers import Providers
from app.settings import Settings

OTHER = UUID("00000000-0000-7000-8000-0000000000fe")

# What a text is about, as a model of meanings would see it: cars, food, money.
ABOUT = {
    "car": 0, "automobile": 0, "vehicle": 0, "sedan": 0, "engine": 0,
    "soup": 1, "dinner": 1, "meal": 1, "broth": 1,
    "invoice": 2, "bill": 2, "payment": 2,
}  # fmt: skip


class Meaning(Embedder):
    """An embedding model that knows twelve words, and no numbers or names."""

    def __init__(self) -> None:
        self.model, self.reason, self.least_alike = "test:meaning", "", 0.2
        self.away = False

    async def vectors(self, texts: Sequence[str], kind: str) -> list[list[float]]:
        if self.away:
            raise ModelUnavailable("the provider is away")
        return [self._vector(text, kind) for text in texts]

    def _vector(self, text: str, kind: str) -> list[float]:
        counts = [0.0, 0.0, 0.0, 0.1 * (kind == "query"), 0.1 * (kind == "document")]
        for word in text.lower().replace(".", " ").split():
            if word in ABOUT:
                counts[ABOUT[word]] += 1
        return counts


async def add(database: Database, title: str, text: str, workspace_id: UUID = DEFAULT_WORKSPACE, **fields: Any) -> UUID:
    new = NewDocument(new_id(), workspace_id, title, Reading(text, PLAIN), len(text), **fields)
    chunks = await documents.cut(new)
    async with database.engine_tx() as connection:
        assert await documents.add(connection, new, chunks)
    return new.id


async def index(database: Database, embedder: Embedder) -> None:
    indexer = Indexer(database, embedder)
    while await indexer.index_due():
        pass


async def titles(database: Database, embedder: Embedder, query: str, **options: Any) -> list[str]:
    found = await search(database, embedder, DEFAULT_WORKSPACE, query, **options)
    return [result.row["title"] for result in found.results]


@pytest.fixture
async def library(database: Database) -> Meaning:
    """Documents of which some share a word with a question and others its meaning."""
    await add(database, "same words", "Regulation RX-7 applies here.")
    await add(database, "same meaning", "Every automobile needs a vehicle papers check, sedan or not.")
    await add(database, "both", "The car called RX-7 has a rotary engine.")
    for number in range(30):
        await add(database, f"cook {number}", f"Recipe {number}: a soup is a meal; broth makes dinner.")
    embedder = Meaning()
    await index(database, embedder)
    return embedder


async def test_what_words_and_meaning_agree_on_comes_first(database: Database, library: Meaning) -> None:
    found = await search(database, library, DEFAULT_WORKSPACE, "a car named RX-7")
    assert found.without_vectors is None
    assert [(result.row["title"], result.by) for result in found.results] == [
        ("both", ["text", "vector"]),
        ("same meaning", ["vector"]),
        ("same words", ["text"]),
    ]


async def test_together_they_find_what_neither_finds_alone(database: Database, library: Meaning) -> None:
    """Of questions whose answers share words with them or meaning, hybrid search has every answer first or second."""
    asked = {"RX-7": "same words", "inspection of a car": "same meaning", "which car is an RX-7": "both"}
    asked |= {"automobile engine": "both"}
    library.away = True
    words = {query: await titles(database, library, query, limit=2) for query in asked}
    library.away = False
    hybrid = {query: await titles(database, library, query, limit=2) for query in asked}
    assert {query for query, answer in asked.items() if answer in hybrid[query]} == set(asked)
    assert {query for query, answer in asked.items() if answer in words[query]} < set(asked)
    # By meaning alone, a name that the model does not know is lost.
    alone = await search(database, library, DEFAULT_WORKSPACE, "RX-7")
    assert [result.by for result in alone.results if result.row["title"] == "same words"] == [["text"]]


async def test_while_the_provider_is_away_words_are_searched(database: Database, library: Meaning) -> None:
    library.away = True
    found = await search(database, library, DEFAULT_WORKSPACE, "rotary engines")
    assert [result.row["title"] for result in found.results] == ["both"]
    assert found.without_vectors == "the provider is away"


async def test_a_workspace_finds_its_own_alone(database: Database, library: Meaning) -> None:
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    theirs = await add(database, "theirs", "The car called RX-7 is ours, says the other workspace.", OTHER)
    await index(database, library)
    assert "theirs" not in await titles(database, library, "car RX-7", limit=50)
    assert "theirs" not in await titles(
        database, library, "car RX-7", filters=checked_filters({"document_id": str(theirs)})
    )
    found = await search(database, library, OTHER, "car RX-7", limit=50)
    assert [result.row["title"] for result in found.results] == ["theirs"]


async def test_filters_hold_for_words_and_for_vectors(database: Database, library: Meaning) -> None:
    await add(database, "noted", "An automobile.", metadata={"team": "fleet"})
    await index(database, library)
    filters = checked_filters({"team": ["fleet", "none"]})
    found = await search(database, library, DEFAULT_WORKSPACE, "car", filters)
    assert [(result.row["title"], result.by) for result in found.results] == [("noted", ["vector"])]
    assert await titles(database, library, "automobile", filters=checked_filters({"team": "x"})) == []


@pytest.mark.parametrize(
    "query", ["the of and", "!!!", "a & b | c", "'; drop table chunks; --", "x:* <-> y", "http://a.b/?c=1&d=2"]
)
async def test_no_query_breaks_the_search(database: Database, library: Meaning, query: str) -> None:
    await search(database, library, DEFAULT_WORKSPACE, query)


async def test_vectors_of_another_model_or_length_are_not_compared(database: Database, library: Meaning) -> None:
    await database.execute("update embeddings set dimensions = 4")
    assert await titles(database, library, "vehicle") == ["same meaning"]  # By its word; before, by its meaning, too.
    found = await search(database, library, DEFAULT_WORKSPACE, "car")
    assert {each for result in found.results for each in result.by} == {"text"}
    library.model = "test:other"
    found = await search(database, library, DEFAULT_WORKSPACE, "car")
    assert {each for result in found.results for each in result.by} == {"text"}


def test_ranks_add_up() -> None:
    one, two, three = ((new_id(), number) for number in range(3))
    assert [place for place, _, _ in merged({"text": [one, two], "vector": [three, two]})] == [two, one, three]
    assert merged({"text": [one]}) == [(one, 1 / 61, ["text"])]


async def test_the_local_model_finds_other_forms_of_a_word(database: Database, settings: Settings) -> None:
    embedder = Embedder(settings, Providers(settings))
    assert embedder.model == "local"
    await add(database, "physio", "Physiotherapeutic treatments are reimbursed by the insurer.")
    await add(database, "garden", "Tulips are planted in October, before the frost.")
    await index(database, embedder)
    for query, expected in (("physiotherapy", "physio"), ("tullip plants", "garden")):
        found = await search(database, embedder, DEFAULT_WORKSPACE, query)
        assert [(result.row["title"], "vector" in result.by) for result in found.results] == [(expected, True)], query
    assert (await search(database, embedder, DEFAULT_WORKSPACE, "quantum chromodynamics")).results == []


async def test_without_pgvector_words_are_enough(database: Database, library: Meaning) -> None:
    """As on a server that has no such extension: the table of vectors is not there."""
    async with database.connection() as connection:
        await connection.execute("drop table embeddings")
    try:
        assert await vectors.state(database) == "available"
        found = await search(database, library, DEFAULT_WORKSPACE, "rotary engines")
        assert [result.row["title"] for result in found.results] == ["both"]
        assert found.without_vectors == "pgvector is not in use on this server"
        await add(database, "new", "A lighthouse.")
        await index(database, library)
        row = await database.fetchrow("select state, embedding_model, reason from documents where title = 'new'")
        assert row
        assert (row["state"], row["embedding_model"]) == ("ready", None)
    finally:
        async with database.connection() as connection:
            await vectors.enable(connection)
    assert await vectors.state(database) == "ready"
    await Indexer(database, library).refresh()
    await index(database, library)
    assert await database.fetchval("select count(*) from embeddings") == await database.fetchval(
        "select count(*) from chunks"
    )


async def test_what_others_have_crowds_nothing_out(database: Database, library: Meaning) -> None:
    """More of theirs than candidates are looked at, and each fits better than ours."""
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)
    for number in range(60):
        await add(database, f"theirs {number}", "RX-7 rotary engine, RX-7 rotary engine", OTHER)
    found = await search(database, library, DEFAULT_WORKSPACE, "RX-7 rotary engine", limit=1)
    assert [(result.row["title"], "text" in result.by) for result in found.results] == [("both", True)]
