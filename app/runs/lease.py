"""The heartbeat: a thread of its own renews this process's leases, so that a busy loop does not lose them.

It also watches the loop it serves: when that has made no progress for a lease, it stops renewing, because a wedged
process must lose its runs. And when renewing has failed for most of a lease, it gives the runs up here before another
process may take them.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from app import failpoints
from app.db import UNAVAILABLE, Connection, Row, dump_json, lone_connection
from app.settings import Settings

log = logging.getLogger(__name__)

PULSE_SECONDS = 0.2
MARGIN_SECONDS = 1.0  # The runs are given up this long before their lease ends.

# Invariant: only the holder's fence renews; rows are locked in id order, as in every batch. A higher fence says that
# another claim has the run; the same fence without `running` only that this process is about to be done with it.
RENEW = """
with asked as materialized (
    select r.id, r.fence = x.fence and r.state = 'running' as held, r.fence > x.fence as taken
    from runs r join json_to_recordset($1::json) as x(id uuid, fence bigint) on x.id = r.id
    order by r.id for no key update of r
), renewed as (
    update runs r set lease_until = now() + make_interval(secs => $2) from asked where r.id = asked.id and asked.held
)
select a.id, a.held, a.taken, r.cancel_requested_at is not null as cancel_requested
from asked a join runs r on r.id = a.id
"""


class Heartbeat:
    """Keeps the leases of the runs this process holds."""

    def __init__(
        self, settings: Settings, on_lost: Callable[[UUID, int], None], on_cancel: Callable[[UUID], None]
    ) -> None:
        """Make a heartbeat that is not beating yet.

        Args:
            settings: DSN and lease.
            on_lost: Called in the loop with a run that is no longer ours, and the fence it had.
            on_cancel: Called in the loop with a run that shall be cancelled.
        """
        self._dsn = settings.dsn()
        self._lease = settings.parley_lease_seconds
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._held: dict[UUID, tuple[int, float]] = {}  # run -> (fence, monotonic time of the last renewal)
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._pulse = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._pulsing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat for the running loop."""
        self._loop = asyncio.get_running_loop()
        self._pulsing = asyncio.create_task(self._keep_pulse())
        self._thread.start()

    async def stop(self) -> None:
        """Stop beating; leases held now will run out."""
        self._stop.set()
        if self._pulsing:
            self._pulsing.cancel()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 2.0)

    def hold(self, run_id: UUID, fence: int) -> None:
        """Renew this run from now on."""
        with self._guard:
            self._held[run_id] = (fence, time.monotonic())

    def drop(self, run_id: UUID, fence: int) -> None:
        """Stop renewing this claim of a run."""
        with self._guard:
            if self._held.get(run_id, (None,))[0] == fence:
                del self._held[run_id]

    async def _keep_pulse(self) -> None:
        while True:
            self._pulse = time.monotonic()
            await asyncio.sleep(PULSE_SECONDS)

    # --- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._beat_and_watch())

    async def _beat_and_watch(self) -> None:
        """Watch beside the beat: a PostgreSQL that hangs holds the beat up for longer than a lease."""
        watching = asyncio.create_task(self._watch())
        await self._beat_for_ever()
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            self._give_up_stale()
            await asyncio.sleep(PULSE_SECONDS)

    async def _beat_for_ever(self) -> None:
        while not self._stop.is_set():
            try:
                async with lone_connection(self._dsn, name="parley heartbeat") as connection:
                    while not self._stop.is_set():
                        await self._beat(connection)
                        await self._pause(self._lease / 4)
            except UNAVAILABLE as error:
                log.warning("the heartbeat lost PostgreSQL: %s", type(error).__name__)
                await self._pause(0.3)
            except Exception:  # without a beat this process would lose every run it takes
                log.exception("the heartbeat stumbled")
                await self._pause(0.3)

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stop.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # The flag is another thread's; an asyncio.Event can't be set from there.

    async def _beat(self, connection: Connection) -> None:
        if time.monotonic() - self._pulse > self._lease:
            log.error("the event loop is blocked; its runs are not renewed")
            return
        with self._guard:
            held = {run_id: fence for run_id, (fence, _) in self._held.items()}
        if not held:
            return
        began = time.monotonic()
        records = [{"id": str(run_id), "fence": fence} for run_id, fence in held.items()]
        failpoints.before("renew")
        rows = await connection.fetch(RENEW, dump_json(records), self._lease)
        failpoints.after("renew")
        self._note({row["id"]: row for row in rows}, held, began)
        for row in rows:
            if row["held"] and row["cancel_requested"]:
                self._call(self._on_cancel, row["id"])

    def _note(self, found: dict[UUID, Row], asked: dict[UUID, int], began: float) -> None:
        with self._guard:
            for run_id, fence in asked.items():
                if run_id not in self._held or self._held[run_id][0] != fence:
                    continue
                row = found.get(run_id)
                if row is None or row["taken"]:
                    del self._held[run_id]
                    self._call(self._on_lost, run_id, fence)
                elif row["held"]:
                    self._held[run_id] = (fence, began)

    def _give_up_stale(self) -> None:
        limit = time.monotonic() - (self._lease - min(MARGIN_SECONDS, self._lease / 4))
        with self._guard:
            stale = [(run_id, fence) for run_id, (fence, renewed) in self._held.items() if renewed < limit]
            for run_id, fence in stale:
                del self._held[run_id]
                self._call(self._on_lost, run_id, fence)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)
