"""Servers and workers of these tests' own: they are killed, frozen, emptied and restarted."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from app.embedded import Servers
from app.runs import TERMINAL_STATES
from app.settings import Settings
from tests import databases
from tests.engine import World, world

__all__ = ["world"]

ROOT = Path(__file__).parents[2]
LEASE, SWEEP = 3.0, 0.5
OPTIONS = {"fsync": "off", "full_page_writes": "off"}


@dataclass
class Place:
    """Where everything is."""

    servers: Servers
    database_url: str
    redis_url: str
    home: Path

    def settings(self) -> dict[str, Any]:
        return {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "parley_home": str(self.home),
            "parley_encryption_keys": "k1:" + "A" * 43 + "=",
            "parley_lease_seconds": LEASE,
            "parley_sweep_seconds": SWEEP,
            "parley_concurrency": 8,
            "parley_pool_size": 5,
        }


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    home = Path(tempfile.mkdtemp(prefix="parley-faults-"))
    home.chmod(0o711)  # the servers' account passes through when we are root
    try:
        with Servers(home, options=OPTIONS) as servers:
            assert servers.postgres
            assert servers.valkey
            url = asyncio.run(databases.clone(servers.postgres.dsn, "faults_test"))
            yield Place(servers, url, servers.valkey.url, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


class Fleet:
    """Worker processes, and the journal they share."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place = place
        self.folder = folder
        self.journal = folder / "journal"
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self._seen: set[int] = set()

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            given = {**self._place.settings(), "journal": str(self.journal)}
            with (self.folder / "workers.log").open("ab") as log:
                made = subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.program", json.dumps(given)],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self.workers[made.pid] = made

    async def complete(self, world: World) -> None:
        """All workers are there and at work."""
        for pid in [pid for pid, process in self.workers.items() if process.poll() is not None]:
            del self.workers[pid]
        self.start(2 - len(self.workers))
        async with asyncio.timeout(30):
            while True:
                rows = await world.database.fetch(
                    "select pid from workers where seen_at > now() - interval '7 seconds'"
                )
                if {row["pid"] for row in rows} >= set(self.workers):
                    return
                await asyncio.sleep(0.05)

    def send(self, pid: int, what: signal.Signals) -> None:
        self.workers[pid].send_signal(what)

    async def gone(self, pid: int, seconds: float = 10) -> int:
        return await asyncio.wait_for(asyncio.to_thread(self.workers[pid].wait), seconds)

    def stop(self) -> None:
        for process in self.workers.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def notes(self) -> Counter[str]:
        return Counter(self.journal.read_text().splitlines()) if self.journal.exists() else Counter()


@pytest.fixture(scope="session")
def _fleet(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(place, tmp_path_factory.mktemp("fleet"))
    yield made
    made.stop()


@pytest.fixture
async def settings(place: Place) -> Settings:
    await databases.empty(place.database_url)
    async with Redis.from_url(place.redis_url) as redis:
        await redis.flushall()
    return Settings.of(**place.settings())


@pytest.fixture
async def fleet(_fleet: Fleet, world: World) -> Fleet:
    """Two workers, and an agent that works in steps."""
    with _fleet.journal.open("w"):  # Emptied, not replaced: workers keep it open.
        pass
    await world.agent("steps", model="scripted:steps", tools=["slow"])
    for pid in [pid for pid, process in _fleet.workers.items() if process.poll() is None]:
        _fleet.send(pid, signal.SIGCONT)
    await _fleet.complete(world)
    return _fleet


async def submit(world: World, name: str, *, tools: int = 3, seconds: float = 0.3) -> UUID:
    """A queued run."""
    conversation = await world.conversation(agent="steps")
    return (await world.say(conversation, f"name={name} tools={tools} seconds={seconds}")).run_id


async def all_ended(world: World, runs: list[UUID], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while await world.database.fetchval(
            "select count(*) from runs where id = any($1::uuid[]) and state <> all($2::text[])",
            runs,
            [str(state) for state in TERMINAL_STATES],
        ):
            await asyncio.sleep(0.05)


def owner_pid(owner: str) -> int:
    return int(owner.split(":")[2])


async def held_by(world: World, run: UUID) -> int:
    row = await world.until(run, lambda row: row["state"] == "running")
    return owner_pid(row["owner"])


async def whole(world: World, fleet: Fleet, runs: list[UUID], *, tools: int = 3) -> None:
    """Every run completed; nothing that was recorded happened twice; the numbers have no gap."""
    await world.check()
    notes = fleet.notes()
    for run in runs:
        row = await world.run(run)
        assert row["state"] == "completed", row["error"]
        name = row["result"].split()[0]
        assert await world.said(row["conversation_id"]) == [
            ("user", (await world.said(row["conversation_id"]))[0][1]),
            *[("assistant", ""), ("tool", "")] * tools,
            ("assistant", f"{name} is done"),
        ]
        crashes = row["fence"] - 1
        for n in range(tools):
            assert 1 <= notes[f"end {name} {n}"] <= 1 + crashes
            assert 1 <= notes[f"answer {name} {n}"] <= 1 + crashes
        calls = await world.calls(row["conversation_id"])
        assert [call["state"] for call in calls] == ["done"] * tools


async def wait_for_note(fleet: Fleet, note: str, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not fleet.notes()[note]:
            await asyncio.sleep(0.02)
