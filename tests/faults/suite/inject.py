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
from tests.faults.suite.failpoint import ARMED, EMPTY, REACHED_BY, Order, both
from tests.faults.suite.plan import KILLS_AND_FREEZES, Fault
from tests.faults.suite.stage import AWAY, Actor, Frozen, Stage, seeded

SUPERVISE_SECONDS = 0.5
FAILPOINT_SECONDS = 8.0  # For so long a failpoint stays armed that nobody gets to.
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
    failpoints: Counter[str] = field(default_factory=Counter)
    orphans: list[Orphan] = field(default_factory=list)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _postgres: asyncio.Lock = field(default_factory=asyncio.Lock)
    _valkey: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def kills_and_freezes(self) -> int:
        """Processes and servers killed or stopped, at failpoints or wherever they were."""
        return sum(n for kind, n in (self.done + self.failpoints).items() if kind.startswith(KILLS_AND_FREEZES))

    async def play(self, faults: list[Fault], stop: asyncio.Event) -> None:
        """Each fault at its time; those that last go on beside the next ones. Then everything is well again."""
        began, supervising = time.monotonic(), asyncio.create_task(self._supervise())
        for fault in faults:
            await _wait(stop, began + fault.at - time.monotonic())
            if stop.is_set():
                break
            self._begin(fault)
        while self._under_way:
            await asyncio.wait(self._under_way)
        supervising.cancel()
        for proxies in self.stage.proxies.values():
            for proxy in proxies:
                proxy.heal()
        await self.stage.restart_ended()

    async def _supervise(self) -> None:
        """Start again what could not begin because PostgreSQL was away."""
        while True:
            await asyncio.sleep(SUPERVISE_SECONDS)
            for actor in self.stage.actors:
                if actor.slot.state == EMPTY:
                    await self.stage.restart_if_ended(actor)

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
        if not hit:
            self.passed_over[fault.kind] += 1
        elif not what.startswith("failpoint"):  # Those are counted by name.
            self.done[fault.kind] += 1

    async def _do(self, fault: Fault, what: str, whom: str) -> bool:
        if what.startswith("failpoint-"):
            return await self._failpoint(fault, what.removeprefix("failpoint-"), whom)
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
        actor = self._able(fault, role)
        if actor is None:
            return False
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

    def _able(self, fault: Fault, role: str) -> Actor | None:
        able = [actor for actor in self.stage.actors if actor.role == role and not actor.down and not actor.frozen]
        return able[fault.pick % len(able)] if able else None

    async def _failpoint(self, fault: Fault, action: str, role: str) -> bool:
        actor = self._able(fault, role)
        if actor is None or actor.slot.state == ARMED:
            return False
        # Some of them, whichever comes first: one alone may be far away.
        names = seeded(fault.amount, fault.pick, role).sample(both(REACHED_BY[role]), 4)
        order = Order(names, action, fault.pick % 3, fault.seconds)
        return await self.at_failpoint(actor, order, FAILPOINT_SECONDS) is not None

    async def at_failpoint(self, actor: Actor, order: Order, patience: float) -> str | None:
        """Let an actor meet its fate at a failpoint, and say at which; None when it did not get to one in time."""
        name = await self.stage.reach(actor, order, patience)
        if name is None:
            return None
        if order.action == "kill" and not actor.down:
            await self._bury(actor, order)
        elif order.action == "freeze":
            await self._thaw(actor, order)
        if order.action != "kill":
            actor.slot.clear()
        self.failpoints[f"{order.action} {name}"] += 1
        return name

    async def _bury(self, actor: Actor, order: Order) -> None:
        """It has killed itself: remember what it held, and start it again."""
        actor.down = True
        held = asyncio.create_task(self._orphans(actor, "kill"))
        while not await self.stage.nursery.ended(actor.pid):
            await asyncio.sleep(0.01)
        await asyncio.sleep(order.seconds)
        await self.stage.start(actor)
        await held

    async def _thaw(self, actor: Actor, order: Order) -> None:
        """It has stopped itself: let it go on after a while."""
        pid, since, actor.frozen = actor.pid, time.time() - 0.1, True
        held = asyncio.create_task(self._orphans(actor, "freeze"))
        await asyncio.sleep(order.seconds)
        await self.stage.nursery.signal(pid, signal.SIGCONT)
        self.stage.freezes.append(Frozen(pid, since, time.time()))
        actor.frozen = False
        await held

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
        proxies = self.stage.proxies[whom]
        proxy = proxies[fault.pick % len(proxies)]
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
