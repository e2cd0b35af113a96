"""The application: `uvicorn app.main:app`, or `create_app(settings)`."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline

from app import __version__, extensions, telemetry
from app.api import (
    agents,
    approvals,
    artifacts,
    bulk,
    conversations,
    credentials,
    decisions,
    deliveries,
    documents,
    health,
    holds,
    idempotency,
    inbound,
    keys,
    later,
    memories,
    messages,
    notifications,
    openapi,
    operation,
    problems,
    receipts,
    runs,
    task_bulk,
    tasks,
    tool_calls,
    tool_imports,
    tool_sources,
    tools,
    unsubscribe,
    webhooks,
)
from app.api.access import Edge
from app.api.edge import BodyLimit, LocalOnly, Observed, PathPrefix, PlainStart
from app.api.limits import RateLimits
from app.api.metrics import Metrics
from app.embedded.attach import with_running_servers
from app.errors import DatabaseUnavailable
from app.executor import Engine
from app.identity import Doorkeeper, LastUse
from app.notifications import alerts, decision_links, mutes
from app.notifications.deliver import Sender
from app.providers import default_model
from app.settings import Settings
from app.tools.openapi import MAX_DOCUMENT_BYTES

log = structlog.stdlib.get_logger(__name__)

DESCRIPTION = """
Background jobs done by AI agents, where every interaction is a conversation.

Errors are problem documents (RFC 9457) with a stable `code`; lists are `{"items", "next_cursor"}`; `Idempotency-Key` is
taken by every POST that creates or starts something; times are UTC.
"""
WATCH_SECONDS = 30.0
FORGET_SECONDS = 3600.0
FORM_BYTES = 100_000  # Of an upload beside its file.

# In this order a path is looked for: what is fixed stands before what takes any name.
ROUTERS = (
    later.router,
    health.router,
    conversations.router,
    messages.router,
    bulk.router,
    runs.router,
    approvals.router,
    holds.router,
    webhooks.router,
    receipts.router,
    task_bulk.router,
    tasks.router,
    deliveries.router,
    notifications.router,
    unsubscribe.router,
    decisions.router,
    inbound.router,
    artifacts.router,
    agents.router,
    tool_calls.router,
    tool_imports.router,
    tool_sources.router,
    tools.router,
    documents.router,
    credentials.router,
    memories.router,
    keys.router,
    operation.router,
)


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is connected before its lifespan begins.

    Raises:
        ConfigurationError: when the settings would open the server to others without authentication, or name no model or extension.
    """
    auth_on = settings.auth_on
    extensions.load(settings)
    default_model(settings)  # A wrong DEFAULT_MODEL is told at the start, not by the first run.
    metrics = Metrics()
    # The routes, not their routers: those would match each request twice, and prepare each route anew per application.
    routes = [route for router in ROUTERS for route in router.routes]
    app = FastAPIOffline(
        title="Parley", version=__version__, description=DESCRIPTION, lifespan=_lifespan, routes=routes
    )
    app.state.settings = settings
    app.state.metrics = metrics
    problems.install(app)
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    openapi.install(app)
    _wrap(app, settings, metrics, auth_on=auth_on)
    return app


def _wrap(app: FastAPI, settings: Settings, metrics: Metrics, *, auth_on: bool) -> None:
    """Put the layers round the application, the innermost first."""
    files = {"/documents": settings.parley_document_bytes, "/tools": MAX_DOCUMENT_BYTES}
    uploads = {resource: size + FORM_BYTES for resource, size in files.items()}
    limit = settings.parley_max_body_bytes
    app.add_middleware(BodyLimit, limit=limit, uploads=uploads, counting=(webhooks.PATH, *inbound.PATHS))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    if not auth_on:
        app.add_middleware(LocalOnly, origins=settings.cors_origins)
    app.add_middleware(Observed, metrics=metrics, secret=(decision_links.PATH, mutes.PATH))
    app.add_middleware(PathPrefix)
    app.add_middleware(PlainStart)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings: Settings = app.state.settings
    async with Engine.open(settings, kind="api") as engine:
        limits, doorkeeper = RateLimits(settings.redis_dsn()), Doorkeeper(engine.database, settings)
        edge = Edge(limits, doorkeeper, LastUse(engine.database), app.state.metrics)
        app.state.engine, app.state.edge = engine, edge
        edge.seeded = await health.seed(engine)
        chores = [
            asyncio.create_task(edge.last_use.run()),
            asyncio.create_task(_forget(engine)),
            asyncio.create_task(_watch(engine)),
        ]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            with contextlib.suppress(DatabaseUnavailable):
                await edge.last_use.flush()
            await edge.limits.aclose()


async def _watch(engine: Engine) -> None:
    """Look for what calls for an alert; without a worker nobody else would send it."""
    if not alerts.addresses(engine.settings):
        return
    sender = Sender(engine.database, engine.means)
    while True:
        with _outliving("watch"):
            await alerts.watch(engine.database, engine.settings)
        with _outliving("send alerts"):
            await sender.send_due(alerts_only=True)
        await asyncio.sleep(WATCH_SECONDS)


async def _forget(engine: Engine) -> None:
    """Now and then, delete what is kept no longer."""
    while True:
        await asyncio.sleep(FORGET_SECONDS)
        with _outliving("forget"):
            await idempotency.forget_old(engine.database)


@contextlib.contextmanager
def _outliving(chore: str) -> Generator[None]:
    """Let a chore that comes again and again outlive what goes wrong once."""
    try:
        yield
    except DatabaseUnavailable:
        pass  # Whoever asks for something is told so.
    except Exception:  # a defect in one look must not end the looking
        log.exception("chore.broke", chore=chore)


def __getattr__(name: str) -> Any:
    """Make `app` when a server asks for it: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = with_running_servers(Settings.load())
    telemetry.configure(settings)
    globals()["app"] = created = create_app(settings)
    return created
