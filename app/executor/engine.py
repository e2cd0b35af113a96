"""The engine: what a process needs to accept, run and end runs. The API and the workers each open one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import UUID

import structlog

from app import approvals, charts, sandbox
from app.approvals import NewApproval
from app.conversations import Accepted, Beginnings, lock
from app.credentials import Box, Credentials
from app.credentials.rotation import has_canaries, keep_canaries
from app.db import Database, Row
from app.egress import Egress
from app.errors import DatabaseUnavailable, ParleyError, all_errors
from app.events import Bus
from app.executor.breakers import Breakers
from app.executor.effects import Effects
from app.executor.execute import Execution, Stop, execute
from app.executor.load import Loads
from app.knowledge.embedding import Embedder
from app.messages import Json
from app.models import new_id
from app.notifications.channel import Means
from app.notifications.smtp import Smtp
from app.providers import Providers
from app.queue import LANE, Bell
from app.runs import (
    Checkpoints,
    Claim,
    Fenced,
    Heartbeat,
    Inline,
    Overdue,
    hand_on,
    patiently,
    paused,
    still_overdue,
    wish_cancel,
)
from app.runs.depend import decided
from app.settings import Settings, process_name
from app.settle import Outcome, Settled, Settlement, Settlements, cancelled, failed, settle
from app.tasks import NewTasks, dependencies
from app.tools import mcp_servers, sources
from app.tools.mcp_sessions import Server, Sessions

GRACE_SECONDS = 5.0
LOCK_HEAD = "select from heads where conversation_id = $1 for no key update"

ERRORS: dict[str, type[ParleyError]] = {kind.code: kind for kind in all_errors()}

log = structlog.stdlib.get_logger(__name__)


class Engine:
    """Holds the process's doors and the runs it executes."""

    def __init__(self, settings: Settings, database: Database, *, kind: str) -> None:
        """Take an open database; use `Engine.open`."""
        self.settings = settings
        self.database = database
        self.owner = f"{kind}:{process_name()}:{new_id()}"
        self.bus = Bus(database, settings.redis_dsn())
        self.bell = Bell(settings.doorbell_dsn())
        self.box = Box.from_settings(settings)
        self.egress = Egress(settings)
        self.means = Means(settings, self.egress, self.box, database, Smtp(settings))
        self.credentials = Credentials(database, self.box, self.egress)
        self.sessions = Sessions(self.egress, self.credentials)
        self.breakers = Breakers(database, settings, self._failure_of, self._tell_breakers)
        self.providers = Providers(settings, self.breakers.guard)
        self.beginnings = Beginnings(database, settings)
        self.new_tasks = NewTasks(database)
        self.loads = Loads(database)
        self.checkpoints = Checkpoints(database)
        self.settlements = Settlements(database, settings)
        self.embedder = Embedder(settings, self.providers)
        self.effects = Effects(database, self.bus, self.bell, self.embedder)
        self.heartbeat = Heartbeat(settings, self._on_lost, self._on_cancel)
        self.sessions.on_change = self._on_source_changed
        self._notes: set[asyncio.Task[None]] = set()
        self._programs: list[str] = []
        self.running: dict[UUID, Execution] = {}
        self.on_free: Callable[[], None] = lambda: None
        self.on_due: Callable[[str], None] = lambda _: None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, *, kind: str) -> AsyncGenerator[Self]:
        """Connect, listen and beat until the end of the block.

        Args:
            settings: Of this process.
            kind: `api` or `worker`; part of the owner's name.

        Raises:
            DatabaseUnavailable: when PostgreSQL can't be reached.
        """
        engine = cls(settings, await Database.open(settings, name=f"parley {kind}"), kind=kind)
        beside = [asyncio.create_task(work) for work in (engine._keep_pauses(), engine._look_at_keys())]
        try:
            await engine.bus.start(engine._on_control)
            engine.heartbeat.start()
            engine.breakers.start()
            engine._programs = await mcp_servers.offer(settings, engine.sessions)
            yield engine
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await engine.close()

    async def close(self) -> None:
        """Give the runs back, between two steps where there is time for it, and disconnect."""
        await self.make_room(GRACE_SECONDS)
        await self.release_all()
        await self.breakers.stop()
        await self.heartbeat.stop()
        mcp_servers.withdraw(self._programs)
        await self.sessions.aclose()
        await asyncio.gather(*self._notes, return_exceptions=True)  # These may tell and ring.
        await self.bus.stop()
        await self.bell.close()
        await self.providers.aclose()
        await self.means.smtp.aclose()
        await self.egress.aclose()
        await sandbox.aclose()
        await charts.aclose()
        await self.database.close()

    @property
    def inline(self) -> Inline:
        """The claim with which a turn is born running here."""
        return Inline(self.owner, self.settings.parley_lease_seconds)

    # --- accepting -----------------------------------------------------------------------------------

    def welcome(self, accepted: Accepted) -> None:
        """Do what an accepted message asks for, after its commit: tell, execute here, or ring."""
        self.bus.publish(accepted.events)
        if accepted.depends:
            self.look_at_dependents(accepted.depends)
        if accepted.cancelling:
            self.bus.control({"cancel": str(accepted.cancelling)})
        if accepted.claim:
            self.spawn(accepted.claim)
        elif accepted.ready:
            self._ring("due")

    def _ring(self, word: str = "ring") -> None:
        """Wake workers: those that listen now hear it at once, the bell's poll reaches any other.

        Args:
            word: `due` when only a run is due, and no delivery.
        """
        self.bus.control({word: LANE})
        self.bell.ring()

    # --- executing -----------------------------------------------------------------------------------

    def spawn(self, claim: Claim) -> None:
        """Execute a claimed run as a task of the process, whoever asked for it."""
        execution = Execution(claim)
        self.running[claim.run_id] = execution
        self.heartbeat.hold(claim.run_id, claim.fence)
        execution.task = asyncio.create_task(self._execute(execution), name=f"run {claim.run_id}")

    async def _execute(self, execution: Execution) -> None:
        claim = execution.claim
        structlog.contextvars.bind_contextvars(run_id=str(claim.run_id), conversation_id=str(claim.conversation_id))
        self.bus.publish(claim.events)
        try:
            await execute(self, execution)
        finally:
            self.heartbeat.drop(claim.run_id, claim.fence)
            if self.running.get(claim.run_id) is execution:  # A later claim of the run may be held here by now.
                del self.running[claim.run_id]
            self.on_free()

    async def finish(self, who: Fenced, outcome: Outcome) -> None:
        """End a run held here, then tell and ring; an outage does not lose its answer at once.

        Raises:
            LeaseLost: when the run is not held any more, or an earlier try had landed.
            DatabaseUnavailable: when PostgreSQL stays away.
        """
        ending = Settlement(who.run_id, who.conversation_id, outcome, who)
        settled = await patiently(lambda: self.settlements.settle(ending))
        if settled:
            self.tell(settled)

    async def expire(self, over: Overdue, *, crash_cap: int) -> bool:
        """Fail a run whose time is over, unless it has moved on since the sweep found it."""
        lease = self.settings.parley_lease_seconds
        async with self.database.engine_tx("expire run") as connection:
            await connection.execute(LOCK_HEAD, over.conversation_id)
            if not await still_overdue(connection, over, lease_seconds=lease, crash_cap=crash_cap):
                return False
            outcome = failed(ERRORS[over.code]())
            settled = await settle(connection, self.settings, over.run_id, over.conversation_id, outcome)
        if settled:
            self.tell(settled)
        return settled is not None

    def tell(self, settled: Settled) -> None:
        """Publish what a transaction has committed, and ring if work became due."""
        self.bus.publish(settled.events)
        if settled.work_is_due:
            self._ring()
        if settled.dependents_of:
            self.look_at_dependents(settled.dependents_of)

    def look_at_dependents(self, task_id: UUID) -> None:
        """Let runs go on that waited for a task, or are its own, beside what is done here; the sweep finds the rest."""
        self._note(self._resolve_all(task_id))

    async def _resolve_all(self, task_id: UUID) -> None:
        with contextlib.suppress(DatabaseUnavailable):
            for run in await decided(self.database, task_id):
                await self._resolve_apart(run)

    async def _resolve_apart(self, run: Row) -> None:
        try:
            await self.resolve(run)
        except DatabaseUnavailable:
            raise
        except Exception:  # a defect that one run meets must not hold up the others
            log.exception("run.not_resolved", run_id=str(run["id"]))

    async def resolve(self, run: Row) -> None:
        """Queue a run whose tasks have ended, or fail it."""
        async with self.database.engine_tx("depend") as connection:
            settled = await dependencies.resolve(connection, self.settings, run)
        if settled:
            self.tell(settled)

    async def hand_on(self, conversation_id: UUID) -> None:
        """Make the lowest open run of a conversation ready, when none is."""
        async with self.database.engine_tx() as connection:
            await connection.execute(LOCK_HEAD, conversation_id)
            await hand_on(connection, conversation_id)
        self._ring()

    async def park(self, who: Fenced, questions: list[NewApproval]) -> None:
        """Let a run wait for people, then tell.

        Raises:
            LeaseLost: when `who` does not hold the run any more.
        """
        async with self.database.engine_tx("park") as connection:
            parked = await approvals.park(connection, self.settings, who, questions)
        self.tell(parked)

    async def close_question(self, question: Row) -> None:
        """Close a question whose time is over."""
        async with self.database.engine_tx("expire question") as connection:
            settled = await approvals.expire(connection, self.settings, question)
        if settled:
            self.tell(settled)

    # --- stopping ------------------------------------------------------------------------------------

    async def cancel(self, workspace_id: UUID, run_id: UUID, conversation_id: UUID, reason: str | None) -> None:
        """Cancel a run wherever it is; nothing happens to one that has ended."""
        async with self.database.engine_tx("cancel") as connection:
            await lock(connection, workspace_id, conversation_id)
            asked = await wish_cancel(connection, run_id, reason)
            outcome = cancelled(reason)
            settled = None if asked else await settle(connection, self.settings, run_id, conversation_id, outcome)
        if asked:
            self.bus.control({"cancel": str(run_id)})
        elif settled:
            self.tell(settled)

    def _on_control(self, message: Json) -> None:
        if "cancel" in message:
            self._on_cancel(UUID(message["cancel"]))
        elif "due" in message:
            self.on_due(message["due"])
        elif "ring" in message and self.bell.listener:
            self.bell.listener(message["ring"])
        elif "breakers" in message:
            self.breakers.look_soon()

    def _failure_of(self, error: BaseException) -> ParleyError:
        return self.providers.failure(error)

    def _tell_breakers(self) -> None:
        """A breaker has opened or closed: let every process look at once, and take what has become due."""
        self.bus.control({"breakers": "changed"})
        self._ring()

    def _on_cancel(self, run_id: UUID) -> None:
        if run_id in self.running:
            self.running[run_id].stop(Stop.CANCEL)

    def _on_source_changed(self, server: Server) -> None:
        """An MCP server has other tools now: have its list read before its time."""
        self._note(sources.soon(self.database, server))

    def _note(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside everything else; closing waits for it."""
        note = asyncio.create_task(work)
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    def _on_lost(self, run_id: UUID, fence: int) -> None:
        execution = self.running.get(run_id)
        if execution and execution.claim.fence == fence:
            execution.stop(Stop.LOST)

    async def make_room(self, seconds: float) -> None:
        """Let every run held here go back to the queue at its next step; wait for that at most this long."""
        for execution in self.running.values():
            execution.step_aside()
        tasks = [execution.task for execution in self.running.values() if execution.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _keep_pauses(self) -> None:
        """Ask runs held here to step aside when a pause speaks of them."""
        while True:
            await asyncio.sleep(self.settings.parley_sweep_seconds)
            with contextlib.suppress(DatabaseUnavailable):
                for run_id in await paused(self.database, list(self.running)):
                    if run_id in self.running:
                        self.running[run_id].step_aside()

    async def _look_at_keys(self) -> None:
        """Tell the log once when the encryption keys don't open what is stored: what needs them waits, and no more."""
        while True:
            with contextlib.suppress(DatabaseUnavailable):
                if await has_canaries(self.database):
                    for wrong in await keep_canaries(self.database, self.box):
                        log.error("encryption.key_is_wrong", reason=wrong)
                    return
            await asyncio.sleep(self.settings.parley_sweep_seconds)

    async def release_all(self) -> None:
        """Give back every run still held here, so that another process takes it at once."""
        executions = list(self.running.values())
        for execution in executions:
            execution.stop(Stop.RELEASE)
        tasks = [execution.task for execution in executions if execution.task]
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)
