"""/healthz, /readyz and /metrics: what machines ask."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app import __version__, agents, identity
from app.api.access import edge_of, engine_of
from app.api.metrics import CONTENT_TYPE
from app.db import Database
from app.errors import DatabaseUnavailable
from app.executor import Engine
from app.providers import default_model
from app.redis import connect, ping

router = APIRouter(tags=["health"])

# The migration this code needs.
SCHEMA = "0015"


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str = Field(examples=["0.1.0"])
    model: str = Field(description="The model of agents that name none.", examples=["demo"])
    model_reason: str = Field(description="Why it is that one.")


class Ready(BaseModel):
    """Whether the process can do its work."""

    status: Literal["ready", "degraded", "unavailable"]
    database: str = Field(description="`ok`, or what is wrong.", examples=["ok"])
    redis: str = Field(description="`ok`, or what that means.", examples=["ok"])
    migrations: str = Field(description="`ok`, or what is missing.", examples=["ok"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz(request: Request) -> Health:
    """Asks nobody else: a process whose stores are away is alive."""
    model, reason = default_model(engine_of(request).settings)
    return Health(version=__version__, model=model, model_reason=reason)


@router.get("/readyz", summary="Can the process work?", responses={503: {"model": Ready}})
async def readyz(request: Request, response: Response) -> Ready:
    """503 without PostgreSQL or with missing migrations. Without Redis everything still works, only later."""
    engine, edge = engine_of(request), edge_of(request)
    database, migrations = await _database(engine)
    if migrations == "ok" and not edge.seeded:
        edge.seeded = await seed(engine)
    redis = await _redis(engine)
    able = database == migrations == "ok"
    if not able:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    status = "unavailable" if not able else "ready" if redis == "ok" else "degraded"
    return Ready(status=status, database=database, redis=redis, migrations=migrations)


async def _database(engine: Any) -> tuple[str, str]:
    try:
        found = await schema_of(engine.database)
    except DatabaseUnavailable as error:
        return error.detail, "unknown"
    return "ok", "ok" if found == SCHEMA else f"the schema is at {found}, this version needs {SCHEMA}: parley migrate"


async def schema_of(database: Database) -> str | None:
    """The migration the database is at, None when it has seen none."""
    there = await database.fetchval("select to_regclass('public.alembic_version') is not null")
    return await database.fetchval("select version_num from alembic_version") if there else None


async def seed(engine: Engine) -> bool:
    """Make what exists from the start; False while the database is not migrated."""
    database = engine.database
    if await schema_of(database) != SCHEMA:
        return False
    await identity.seed(database)
    await agents.seed(database)
    return True


async def _redis(engine: Any) -> str:
    url = engine.settings.redis_dsn()
    if url is None:
        return "not set: workers look on a timer, readers poll"
    client = connect(url)
    try:
        return "ok" if await ping(client) else "away: workers look on a timer, readers poll"
    finally:
        await client.aclose()


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"description": "The text format.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Requests of this process; runs, queue and deliveries of the installation."""
    text = await edge_of(request).metrics.text(engine_of(request).database)
    return Response(text, media_type=CONTENT_TYPE)
