"""The scheduler process: a timer that fires due tasks. Any number may run; PostgreSQL decides who fires what.

APScheduler only wakes it: at the next due instant, and each second in case that instant was moved meanwhile. Schedules
live in the tasks' rows, so an edit is in force for every look that begins after its commit.
"""

import asyncio
import contextlib
import signal
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import structlog
from apscheduler.schedulers import asyncio as untyped_asyncio  # pyright: ignore[reportMissingTypeStubs]

from app import agents, extensions, identity
from app.conversations import Accepted
from app.db import Database
from app.errors import DatabaseUnavailable
from app.events import Bus
from app.models import new_id
from app.queue import Bell
from app.settings import Settings, process_name
from app.tasks import fire_due, seconds_to_next
from workers.presence import beat, leave

log = structlog.stdlib.get_logger(__name__)

AsyncIOScheduler = cast("Any", untyped_asyncio).AsyncIOScheduler

NET_SECONDS = 1.0
BEAT_SECONDS = 10.0
RETRY_SECONDS = 1.0
# APScheduler drops what it is late for unless told not to; one late look accounts for everything that is due.
JOB_DEFAULTS = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}


class Scheduler:
    """Looks for due tasks at the right moments and fires them."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Take an open database."""
        self._settings = settings
        self._database = database
        self._bus = Bus(database, settings.redis_dsn())
        self._bell = Bell(settings.doorbell_dsn())
        self._timer = AsyncIOScheduler(timezone=UTC, job_defaults=JOB_DEFAULTS)
        self._looking = asyncio.Lock()
        self._cut_off = False
        self.owner = f"scheduler:{process_name()}:{new_id()}"

    async def start(self) -> None:
        """Begin to look."""
        await self._bus.start()
        with contextlib.suppress(DatabaseUnavailable):
            await identity.seed(self._database)
            await agents.seed(self._database)
        now = datetime.now(UTC)
        self._timer.add_job(self.tick, "interval", seconds=NET_SECONDS, next_run_time=now, id="net")
        self._timer.add_job(self._beat, "interval", seconds=BEAT_SECONDS, next_run_time=now, id="beat")
        self._timer.start()

    async def stop(self) -> None:
        """Finish the look under way, then end."""
        self._timer.pause()
        async with self._looking:
            self._timer.shutdown(wait=False)
        await asyncio.sleep(0)  # APScheduler shuts down in the loop's next turn.
        with contextlib.suppress(DatabaseUnavailable):
            await leave(self._database, self.owner)
        await self._bus.stop()
        await self._bell.close()

    async def tick(self) -> None:
        """Fire whatever is due, then set the timer for what is due next."""
        if self._looking.locked():
            return
        async with self._looking:
            try:
                await self._fire_all()
                self._arm(await seconds_to_next(self._database))
                self._cut_off = False
            except DatabaseUnavailable as error:
                self._cut_off = True
                log.warning("scheduler.database_away", detail=error.detail)
            except Exception:  # a defect in one look must not end the looking
                log.exception("scheduler.look_broke")

    async def _fire_all(self) -> None:
        without: set[UUID] = set()
        while True:
            fired = await fire_due(self._database, self._settings, without=list(without))
            for accepted in fired.accepted:
                self._welcome(accepted)
            without |= fired.failed
            if not fired.tasks:
                return
            log.info("scheduler.fired", tasks=fired.tasks, runs=sum(1 for each in fired.accepted if each.events))

    def _welcome(self, accepted: Accepted) -> None:
        self._bus.publish(accepted.events)
        if accepted.cancelling:
            self._bus.control({"cancel": str(accepted.cancelling)})
        if accepted.ready:
            self._bell.ring()

    def _arm(self, seconds: float | None) -> None:
        if seconds is not None:
            due = datetime.now(UTC) + timedelta(seconds=max(0.0, seconds))
            self._timer.add_job(self.tick, "date", run_date=due, id="next", replace_existing=True)

    async def _beat(self) -> None:
        if self._cut_off:
            return  # Who could not look was not there: first it accounts for what came due meanwhile.
        with contextlib.suppress(DatabaseUnavailable):
            await beat(self._database, self.owner, kind="scheduler")


async def main(settings: Settings) -> None:
    """Run a scheduler until SIGTERM or SIGINT."""
    extensions.load(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    database = await _open(settings, stop)
    if database is None:
        return
    scheduler = Scheduler(settings, database)
    try:
        await scheduler.start()
        log.info("scheduler.ready", owner=scheduler.owner)
        await stop.wait()
        log.info("scheduler.stopping")
        await scheduler.stop()
    finally:
        await database.close()


async def _open(settings: Settings, stop: asyncio.Event) -> Database | None:
    """Connect as soon as PostgreSQL is there; None when told to stop before."""
    while not stop.is_set():
        try:
            return await Database.open(settings, name="parley scheduler")
        except DatabaseUnavailable as error:
            log.warning("scheduler.database_away", detail=error.detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
    return None
