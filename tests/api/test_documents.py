"""Documents over the API: what goes in, what is found, and what is refused by name."""

import json
from typing import Any

import httpx
import pytest

from app.db import Database
from tests.api.conftest import ADMIN_KEY, bearer
from tests.knowledge.files import pdf

TABLES = ("documents", "chunks", "embeddings")
HANDBOOK = """# Handbook

## Returns

Articles can be sent back within 30 days of delivery. The refund is paid to the account it came from.

## Shipping

Parcels leave the warehouse on weekdays. A parcel that is lost is replaced after a fortnight.
"""


async def added(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"title": "Handbook", "text": HANDBOOK, "media_type": "text/markdown", **fields}
    answer = await client.post("/documents", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/documents/{answer.json()['id']}"
    return answer.json()


async def uploaded(client: httpx.AsyncClient, name: str, content: bytes, kind: str = "", **data: str) -> httpx.Response:
    file = (name, content, kind) if kind else (name, content)
    return await client.post("/documents", files={"file": file}, data=data)


async def found(client: httpx.AsyncClient, query: str, **body: Any) -> list[dict[str, Any]]:
    answer = await client.post("/documents/search", json={"query": query, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_a_document_is_found_by_its_words_as_soon_as_it_is_there(client: httpx.AsyncClient) -> None:
    made = await added(client, metadata={"team": "support"})
    assert (made["state"], made["version"], made["trusted"], made["embedding_model"]) == ("indexing", 1, True, None)
    best = (await found(client, "When are refunds paid?"))[0]
    assert best["citation"] == "Handbook, Handbook > Returns"
    assert (best["document_id"], best["found_by"]) == (made["id"], ["text"])
    text = (await client.get(f"/documents/{made['id']}/content")).text
    place = best["position"]
    assert text == HANDBOOK
    assert text[place["begins_at"] : place["ends_at"]] == best["text"]
    assert "refund is paid" in best["text"]


async def test_a_pdf_is_cited_by_its_page(client: httpx.AsyncClient) -> None:
    content = pdf("The first page is about whales.", "The second page is about otters.", title="Animals")
    made = await uploaded(client, "animals.pdf", content, metadata='{"year": 2026}', source="https://example.com/a.pdf")
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["title"], shown["media_type"], shown["size"]) == ("Animals", "application/pdf", len(content))
    assert (shown["metadata"], shown["source"]) == ({"year": 2026}, "https://example.com/a.pdf")
    [best, *_] = await found(client, "otters")
    assert best["citation"] in ("Animals, p. 1", "Animals, p. 2")
    assert best["position"]["page"] is not None


async def test_an_artifact_becomes_a_document(client: httpx.AsyncClient) -> None:
    file = {"file": ("notes.html", b"<title>Notes</title><h1>Tea</h1><p>Oolong is half oxidised.</p>", "text/html")}
    artifact = (await client.post("/artifacts", files=file)).json()
    made = (await client.post("/documents", json={"artifact_id": artifact["id"]})).json()
    assert (made["title"], made["media_type"]) == ("Notes", "text/html")
    assert (await found(client, "oolong"))[0]["position"]["heading"] == "Tea"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"team": "support"}, {"a"}),
        ({"team": ["support", "legal"]}, {"a", "b"}),
        ({"year": 2025}, {"b"}),
        ({"tags": "public"}, {"a", "c"}),
        ({"tags": "public", "year": [2024, 2026]}, {"a"}),
        ({"public": True}, {"c"}),
        ({"title": "b"}, {"b"}),
        ({"source": "s3://c"}, {"c"}),
        ({"team": "nobody"}, set()),
        ({"unknown": "x"}, set()),
        ({}, {"a", "b", "c"}),
    ],
)
async def test_filters_choose_documents(client: httpx.AsyncClient, filters: Any, expected: set[str]) -> None:
    text = "The zebra is striped."
    await added(client, title="a", text=text, metadata={"team": "support", "year": 2026, "tags": ["public", "new"]})
    await added(client, title="b", text=text, metadata={"team": "legal", "year": 2025, "tags": ["secret"]})
    await added(client, title="c", text=text, metadata={"tags": ["public"], "public": True}, source="s3://c")
    assert {each["title"] for each in await found(client, "zebra", filters=filters)} == expected
    listed = await client.get("/documents", params={"metadata": json.dumps(filters)})
    assert {each["title"] for each in listed.json()["items"]} == expected


async def test_the_same_text_is_no_new_version(client: httpx.AsyncClient) -> None:
    made = await added(client)
    same = await client.put(
        f"/documents/{made['id']}", json={"title": "Manual", "text": HANDBOOK, "media_type": "text/markdown"}
    )
    assert (same.json()["version"], same.json()["title"]) == (1, "Manual")
    assert (await found(client, "parcels"))[0]["title"] == "Manual"
    other = await client.put(f"/documents/{made['id']}", json={"title": "Manual", "text": "Only pigeons now."})
    assert (other.json()["version"], other.json()["chunks"]) == (2, 1)
    assert await found(client, "parcels") == []
    assert (await found(client, "pigeon"))[0]["document_id"] == made["id"]


async def test_what_is_said_of_a_document_can_be_changed(client: httpx.AsyncClient) -> None:
    made = await added(client, metadata={"team": "support"})
    changed = await client.patch(
        f"/documents/{made['id']}", json={"title": "Rules", "metadata": {"a": 1}, "trusted": False}
    )
    assert changed.status_code == 200, changed.text
    [best] = await found(client, "refund", filters={"a": 1}, limit=1)
    assert (best["title"], best["trusted"], best["citation"]) == ("Rules", False, "Rules, Handbook > Returns")
    for wrong in ({"title": None}, {"metadata": {"title": "x"}}, {"text": "x"}, {"title": " "}):
        assert (await client.patch(f"/documents/{made['id']}", json=wrong)).status_code == 422, wrong


async def test_delete_really_deletes(client: httpx.AsyncClient, database: Database) -> None:
    made = await added(client)
    assert (await client.delete(f"/documents/{made['id']}")).status_code == 204
    assert (await client.get(f"/documents/{made['id']}")).status_code == 404
    assert await found(client, "refund") == []
    assert [await database.fetchval(f"select count(*) from {table}") for table in TABLES] == [0, 0, 0]


async def test_one_source_has_one_document(client: httpx.AsyncClient) -> None:
    await added(client, source="https://example.com/handbook")
    again = await client.post("/documents", json={"text": "other", "source": "https://example.com/handbook"})
    assert (again.status_code, again.json()["code"], again.json()["field"]) == (409, "duplicate", "source")


async def test_a_repeat_with_the_same_key_adds_nothing(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "one"}
    first = await client.post("/documents", json={"text": "A pelican."}, headers=key)
    again = await client.post("/documents", json={"text": "A pelican."}, headers=key)
    assert (first.json()["id"], first.status_code) == (again.json()["id"], again.status_code)
    assert len((await client.get("/documents")).json()["items"]) == 1
    other = await client.post("/documents", json={"text": "Another."}, headers=key)
    assert other.json()["code"] == "idempotency_conflict"


async def test_chunks_come_in_pages(client: httpx.AsyncClient) -> None:
    text = "\n\n".join(f"Paragraph {number} says something of its own. " * 12 for number in range(30))
    made = await added(client, text=text, media_type="text/plain")
    first = (await client.get(f"/documents/{made['id']}/chunks", params={"limit": 5})).json()
    assert [each["number"] for each in first["items"]] == [0, 1, 2, 3, 4]
    rest = await client.get(f"/documents/{made['id']}/chunks", params={"limit": 100, "cursor": first["next_cursor"]})
    assert [each["number"] for each in rest.json()["items"]] == list(range(5, made["chunks"]))


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid_request", "text"),
        ({"text": "a", "artifact_id": "00000000-0000-7000-8000-000000000009"}, "invalid_request", "text"),
        ({"artifact_id": "00000000-0000-7000-8000-000000000009"}, "unknown_reference", "artifact_id"),
        ({"text": "  \n "}, "unreadable_document", "text"),
        ({"text": "a\x00b"}, "forbidden_text", "text"),
        ({"text": "a", "media_type": "image/png"}, "unreadable_document", "text"),
        ({"text": "a", "title": "x" * 301}, "invalid_request", "title"),
        ({"text": "a", "title": "two\nlines"}, "invalid_request", "title"),
        ({"text": "a", "metadata": {"a": None}}, "invalid_request", "metadata.a"),
        ({"text": "a", "metadata": {"a": {"b": 1}}}, "invalid_request", "metadata.a"),
        ({"text": "a", "metadata": {"document_id": "x"}}, "invalid_request", "metadata.document_id"),
        ({"text": "a", "metadata": {"a": []}}, "invalid_request", "metadata.a"),
        ({"text": "a", "chunk_size": 5}, "unknown_field", "chunk_size"),
    ],
)
async def test_what_is_wrong_with_a_document_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], code: str, field: str
) -> None:
    answer = await client.post("/documents", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field), answer.text


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("a.pdf", b"%PDF-1.7\nnothing of a PDF", "", "broken"),
        ("a.pdf", pdf("Secret.", password="x"), "", "encrypted"),
        ("a.pdf", pdf(""), "", "no text"),
        ("a.txt", b"\xff\xfe\x00\xd8", "text/plain", "UTF-16"),
        ("a.txt", "Käse".encode("latin-1"), "text/plain", "UTF-8"),
        ("a.txt", b"a\x00b", "text/plain", "NUL"),
        ("a.html", b"<script>alert(1)</script>", "text/html", "no text"),
        ("a.docx", b"PK", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "not read"),
        ("a.bin", b"\x01\x02", "application/octet-stream", "not read"),
    ],
)
async def test_a_file_that_cannot_be_read_says_why(
    client: httpx.AsyncClient, name: str, content: bytes, kind: str, said: str
) -> None:
    answer = await uploaded(client, name, content, kind)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "unreadable_document", "file")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "form", [{"metadata": "[1]"}, {"metadata": "{"}, {"size": "1"}, {"trusted": "perhaps"}, {"text": "a"}]
)
async def test_what_is_wrong_with_a_form_is_named(client: httpx.AsyncClient, form: dict[str, str]) -> None:
    answer = await uploaded(client, "a.txt", b"text", **form)
    assert answer.status_code in (400, 422), answer.text
    assert (await client.get("/documents")).json()["items"] == []


async def test_ten_megabytes_are_read_and_a_byte_more_is_not(client: httpx.AsyncClient) -> None:
    line = b"The lighthouse keeper counts the ships that pass at night.\n\n"
    content = (line * (10_000_000 // len(line) + 1))[:10_000_000]
    made = await uploaded(client, "ships.txt", content, "text/plain")
    assert made.status_code == 201, made.text
    assert made.json()["chunks"] > 5_000
    more = await uploaded(client, "ships.txt", content + b"x", "text/plain")
    assert (more.status_code, more.json()["code"]) == (413, "body_too_large")
    assert (await client.post("/documents", json={"text": "x" * 2_100_000})).status_code == 413
    assert (await client.post("/artifacts", files={"file": ("a", content)})).status_code == 413


async def test_scopes_are_kept(guarded: httpx.AsyncClient) -> None:
    admin = bearer(ADMIN_KEY)
    key = (await guarded.post("/keys", json={"name": "r", "scopes": ["documents:read"]}, headers=admin)).json()["key"]
    assert (await guarded.get("/documents", headers=bearer(key))).status_code == 200
    assert (await guarded.post("/documents/search", json={"query": "x"}, headers=bearer(key))).status_code == 200
    refused = await guarded.post("/documents", json={"text": "x"}, headers=bearer(key))
    assert (refused.status_code, refused.json()["scope"]) == (403, "documents:write")


async def test_the_audit_log_tells_of_documents(client: httpx.AsyncClient) -> None:
    made = await added(client)
    await client.put(f"/documents/{made['id']}", json={"text": "x"})
    await client.patch(f"/documents/{made['id']}", json={"trusted": False})
    await client.delete(f"/documents/{made['id']}")
    log = (await client.get("/audit", params={"subject_id": made["id"]})).json()["items"]
    assert [each["action"] for each in log] == [
        "document.delete",
        "document.patch",
        "document.replace",
        "document.create",
    ]
