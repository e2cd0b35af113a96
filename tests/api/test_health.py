"""/healthz, /readyz and /metrics, also while a store is away."""

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import httpx
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr

from app import __version__
from app.api.health import SCHEMA
from app.db import DEFAULT_WORKSPACE, Database
from app.settings import Settings
from tests import databases
from tests.api.conftest import Link, serve
from tests.cluster import Cluster

ROOT = Path(__file__).parents[2]


def through(link: Link, url: str) -> SecretStr:
    """A store's URL with the link's port."""
    return SecretStr(str(httpx.URL(url).copy_with(port=link.port)))


def link_to(url: str) -> Link:
    there = httpx.URL(url)
    return Link(there.host, there.port or 0)


def test_the_version_and_schema_are_those_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml")).get_current_head() == SCHEMA


async def test_everything_is_there(client: httpx.AsyncClient) -> None:
    health = (await client.get("/healthz")).json()
    assert health == {
        "status": "ok",
        "version": __version__,
        "model": "demo",
        "model_reason": "DEFAULT_MODEL names it",
    }
    ready = await client.get("/readyz")
    assert (ready.status_code, set(ready.json().values())) == (200, {"ready", "ok"})


async def test_without_redis_it_is_ready_and_degraded(settings: Settings, redis_url: str) -> None:
    async with link_to(redis_url) as link:
        linked = settings.model_copy(update={"redis_url": through(link, redis_url)})
        async with serve(linked) as client:
            assert (await client.get("/readyz")).json()["status"] == "ready"
            await link.cut()
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert "away" in ready.json()["redis"]
            assert (await client.post("/agents", json={"name": "x"})).status_code == 201
    async with serve(settings.model_copy(update={"redis_url": None})) as client:
        assert (await client.get("/readyz")).json()["status"] == "degraded"


async def test_without_postgresql_it_answers_503_within_seconds(settings: Settings, database_url: str) -> None:
    async with link_to(database_url) as link:
        linked = settings.model_copy(update={"database_url": through(link, database_url)})
        async with serve(linked) as client:
            assert (await client.get("/readyz")).status_code == 200
            await link.cut()
            for path in ("/readyz", "/agents", "/workers", "/metrics"):
                async with asyncio.timeout(5):
                    answer = await client.get(path)
                assert answer.status_code == 503, path
                assert int(answer.headers["retry-after"]) >= 1
            assert (await client.post("/agents", json={"name": "x"})).json()["code"] == "database_unavailable"
            assert (await client.get("/healthz")).status_code == 200


async def test_a_database_that_is_not_migrated_is_not_ready(settings: Settings, cluster: Cluster) -> None:
    name = f"{database_name(settings)}_empty_test"
    async with databases.admin(cluster.postgres_dsn_admin) as connection:
        await connection.execute(f'create database "{name}"')
    dsn = databases.dsn_of(cluster.postgres_dsn_admin, name)
    try:
        async with serve(settings.model_copy(update={"database_url": SecretStr(dsn)})) as client:
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["database"]) == (503, "ok")
            assert "migrate" in ready.json()["migrations"]
            await asyncio.to_thread(databases.migrate, dsn)
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/agents/assistant")).status_code == 200
    finally:
        await databases.drop(cluster.postgres_dsn_admin, name)


def database_name(settings: Settings) -> str:
    return settings.dsn().rpartition("/")[2]


DELIVERY = """
insert into deliveries (id, workspace_id, event, channel, address, state, message_id)
values (gen_random_uuid(), $1, 'completed', 'email', 'a@example.com', $2, 'm')
"""


async def test_metrics_show_what_stands(client: httpx.AsyncClient, database: Database) -> None:
    for state in ("pending", "dead", "dead"):
        await database.execute(DELIVERY, DEFAULT_WORKSPACE, state)
    made: Any = (await client.post("/conversations", json={"pattern_type": "chatbot"})).json()
    await client.post(f"/conversations/{made['id']}/messages", json={"message": "Hello"})
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'parley_deliveries{state="dead"} 2.0' in answer.text
    assert 'parley_deliveries{state="pending"} 1.0' in answer.text
    assert 'parley_runs{state="completed"} 1.0' in answer.text
    assert "# TYPE parley_queue_depth gauge" in answer.text
    assert "# TYPE parley_queue_oldest_seconds gauge" in answer.text
