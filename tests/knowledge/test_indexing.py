"""Vectors follow a document through a provider that fails, processes that die and texts that are replaced meanwhile."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic_ai import models

from app.db import DEFAULT_WORKSPACE, Database, Row
from app.errors import ConfigurationError, ModelFailed, ModelUnavailable
from app.knowledge import documents
from app.knowledge.documents import NewDocument
from app.knowledge.embedding import Embedder
from app.knowledge.indexing import AT_ONCE, HOLD_SECONDS, Indexer
from app.knowledge.reading import PLAIN, Reading
from app.knowledge.search import search
from app.providers import Providers, default_embedder
from app.settings import Settings
from tests.knowledge.test_search import Meaning, add, index
from tests.services import Asked, Service, service

LONG = "\n\n".join(f"Paragraph {number} about soup. " + "Words fill it up. " * 60 for number in range(AT_ONCE * 2))


async def document(database: Database) -> Row:
    row = await database.fetchrow("select * from documents")
    assert row
    return row


async def counted(database: Database) -> tuple[int, int]:
    row = await database.fetchrow("select (select count(*) from chunks) as c, (select count(*) from embeddings) as e")
    assert row
    return row["c"], row["e"]


async def due(database: Database) -> None:
    """Let the time pass after which a document is taken again."""
    await database.execute("update documents set next_attempt_at = now() where state <> 'ready'")


class Flaky(Meaning):
    """A model that answers so many times, then fails."""

    def __init__(self, answers: int, error: Exception) -> None:
        super().__init__()
        self.answers, self.error = answers, error

    async def vectors(self, texts: Sequence[str], kind: str) -> list[list[float]]:
        if self.answers == 0:
            raise self.error
        self.answers -= 1
        return await super().vectors(texts, kind)


async def test_a_document_becomes_ready(database: Database) -> None:
    await add(database, "long", LONG)
    await index(database, Meaning())
    row = await document(database)
    chunks, embeddings = await counted(database)
    assert (row["state"], row["embedding_model"], row["reason"]) == ("ready", "test:meaning", None)
    assert chunks == embeddings == row["chunks"] > AT_ONCE


async def test_an_outage_is_waited_for_and_nothing_is_asked_twice(database: Database) -> None:
    await add(database, "long", LONG)
    flaky = Flaky(1, ModelUnavailable("the provider is away"))
    await index(database, flaky)
    row = await document(database)
    assert (row["state"], row["reason"]) == ("indexing", "the provider is away")
    assert await counted(database) == (row["chunks"], AT_ONCE)
    wait = await database.fetchval("select extract(epoch from next_attempt_at - now()) from documents")
    assert 0 < wait <= 5
    flaky.answers = 100
    await due(database)
    await index(database, flaky)
    assert (await document(database))["state"] == "ready"
    assert flaky.answers == 100 - -(-(row["chunks"] - AT_ONCE) // AT_ONCE)


async def test_a_refusal_is_told_and_tried_again_later(database: Database) -> None:
    await add(database, "one", "A soup.")
    await index(database, Flaky(0, ModelFailed("the provider refused the key")))
    row = await document(database)
    assert (row["state"], row["reason"]) == ("failed", "the provider refused the key")
    await due(database)
    await index(database, Meaning())
    assert (await document(database))["state"] == "ready"


async def test_a_process_that_dies_loses_nothing(database: Database) -> None:
    await add(database, "long", LONG)
    with pytest.raises(KeyboardInterrupt):
        await index(database, Flaky(1, KeyboardInterrupt()))  # type: ignore[arg-type]
    other = Indexer(database, Meaning())
    assert not await other.index_due(), "whoever died has it for a while yet"
    left = await database.fetchval("select extract(epoch from next_attempt_at - now()) from documents")
    assert HOLD_SECONDS - 60 < left <= HOLD_SECONDS
    await due(database)
    await index(database, Meaning())
    chunks, embeddings = await counted(database)
    assert chunks == embeddings


async def test_two_processes_share_the_work(database: Database) -> None:
    for number in range(2):
        await add(database, f"{number}", "A soup.")
    one, two = Indexer(database, Meaning()), Indexer(database, Meaning())
    first = await database.fetchval("select min(id::text) from documents where state = 'ready'")
    assert first is None
    assert [await one.index_due(), await two.index_due(), await one.index_due()] == [True, True, False]
    assert await database.fetchval("select count(*) from documents where state = 'ready'") == 2


async def test_a_text_that_is_replaced_meanwhile_takes_no_old_vectors(database: Database) -> None:
    document_id = await add(database, "one", "A soup.")

    class Replacing(Meaning):
        async def vectors(self, texts: Sequence[str], kind: str) -> list[list[float]]:
            if "A soup." in texts:
                new = NewDocument(document_id, DEFAULT_WORKSPACE, "one", Reading("A car.", PLAIN), 6)
                rows = await documents.cut(new)
                async with database.engine_tx() as connection:
                    assert await documents.replace(connection, new, rows)
            return await super().vectors(texts, kind)

    await index(database, Replacing())
    row = await document(database)
    assert (row["state"], row["version"]) == ("ready", 2)
    found = await search(database, Meaning(), DEFAULT_WORKSPACE, "vehicle")
    assert [result.by for result in found.results] == [["vector"]]


async def test_another_model_makes_its_own_vectors(database: Database) -> None:
    await add(database, "one", "A soup.")
    await index(database, Meaning())
    other = Meaning()
    other.model = "test:other"
    await Indexer(database, other).refresh()
    await index(database, other)
    rows = await database.fetch("select model from embeddings")
    assert [row["model"] for row in rows] == ["test:other"]
    before = await document(database)
    await Indexer(database, other).refresh()
    assert await document(database) == before


# --- over the wire ---------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[Service]:
    async with service() as made:
        with models.override_allow_model_requests(True):
            yield made


def embedder_of(settings: Settings, server: Service, **more: Any) -> tuple[Embedder, Providers]:
    given: dict[str, Any] = {"embedding_model": "openai:tiny", "openai_base_url": server.url("/v1"), **more}
    configured = settings.model_copy(update=given)
    providers = Providers(configured)
    return Embedder(configured, providers), providers


def answering(server: Service) -> None:
    """Answer as OpenAI's protocol wants it: three numbers per text."""
    before = server.answer

    async def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path != "/v1/embeddings" or server.answers.get(asked.path):
            return await before(asked)
        texts = json.loads(asked.body)["input"]
        data = [
            {"object": "embedding", "index": index, "embedding": [1.0, 0.0, len(text)]}
            for index, text in enumerate(texts)
        ]
        return 200, {"object": "list", "data": data, "model": "tiny", "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    server.answer = answer  # type: ignore[method-assign]


async def test_an_openai_compatible_server_is_asked(database: Database, settings: Settings, server: Service) -> None:
    answering(server)
    embedder, providers = embedder_of(settings, server)
    await add(database, "one", "A soup.")
    await index(database, embedder)
    row = await database.fetchrow("select model, dimensions from embeddings")
    assert row
    assert (row["model"], row["dimensions"]) == ("openai:tiny", 3)
    found = await search(database, embedder, DEFAULT_WORKSPACE, "anything")
    assert (found.without_vectors, [result.by for result in found.results]) == (None, [["vector"]])
    assert [json.loads(asked.body)["model"] for asked in server.of("/v1/embeddings")] == ["tiny", "tiny"]
    await providers.aclose()


@pytest.mark.parametrize(("status", "state"), [(503, "indexing"), (429, "indexing"), (401, "failed"), (404, "failed")])
async def test_what_a_server_refuses_is_told(
    database: Database, settings: Settings, server: Service, status: int, state: str
) -> None:
    server.answers["/v1/embeddings"] = [(status, {"error": {"message": "no, says the server"}})]
    embedder, providers = embedder_of(settings, server)
    await add(database, "one", "A soup.")
    await index(database, embedder)
    row = await document(database)
    assert row["state"] == state
    assert "no, says the server" in row["reason"]
    found = await search(database, embedder, DEFAULT_WORKSPACE, "soup")
    assert [result.row["title"] for result in found.results] == ["one"]
    assert found.without_vectors
    await providers.aclose()


async def test_too_few_vectors_are_a_failure(database: Database, settings: Settings, server: Service) -> None:
    server.answers["/v1/embeddings"] = [(200, {"object": "list", "data": [], "model": "tiny"})]
    embedder, providers = embedder_of(settings, server)
    await add(database, "one", "A soup.")
    await index(database, embedder)
    assert (await document(database))["state"] == "failed"
    await providers.aclose()


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({}, "local"),
        ({"openai_api_key": "k"}, "openai:text-embedding-3-small"),
        ({"openai_api_key": "k", "openai_base_url": "http://localhost:1/v1"}, "local"),
        ({"google_api_key": "k"}, "google:gemini-embedding-001"),
        ({"anthropic_api_key": "k"}, "local"),
        ({"openai_api_key": "k", "embedding_model": "local"}, "local"),
        ({"embedding_model": "ollama:nomic-embed-text"}, "ollama:nomic-embed-text"),
    ],
)
def test_the_model_is_named_or_goes_by_the_keys(given: dict[str, str], model: str) -> None:
    assert default_embedder(Settings.of(**given))[0] == model


@pytest.mark.parametrize("named", ["demo", "anthropic:claude", "nothing", "text-embedding-3-small"])
def test_a_model_that_embeds_nothing_is_refused(named: str) -> None:
    with pytest.raises(ConfigurationError, match="EMBEDDING_MODEL"):
        default_embedder(Settings.of(embedding_model=named))
