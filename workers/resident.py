"""The resident of a worker: claims due runs, executes them, sweeps, sends deliveries. Needs no Redis.

Rings only make it look sooner; it also looks on a timer.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import structlog

from app import approvals
from app.db import Row
from app.errors import DatabaseUnavailable
from app.executor import Engine
from app.executor.engine import GRACE_SECONDS
from app.knowledge.indexing import Indexer
from app.notifications import alerts
from app.notifications.deliver import Sender
from app.queue import LANE
from app.runs import claim, due, overdue, recover, stranded, tend
from app.runs.depend import decided
from app.tools import sources
from workers.presence import beat, leave

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

CRASH_CAP = 3  # A run that took down this many workers is poison.
BEAT_SECONDS = 5.0
DELIVERIES = 10  # Sent at a time ...
BATCHES = 4  # ... in each of so many batches.
WATCH_SECONDS = 30.0  # How often it is looked for what calls for an alert.
SOURCES_SECONDS = 5.0  # How often it is looked whether an MCP server is due to be read.
SOURCES = 8  # Read at once, each of another workspace.


class Resident:
    """Owns the worker's slots."""

    def __init__(self, engine: Engine, *, lane: str = LANE) -> None:
        """Work for a lane with an open engine."""
        self._engine = engine
        self._lane = lane
        self._settings = engine.settings
        self._stopping = asyncio.Event()
        self._rung = asyncio.Event()
        self._mail = asyncio.Event()
        self._sender = Sender(engine.database, engine.means)
        self._indexer = Indexer(engine.database, engine.embedder)
        self._tasks: list[asyncio.Task[None]] = []
        self.defects = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._read = asyncio.Event()
        self._reading: dict[UUID, asyncio.Task[None]] = {}  # By the workspace.
        self._no_recovery_until = 0.0

    def start(self) -> None:
        """Begin; returns at once."""
        self._engine.on_free = self._rung.set
        self._engine.on_due = self.ring_for_runs
        self._engine.bell.listener = self.ring
        loops = (
            self._claim_loop,
            self._sweep_loop,
            self._delivery_loop,
            self._source_loop,
            self._beat_loop,
            self._index_loop,
            self._watch_loop,
        )
        self._tasks = [asyncio.create_task(self._for_ever(loop), name=loop.__name__) for loop in loops]

    async def stop(self) -> None:
        """Stop claiming, let runs come to a step boundary, give the rest back."""
        self._stopping.set()
        self.ring(self._lane)
        self._read.set()
        reading = list(self._reading.values())
        for task in reading:  # Another reads them when they are due next.
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        # A look that has begun comes to its end: a claim cut off may have committed runs that nobody would execute.
        await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sending:
            await asyncio.wait(self._sending, timeout=GRACE_SECONDS)
        await self._engine.make_room(GRACE_SECONDS)
        await self._engine.release_all()
        with contextlib.suppress(DatabaseUnavailable):
            await leave(self._engine.database, self._engine.owner)

    def ring(self, lane: str = LANE) -> None:
        """Runs or deliveries may be due."""
        if lane == self._lane:
            self._rung.set()
            self._mail.set()

    def ring_for_runs(self, lane: str) -> None:
        """Runs may be due."""
        if lane == self._lane:
            self._rung.set()

    async def _for_ever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A loop that outlives PostgreSQL outages and its own defects."""
        while not self._stopping.is_set():
            try:
                await loop()
            except DatabaseUnavailable as error:
                log.warning("worker.database_away", detail=error.detail)
                # Every holder was cut off: each gets a lease's time to renew before its runs are taken.
                self._no_recovery_until = time.monotonic() + self._settings.parley_lease_seconds
            except Exception:  # a defect in one pass must not end the worker
                log.exception("worker.loop_broke")
            await _wait(self._stopping, self._settings.parley_sweep_seconds)

    # --- claiming --------------------------------------------------------------------------------------

    @property
    def _free(self) -> int:
        return self._settings.parley_concurrency - len(self._engine.running)

    async def _claim_loop(self) -> None:
        while not self._stopping.is_set():
            self._rung.clear()
            while self._free > 0 and not self._stopping.is_set() and await self._claim_batch():
                pass
            await self._pass_on_if_full()
            await _wait(self._rung, self._settings.parley_sweep_seconds)

    async def _claim_batch(self) -> bool:
        """Claim as many due runs as there are slots; whether more may be due."""
        wanted = self._free
        claims = await claim(
            self._engine.database,
            lane=self._lane,
            limit=wanted,
            owner=self._engine.owner,
            lease_seconds=self._settings.parley_lease_seconds,
        )
        for each in claims:
            self._engine.spawn(each)
        return len(claims) == wanted

    async def _pass_on_if_full(self) -> None:
        """Out of slots while runs are due: another worker may have some."""
        if self._free <= 0 and await due(self._engine.database, self._lane):
            self._engine.bell.pass_on(self._lane)

    # --- sweeping --------------------------------------------------------------------------------------

    async def _sweep_loop(self) -> None:
        while not self._stopping.is_set():
            await _wait(self._stopping, self._settings.parley_sweep_seconds)
            await self._sweep()

    async def _sweep(self) -> None:
        """Take over what dead processes held, end what ran out of time, mend what should not be."""
        lease, database = self._settings.parley_lease_seconds, self._engine.database
        if time.monotonic() >= self._no_recovery_until:
            for lost in await recover(database, lease_seconds=lease, crash_cap=CRASH_CAP):
                log.warning("run.recovered", run_id=str(lost.run_id), owner=lost.owner, crashes=lost.crash_count)
                self._engine.bus.publish(lost.events)
                self.ring(self._lane)
            for over in await overdue(database, lease_seconds=lease, crash_cap=CRASH_CAP):
                if await self._apart(self._engine.expire(over, crash_cap=CRASH_CAP)):
                    log.warning("run.overdue", run_id=str(over.run_id), code=over.code)
        if await tend(database):
            self.ring(self._lane)
        for question in await approvals.expired(database):
            await self._apart(self._engine.close_question(question))
        for run in await decided(database):
            await self._apart(self._engine.resolve(run))
        for conversation_id in await stranded(database):
            self.defects += 1
            log.error("conversation.stranded", conversation_id=str(conversation_id))
            await self._apart(self._engine.hand_on(conversation_id))

    async def _apart(self, work: Awaitable[T]) -> T | None:
        """One thing of a sweep: a defect in it does not keep the others from their turn."""
        try:
            return await work
        except DatabaseUnavailable:
            raise
        except Exception:  # the next sweep tries again
            log.exception("sweep.item_broke")
            return None

    # --- delivering ------------------------------------------------------------------------------------

    async def _delivery_loop(self) -> None:
        """Send what is due; a receiver that hangs holds up its own batch and no other."""
        while not self._stopping.is_set():
            self._mail.clear()
            if len(self._sending) < BATCHES:
                batch = asyncio.create_task(self._send_all())
                self._sending.add(batch)
                batch.add_done_callback(self._sending.discard)
            await _wait(self._mail, self._settings.parley_sweep_seconds)

    async def _send_all(self) -> None:
        try:
            while not self._stopping.is_set() and await self._sender.send_due(DELIVERIES) == DELIVERIES:
                pass
        except DatabaseUnavailable as error:
            log.warning("worker.deliveries_wait", detail=error.detail)

    async def _watch_loop(self) -> None:
        """Look for what whoever runs the server must hear of."""
        while not self._stopping.is_set():
            if await alerts.watch(self._engine.database, self._settings):
                self._mail.set()
            await _wait(self._stopping, WATCH_SECONDS)

    async def _source_loop(self) -> None:
        """Read the lists of MCP servers that are due: of a workspace one at a time, so that one that hangs delays its own."""
        while not self._stopping.is_set():
            self._read.clear()
            while len(self._reading) < SOURCES and not self._stopping.is_set():
                due = await sources.next_due(self._engine.database, but=self._reading)
                if due is None:
                    break
                self._reading[due["workspace_id"]] = asyncio.create_task(self._read_source(due))
            await _wait(self._read, SOURCES_SECONDS)

    async def _read_source(self, due: Row) -> None:
        try:
            await self._apart(sources.read_again(self._engine.database, self._engine.sessions, due))
        except DatabaseUnavailable as error:
            log.warning("worker.sources_wait", detail=error.detail)
        finally:
            del self._reading[due["workspace_id"]]
            self._read.set()

    # --- indexing --------------------------------------------------------------------------------------

    async def _index_loop(self) -> None:
        """Give documents their vectors, one after the other: a large one does not starve the runs."""
        await self._indexer.refresh()
        while not self._stopping.is_set():
            while not self._stopping.is_set() and await self._indexer.index_due():
                pass
            await _wait(self._stopping, self._settings.parley_sweep_seconds)

    async def _beat_loop(self) -> None:
        while not self._stopping.is_set():
            await beat(
                self._engine.database,
                self._engine.owner,
                kind="worker",
                slots=self._settings.parley_concurrency,
                running=len(self._engine.running),
            )
            await _wait(self._stopping, BEAT_SECONDS)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
