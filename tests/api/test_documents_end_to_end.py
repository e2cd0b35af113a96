"""A document on its whole way: uploaded, given vectors by a worker, found by the offline model and cited."""

import asyncio

import httpx
from fastapi import FastAPI

from tests.knowledge.files import pdf
from workers.resident import Resident

READY_SECONDS = 20


async def test_an_uploaded_pdf_is_cited_in_an_answer(client: httpx.AsyncClient, app: FastAPI) -> None:
    content = pdf("The cover.", "Parcels are replaced after a fortnight.", title="Handbook")
    made = await client.post("/documents", files={"file": ("handbook.pdf", content, "application/pdf")})
    assert made.status_code == 201, made.text
    resident = Resident(app.state.engine)
    resident.start()
    try:
        async with asyncio.timeout(READY_SECONDS):
            while (shown := (await client.get(f"/documents/{made.json()['id']}")).json())["state"] != "ready":
                await asyncio.sleep(0.02)
    finally:
        await resident.stop()
    assert shown["embedding_model"] == "local"
    found = (await client.post("/documents/search", json={"query": "parcel replacements"})).json()
    assert (found["without_vectors"], found["items"][0]["found_by"]) == (None, ["text", "vector"])
    answer = await client.post("/runs", json={"message": "What do our documents say about parcels?"})
    assert answer.status_code == 200, answer.text
    assert "[Handbook, p. 2] Parcels are replaced after a fortnight." in answer.json()["reply"]


async def test_a_call_by_hand_searches_and_adds(client: httpx.AsyncClient) -> None:
    added = await client.post(
        "/tools/add_document/execute", json={"arguments": {"title": "Note", "text": "The shop opens at nine."}}
    )
    assert added.json()["error"] is None
    found = await client.post("/tools/search_documents/execute", json={"arguments": {"query": "shop"}})
    [result] = found.json()["result"]["results"]
    assert (result["document_id"], result["citation"]) == (
        added.json()["result"]["document_id"],
        "Note, characters 0-23",
    )
