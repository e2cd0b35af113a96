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
from tests.faults.suite.nursery import Nursery
from tests.faults.suite.proxy import Proxy
from tests.notifications.servers import MailServer

LEASE, SWEEP = 3.0, 0.5
ROLES = ("api", "api", "worker", "worker", "scheduler", "scheduler")
PARENT, BORN = 1, 19  # Among the fields of /proc/<pid>/stat after the name.
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Mail(MailServer):
    """An SMTP server that takes its time, so that senders die between sending and saying so."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.sleep(0.05)
        return answer


@dataclass
class Actor:
    """One place of the cast: the process that plays a role now."""

    role: str
    name: str
    settings: dict[str, Any]
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
    mail: Mail
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
        return [actor.settings["parley_port"] for actor in self.actors if actor.role == "api"]

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
            "smtp_port": self.mail.port,
            "smtp_security": "none",
            "log_level": "WARNING",
            "log_format": "json",
        }

    # --- actors --------------------------------------------------------------------------------------

    async def raise_curtain(self) -> None:
        """Start every process and wait until they answer."""
        for number, role in enumerate(ROLES):
            given = {**self.settings(), "journal": str(self.journal)}
            if role == "api":
                given["parley_port"] = free_port()
            self.actors.append(Actor(role, f"{role}-{number % 2 + 1}", given))
        for actor in self.actors:
            await self.start(actor)
        await asyncio.gather(*(_until(lambda port=port: _listens(port), 60) for port in self.ports))

    async def start(self, actor: Actor) -> None:
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

    async def restart_ended(self) -> None:
        """Start again what ended by itself."""
        for actor in self.actors:
            if not actor.down and await self.nursery.ended(actor.pid):
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
            ):
                stage = Stage(home, servers, url, nursery, before_postgres, before_redis, mail)
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
