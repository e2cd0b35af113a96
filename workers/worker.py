"""The worker process: the resident does the work, ARQ carries the rings.

`parley worker` (`main`) keeps the resident going whatever happens to Redis and starts ARQ's loop again when an outage
has ended it. `arq workers.worker.WorkerSettings` runs the same resident under ARQ's own command.
"""

import asyncio
import contextlib
import signal
from typing import Any, cast

import structlog
from arq.worker import Worker, func

from app import agents, extensions, identity
from app.embedded import with_running_servers
from app.errors import ConfigurationError, DatabaseUnavailable
from app.executor import Engine
from app.queue import LANE, WAKE, dumps, loads, queue_name, redis_settings
from app.redis import AWAY
from app.settings import Settings
from app.telemetry import configure as configure_logging
from workers.resident import Resident

log = structlog.stdlib.get_logger(__name__)

POLL_SECONDS = 0.02  # ARQ only polls; this is most of the time between a commit and its run's start.
RESTART_SECONDS = 1.0
WAKES_AT_ONCE = 100


async def wake(context: dict[str, Any], lane: str) -> None:
    """The one job: ring the resident."""
    context["resident"].ring(lane)


def arq_options(settings: Settings) -> dict[str, Any]:
    """ARQ's options: nothing of a run depends on its job, so nothing is kept, retried or timed by ARQ.

    Raises:
        ConfigurationError: when there is no Redis to listen to.
    """
    url = settings.doorbell_dsn()
    if url is None:
        raise ConfigurationError(
            "REDIS_URL is not set and no embedded server is running: start `parley up` first", field="REDIS_URL"
        )
    return {
        "functions": [func(cast("Any", wake), name=WAKE)],
        "redis_settings": redis_settings(url),
        "queue_name": queue_name(LANE),
        "poll_delay": POLL_SECONDS,
        "max_jobs": WAKES_AT_ONCE,
        "keep_result": 0,
        "max_tries": 1000,
        "retry_jobs": False,
        "job_serializer": dumps,
        "job_deserializer": loads,
        "allow_abort_jobs": False,
    }


async def main(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    extensions.load(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        engine = await _open(stack, settings, stop)
        if engine is None:
            return
        resident = await _start(engine)
        listener = asyncio.create_task(_listen_for_ever(settings, resident))
        log.info("worker.ready", owner=engine.owner, slots=settings.parley_concurrency)
        await stop.wait()
        log.info("worker.stopping", running=len(engine.running))
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await resident.stop()


async def _open(stack: contextlib.AsyncExitStack, settings: Settings, stop: asyncio.Event) -> Engine | None:
    """Open the engine as soon as PostgreSQL is there; None when told to stop before."""
    while not stop.is_set():
        try:
            return await stack.enter_async_context(Engine.open(settings, kind="worker"))
        except DatabaseUnavailable as error:
            log.warning("worker.database_away", detail=error.detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RESTART_SECONDS)
    return None


async def _start(engine: Engine) -> Resident:
    await identity.seed(engine.database)
    await agents.seed(engine.database)
    resident = Resident(engine)
    resident.start()
    return resident


async def _listen_for_ever(settings: Settings, resident: Resident) -> None:
    """Keep ARQ's loop alive: a Redis outage ends it, and it does not come back by itself."""
    if settings.doorbell_dsn() is None:
        log.info("worker.without_redis")
        return
    while True:
        worker = Worker(**arq_options(settings), ctx={"resident": resident}, handle_signals=False)
        try:
            await worker.async_run()
        except AWAY as error:
            log.warning("worker.redis_away", error=type(error).__name__)
        except Exception:  # whatever ends ARQ's loop, the bell must hang again
            log.exception("worker.arq_broke")
        finally:
            with contextlib.suppress(*AWAY):
                await worker.close()
        await asyncio.sleep(RESTART_SECONDS)


# --- `arq workers.worker.WorkerSettings` ---------------------------------------------------------------


def __getattr__(name: str) -> dict[str, Any]:
    """The settings `arq` asks this module for, read from the environment only then and not when it is imported."""
    if name != "WorkerSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = with_running_servers(Settings.load())
    return {
        **arq_options(settings),
        "ctx": {"settings": settings},
        "on_startup": _startup,
        "on_shutdown": _shutdown,
    }


async def _startup(context: dict[str, Any]) -> None:
    settings: Settings = context["settings"]
    configure_logging(settings)
    extensions.load(settings)
    context["stack"] = stack = contextlib.AsyncExitStack()
    engine = await stack.enter_async_context(Engine.open(settings, kind="worker"))
    context["resident"] = await _start(engine)


async def _shutdown(context: dict[str, Any]) -> None:
    with contextlib.suppress(DatabaseUnavailable):
        await context["resident"].stop()
    await context["stack"].aclose()
