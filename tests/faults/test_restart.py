"""An approval outlives everything: all processes and both servers stop, Redis loses all, and one of two decisions counts."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis

from app import agents, identity
from app.db import Database
from app.embedded import Servers
from app.embedded.ports import free_port
from app.settings import Settings
from tests import databases
from tests.engine import World
from tests.faults.conftest import OPTIONS
from tests.faults.suite.journal import read
from tests.faults.suite.nursery import Nursery

ROLES = ("api", "api", "worker", "scheduler")
NAME = "restart_test"


@dataclass
class System:
    """Everything that runs, for one life of it."""

    apis: list[str]
    world: World


@pytest.fixture
def home() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="parley-restart-"))
    made.chmod(0o711)  # the servers' account passes through when we are root
    yield made
    shutil.rmtree(made, ignore_errors=True)


@asynccontextmanager
async def life(home: Path) -> AsyncIterator[System]:
    """Start both servers and every process on what the home holds; stop them all in order."""
    nursery = Nursery(home / "processes.log")
    with Servers(home, options=OPTIONS) as servers:
        assert servers.postgres
        assert servers.valkey
        url = databases.dsn_of(servers.postgres.dsn, NAME)
        if not (home / "journal.jsonl").exists():
            await databases.clone(servers.postgres.dsn, NAME)
        async with Redis.from_url(servers.valkey.url) as redis:
            await redis.flushall()
        given: dict[str, Any] = {
            "database_url": url,
            "redis_url": servers.valkey.url,
            "parley_home": str(home),
            "parley_secret": "a secret of this test",
            "parley_encryption_keys": "k1:" + "A" * 43 + "=",
            "parley_lease_seconds": 3.0,
            "parley_sweep_seconds": 0.5,
            "parley_pool_size": 5,
            "default_model": "demo",
            "log_level": "WARNING",
        }
        nursery.open()
        database = await Database.open(Settings.of(**given), name="test")
        try:
            await identity.seed(database)
            await agents.seed(database)
            ports = [free_port() for role in ROLES if role == "api"]
            pids = [
                await nursery.start(role, {**given, **own(home, number), "parley_port": port})
                for number, (role, port) in enumerate(zip_longest(ROLES, ports, fillvalue=0))
            ]
            apis = [f"http://127.0.0.1:{port}" for port in ports]
            await asyncio.gather(*(ready(url) for url in apis))
            yield System(apis, World(database, Settings.of(**given)))
            for pid in pids:
                await nursery.signal(pid, signal.SIGTERM)
            async with asyncio.timeout(30):
                while not all([await nursery.ended(pid) for pid in pids]):
                    await asyncio.sleep(0.05)
        finally:
            await database.close()
            nursery.close()


def own(home: Path, number: int) -> dict[str, str]:
    """What the program of the fault suite wants beside its settings."""
    return {"journal": str(home / "journal.jsonl"), "slot": str(home / f"{number}.slot")}


async def ready(url: str) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        while True:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def decide(url: str, approval: str) -> int:
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.post(f"{url}/approvals/{approval}/decision", json={"decision": "approve"})).status_code


async def test_an_approval_waits_through_a_full_stop_and_resumes_once(home: Path) -> None:
    async with life(home) as first:
        await first.world.agent("payer", model="scripted:suite", tools=["pay"], approval={"pay": "ask"})
        async with httpx.AsyncClient(base_url=first.apis[0], timeout=30) as client:
            body = {"agent": "payer", "message": "name=once tools=pay words=3 pause=0", "background": True}
            run = UUID((await client.post("/runs", json=body)).json()["run_id"])
            await first.world.until(run, lambda row: row["state"] == "waiting")
            (question,) = (await client.get("/approvals", params={"run_id": str(run)})).json()["items"]

    async with life(home) as second:
        assert (await second.world.run(run))["state"] == "waiting"
        answers = await asyncio.gather(*(decide(url, question["id"]) for url in second.apis))
        row = await second.world.ended(run)
        assert sorted(answers) == [200, 409]
        assert (row["state"], row["crash_count"]) == ("completed", 0)
        types = await second.world.types(row["conversation_id"])
        assert [types.count(each) for each in ("approval.decided", "run.completed", "tool.completed")] == [1, 1, 1]
        await second.world.check()
    effects = [note for note in read(home / "journal.jsonl") if note.what == "effect"]
    assert len(effects) == 1, effects
