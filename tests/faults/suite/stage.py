"""Everything that runs: PostgreSQL, Valkey, a proxy before each, the API twice, two workers, two schedulers."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.embedded import Servers
from app.embedded.ports import free_port
from app.embedded.processes import Process
from app.settings import Settings
from tests import databases
from tests.faults.suite.failpoint import Order, Slot
from tests.faults.suite.journal import Journal
from tests.faults.suite.nursery import Nursery
from tests.faults.suite.outside import Outside
from tests.faults.suite.proxy import Proxy
from tests.notifications.servers import MailServer

LEASE, SWEEP = 3.0, 0.5
ROLES = ("api", "api", "worker", "worker", "scheduler", "scheduler")
PARENT, BORN = 1, 19  # Among the fields of /proc/<pid>/stat after the name.
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Mail(MailServer):
    """An SMTP server that takes its time, so that senders die between sending and saying so, and refuses now and then."""

    _asked = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self._asked += 1
        if self._asked % 19 == 0:
            self.replies.append("451 try again later")
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.sleep(0.05)
        return answer


@dataclass
class Actor:
    """One place of the cast: the process that plays a role now."""

    role: str
    name: str
    settings: dict[str, Any]
    slot: Slot
    pid: int = 0
    frozen: bool = False
    down: bool = True


@dataclass(frozen=True)
class Frozen:
    """A stretch in which a process stood still."""

    pid: int
    since: float
    until: float


@dataclass
class Stage:
    """The running system, seen and handled from outside."""

    home: Path
    servers: Servers
    database_url: str
    nursery: Nursery
    postgres_proxy: Proxy
    redis_proxy: Proxy
    mail_proxy: Proxy
    outside_proxy: Proxy
    api_proxies: list[Proxy]
    mail: Mail
    outside: Outside
    actors: list[Actor] = field(default_factory=list)
    freezes: list[Frozen] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.home / "journal.jsonl"

    @property
    def log(self) -> Path:
        return self.home / "processes.log"

    @property
    def ports(self) -> list[int]:
        """Where clients reach the API: at its proxies."""
        return [proxy.port for proxy in self.api_proxies]

    @property
    def proxies(self) -> dict[str, list[Proxy]]:
        """All of them, by what stands behind."""
        stores = {"postgres": [self.postgres_proxy], "redis": [self.redis_proxy]}
        return {**stores, "smtp": [self.mail_proxy], "outside": [self.outside_proxy], "http": self.api_proxies}

    def settings(self) -> dict[str, Any]:
        """The settings of the processes, which see the stores through the proxies."""
        assert self.servers.valkey
        return {
            "database_url": _through(self.database_url, self.postgres_proxy),
            "redis_url": _through(self.servers.valkey.url, self.redis_proxy),
            "parley_home": str(self.home),
            "parley_secret": "a secret of the fault suite",
            "parley_encryption_keys": "k1:" + "A" * 43 + "=",
            "parley_lease_seconds": LEASE,
            "parley_sweep_seconds": SWEEP,
            "parley_concurrency": 8,
            "parley_pool_size": 5,
            "smtp_host": "127.0.0.1",
            "smtp_port": self.mail_proxy.port,
            "smtp_security": "none",
            "slack_webhook_url": f"http://127.0.0.1:{self.outside_proxy.port}/services/T0/B0/secretWXYZ",
            "openai_base_url": f"http://127.0.0.1:{self.outside_proxy.port}/v1",
            "parley_egress_allow": f"127.0.0.1:{self.outside_proxy.port}",
            "log_level": "WARNING",
            "log_format": "json",
        }

    # --- actors --------------------------------------------------------------------------------------

    async def raise_curtain(self) -> None:
        """Start every process and wait until they answer."""
        for number, role in enumerate(ROLES):
            name = f"{role}-{number % 2 + 1}"
            slot = self.home / f"{name}.slot"
            given = {**self.settings(), "journal": str(self.journal), "slot": str(slot)}
            if role == "api":
                given["parley_port"] = self.api_proxies[number % 2].to_port
            self.actors.append(Actor(role, name, given, Slot(slot)))
        for actor in self.actors:
            await self.start(actor)
        ports = [proxy.to_port for proxy in self.api_proxies]
        await asyncio.gather(*(_until(lambda port=port: _listens(port), 60) for port in ports))

    async def start(self, actor: Actor) -> None:
        actor.slot.clear()
        actor.pid = await self.nursery.start(actor.role, actor.settings)
        actor.down = actor.frozen = False

    async def kill(self, actor: Actor, number: int = signal.SIGKILL, grace: float = 0.0) -> None:
        """End a process and wait for its end; one that does not come to it is killed."""
        actor.down = True
        await self.nursery.signal(actor.pid, number)
        until = time.monotonic() + grace
        while not await self.nursery.ended(actor.pid):
            if time.monotonic() > until:
                await self.nursery.signal(actor.pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

    async def freeze(self, actor: Actor, seconds: float) -> None:
        """Stop a process and let it go on later."""
        actor.frozen = True
        pid, since = actor.pid, time.time()
        await self.nursery.signal(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        await self.nursery.signal(pid, signal.SIGCONT)
        self.freezes.append(Frozen(pid, since, time.time()))
        actor.frozen = False

    async def reach(self, actor: Actor, order: Order, patience: float) -> str | None:
        """Arm failpoints and wait until the actor has got to one; None when it never did."""
        pid, until = actor.pid, time.monotonic() + patience
        actor.slot.arm(order)
        while not actor.slot.fired and time.monotonic() < until and actor.pid == pid and not actor.down:
            await asyncio.sleep(0.02)
        if actor.pid != pid:
            return None
        if not actor.slot.fired:
            actor.slot.disarm()
            await asyncio.sleep(0.02)  # It may have been about to.
        return actor.slot.fired if actor.pid == pid else None

    async def restart_ended(self) -> None:
        """Start again what ended by itself."""
        for actor in self.actors:
            await self.restart_if_ended(actor)

    async def restart_if_ended(self, actor: Actor) -> None:
        pid = actor.pid
        if actor.down or not await self.nursery.ended(pid):
            return
        if actor.pid == pid and not actor.down:  # Nobody else does so just now.
            actor.down = True
            await self.start(actor)

    # --- servers --------------------------------------------------------------------------------------

    @property
    def postgres(self) -> Process:
        assert self.servers.postgres
        return self.servers.postgres.process

    @property
    def valkey(self) -> Process:
        assert self.servers.valkey
        return self.servers.valkey.process

    async def connect(self) -> asyncpg.Connection:
        """A connection of the suite's own, past the proxy."""
        return await asyncpg.connect(self.database_url, timeout=5, server_settings={"application_name": "suite"})

    async def revive(self, process: Process) -> None:
        """Start a killed server until it stays; what it has orphaned may still be in its way."""
        for _ in range(100):
            if not process.dead() and process.pid:
                return
            process.start()
            await asyncio.sleep(0.3)
        raise RuntimeError(f"{process.name} did not come back:\n{process.tail()}")

    async def postgres_answers(self) -> None:
        async def answers() -> bool:
            try:
                connection = await self.connect()
            except AWAY:
                return False
            await connection.close()
            return True

        await _until(answers, 60)

    async def backends(self) -> list[int]:
        """The server processes that serve ours, in a stable order."""
        connection = await self.connect()
        try:
            rows = await connection.fetch(
                "select pid from pg_stat_activity where application_name like 'parley%' "
                "and backend_type = 'client backend' order by application_name, backend_start, pid"
            )
            return [row["pid"] for row in rows]
        finally:
            await connection.close()

    def backend(self, pid: int) -> "Backend | None":
        """A child of our postmaster, and nobody else."""
        words = _stat(pid)
        return Backend(pid, words[BORN]) if words and int(words[PARENT]) == self.postgres.pid else None


@dataclass(frozen=True)
class Backend:
    """A server process of PostgreSQL, told from a later one with the same pid by when it was born."""

    pid: int
    born: str

    def send(self, number: int) -> bool:
        words = _stat(self.pid)
        if not words or words[BORN] != self.born:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


@asynccontextmanager
async def staged(options: dict[str, str], *, keep: bool = False) -> AsyncIterator[Stage]:
    """The whole system, from nothing, and gone again at the end."""
    home = Path(tempfile.mkdtemp(prefix="parley-suite-"))
    home.chmod(0o711)  # the servers' account passes through when we are root
    nursery = Nursery(home / "processes.log")
    try:
        with Servers(home, options=options) as servers:
            assert servers.postgres
            assert servers.valkey
            url = await databases.clone(servers.postgres.dsn, "suite_test")
            nursery.open()
            async with (
                _proxy(url) as before_postgres,
                _proxy(servers.valkey.url) as before_redis,
                Mail() as mail,
                Proxy("127.0.0.1", mail.port) as before_mail,
                Outside(Journal(home / "journal.jsonl")) as outside,
                Proxy("127.0.0.1", outside.port) as before_outside,
                Proxy("127.0.0.1", free_port()) as one,
                Proxy("127.0.0.1", free_port()) as other,
            ):
                outside.public_port = before_outside.port
                proxies = (before_postgres, before_redis, before_mail, before_outside)
                stage = Stage(home, servers, url, nursery, *proxies, [one, other], mail, outside)
                await stage.raise_curtain()
                yield stage
                nursery.close()
    finally:
        nursery.close()
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


def own_settings(stage: Stage) -> Settings:
    """Settings with which the suite itself looks at the database."""
    return Settings.of(**{**stage.settings(), "database_url": stage.database_url})


def seeded(seed: int, *names: object) -> random.Random:
    """Random numbers of one purpose: what another purpose draws does not move them."""
    return random.Random(f"{seed} {' '.join(map(str, names))}")


def _proxy(url: str) -> Proxy:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return Proxy(parts.hostname, parts.port)


def _through(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    who = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{who}@127.0.0.1:{proxy.port}"))


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _until(met: Callable[[], Any], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await met():
            await asyncio.sleep(0.1)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
