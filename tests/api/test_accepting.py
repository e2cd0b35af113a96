"""What a 2xx says: it is committed."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.db import Database

REFUSE = """
create function refuse_commit() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
create constraint trigger refuse_commit after insert on runs deferrable initially deferred
    for each row execute function refuse_commit();
"""
ALLOW = "drop trigger refuse_commit on runs; drop function refuse_commit()"


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Hears of a server's error as a client does."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as opened:
        yield opened


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}], ids=["together with others", "alone"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/runs", {"message": "Hello", "background": True}),
        ("/tasks", {"task_type": "delegation", "prompt": "Hello"}),
    ],
)
async def test_nothing_is_acknowledged_whose_commit_failed(
    client: httpx.AsyncClient, database: Database, path: str, body: dict[str, object], headers: dict[str, str]
) -> None:
    await database.execute(REFUSE)
    try:
        answer = await client.post(path, json=body, headers=headers)
    finally:
        await database.execute(ALLOW)
    assert answer.status_code == 500
    assert await database.fetchval("select count(*) from runs") == 0
    assert (await client.post(path, json=body, headers=headers)).status_code in (201, 202)
