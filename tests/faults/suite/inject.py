"""Carries the schedule out, and measures how soon what a killed process held goes on elsewhere."""

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from redis.asyncio import Redis

from app.embedded.processes import Process
from app.redis import AWAY as REDIS_AWAY
from tests.faults.suite.plan import Fault
from tests.faults.suite.stage import AWAY, Actor, Stage

HELD = "select id, fence from runs where state = 'running' and owner like $1"


@dataclass(frozen=True)
class Orphan:
    """A run whose holder was killed or frozen."""

    run_id: UUID
    fence: int
    at: float
    how: str


@dataclass
class Injector:
    """Hits the stage."""

    stage: Stage
    done: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    orphans: list[Orphan] = field(default_factory=list)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _postgres: asyncio.Lock = field(default_factory=asyncio.Lock)
    _valkey: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def play(self, faults: list[Fault], stop: asyncio.Event) -> None:
        """Each fault at its time; those that last go on beside the next ones. Then everything is well again."""
        began = time.monotonic()
        for fault in faults:
            await _wait(stop, began + fault.at - time.monotonic())
            if stop.is_set():
                break
            self._begin(fault)
        while self._under_way:
            await asyncio.wait(self._under_way)
        self.stage.postgres_proxy.heal()
        self.stage.redis_proxy.heal()
        await self.stage.restart_ended()

    def _begin(self, fault: Fault) -> None:
        task = asyncio.create_task(self._hit(fault), name=fault.kind)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _hit(self, fault: Fault) -> None:
        """One fault; counted when it met something."""
        what, _, whom = fault.kind.partition(" ")
        try:
            hit = await self._do(fault, what, whom)
        except (*AWAY, *REDIS_AWAY):
            hit = False
        (self.done if hit else self.passed_over)[fault.kind] += 1

    async def _do(self, fault: Fault, what: str, whom: str) -> bool:
        if whom in ("api", "worker", "scheduler"):
            return await self._actor(fault, what, whom)
        if whom == "valkey":
            return await self._server(fault, what, self.stage.valkey, self._valkey)
        if whom == "postmaster":
            return await self._server(fault, what, self.stage.postgres, self._postgres)
        if whom == "backend":
            return await self._backend(fault, what)
        if what == "flush":
            return await self._flush()
        return await self._network(fault, what, whom)

    # --- processes -----------------------------------------------------------------------------------

    async def _actor(self, fault: Fault, what: str, role: str) -> bool:
        able = [actor for actor in self.stage.actors if actor.role == role and not actor.down and not actor.frozen]
        if not able:
            return False
        actor = able[fault.pick % len(able)]
        held = asyncio.create_task(self._orphans(actor, what))
        if what == "freeze":
            await self.stage.freeze(actor, fault.seconds)
        else:
            number, grace = (signal.SIGKILL, 0.0) if what == "kill" else (signal.SIGTERM, 8.0)
            await self.stage.kill(actor, number, grace)
            await asyncio.sleep(fault.seconds)
            await self.stage.start(actor)
        await held
        return True

    async def _orphans(self, actor: Actor, how: str) -> None:
        """Remember what the actor held; a run it gives back or ends at this very moment finds no later claim."""
        at = time.time()
        try:
            connection = await self.stage.connect()
        except AWAY:
            return
        try:
            rows = await connection.fetch(HELD, f"%:{actor.pid}:%")
            self.orphans += [Orphan(row["id"], row["fence"], at, how) for row in rows]
        finally:
            await connection.close()

    # --- servers -------------------------------------------------------------------------------------

    async def _server(self, fault: Fault, what: str, server: Process, busy: asyncio.Lock) -> bool:
        if busy.locked():
            return False
        async with busy:
            await self._hit_server(fault, what, server)
        return True

    async def _hit_server(self, fault: Fault, what: str, server: Process) -> None:
        record = server.record()
        if what == "freeze":
            record.send(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            record.send(signal.SIGCONT)
            return
        record.send(signal.SIGKILL)
        while not server.dead():
            await asyncio.sleep(0.01)
        await asyncio.sleep(fault.seconds)
        await self.stage.revive(server)
        if server is self.stage.postgres:
            await self.stage.postgres_answers()

    async def _backend(self, fault: Fault, what: str) -> bool:
        pids = await self.stage.backends()
        if not pids:
            return False
        pid = pids[fault.pick % len(pids)]
        if what == "terminate":
            return await self._terminate(pid)
        backend = self.stage.backend(pid)
        if backend is None or what == "kill":
            return backend is not None and backend.send(signal.SIGKILL)
        frozen = backend.send(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        backend.send(signal.SIGCONT)  # Also when its postmaster is gone: a frozen orphan would keep the next one out.
        return frozen

    async def _terminate(self, pid: int) -> bool:
        connection = await self.stage.connect()
        try:
            return bool(await connection.fetchval("select pg_terminate_backend($1)", pid))
        finally:
            await connection.close()

    async def _flush(self) -> bool:
        assert self.stage.servers.valkey
        async with Redis.from_url(self.stage.servers.valkey.url, socket_timeout=2) as redis:
            return bool(await redis.flushall())

    # --- the network -----------------------------------------------------------------------------------

    async def _network(self, fault: Fault, whom: str, what: str) -> bool:
        proxy = self.stage.postgres_proxy if whom == "postgres" else self.stage.redis_proxy
        if what == "reset":
            proxy.reset()
        elif what == "cut":
            proxy.cut(fault.amount, every=1 + fault.pick % 4)
        elif what == "half-close":
            proxy.half_close()
        elif what == "vanish":
            await proxy.vanish(fault.seconds, every=1 + fault.pick % 4)
        elif what == "stall":
            proxy.stall()
            await asyncio.sleep(fault.seconds)
            proxy.heal()
        elif what == "delay":
            proxy.delay_seconds = 0.01 + (fault.amount % 40) / 1000
            await asyncio.sleep(fault.seconds)
            proxy.heal()
        return True


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await stop.wait()
    except TimeoutError:
        pass
