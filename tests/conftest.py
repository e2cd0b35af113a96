"""What every test stands on: real servers, a database of its own, and no environment of the developer's."""

import asyncio
import base64
import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fastapi.dependencies import models as dependencies
from pydantic_ai import models
from redis.asyncio import Redis

from app.db import Database
from app.settings import Settings
from tests import databases
from tests.cluster import Cluster, session_cluster

REDIS_DATABASES = 15

models.ALLOW_MODEL_REQUESTS = False

# Through the standard library, where pytest collects it; without the slow tracebacks of the default.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)


@pytest.fixture(autouse=True)
def _applications_end() -> Iterator[None]:
    """FastAPI remembers the functions of every application it met, and a suite makes a thousand of them."""
    yield
    for each in vars(dependencies).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()


def pytest_collection_finish() -> None:
    """What collecting has imported stays: half of a test's time would go into looking whether it is garbage."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `.env` nor a developer's settings reach a test."""
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    for name in Settings.model_fields:
        for variable in (name.upper(), f"{name.upper()}_FILE"):
            monkeypatch.delenv(variable, raising=False)
    for variable in ("PARLEY_URL", "PARLEY_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The servers of this session."""
    own = tmp_path_factory.getbasetemp()
    return session_cluster(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(scope="session")
def worker_number() -> int:
    """0 without xdist, else from 1 on."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return 1 + int(worker.removeprefix("gw")) if worker else 0


@pytest.fixture(scope="session")
def database_url(cluster: Cluster, worker_number: int) -> Iterator[str]:
    """The database of this process, cloned from the template."""
    name = f"parley_{os.getppid() if worker_number else os.getpid()}_{worker_number}_test"
    yield asyncio.run(databases.clone(cluster.postgres_dsn_admin, name))
    asyncio.run(databases.drop(cluster.postgres_dsn_admin, name))


@pytest.fixture(scope="session")
def redis_url(cluster: Cluster, worker_number: int) -> str:
    """The logical Redis database of this process."""
    return urlunsplit(urlsplit(cluster.redis_url)._replace(path=f"/{worker_number % REDIS_DATABASES + 1}"))


@pytest.fixture
async def _clean(database_url: str, redis_url: str) -> None:
    await databases.empty(database_url)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()


@pytest.fixture
def settings(_clean: None, database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a small local server on emptied stores."""
    return Settings.of(
        database_url=database_url,
        redis_url=redis_url,
        parley_home=tmp_path / "home",
        parley_secret="a secret for tests",
        parley_encryption_keys=f"k1:{base64.b64encode(bytes(32)).decode()}",
        parley_pool_size=5,
        default_model="demo",
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """Both doors to an emptied and seeded database."""
    from app import agents, identity  # Tests of one module load no more than it needs.

    opened = await Database.open(settings, name="parley test")
    try:
        await identity.seed(opened)
        await agents.seed(opened)
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application, started."""
    from app.main import create_app

    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the started application, on this machine."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as opened:
        yield opened
