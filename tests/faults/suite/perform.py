"""One performance: stage, load and faults together, then the drain and the check."""

import asyncio
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import asyncpg

from app.db import Database
from app.failpoints import FAILPOINTS
from tests.engine import World as Fixture
from tests.faults.suite import check, journal
from tests.faults.suite.inject import Injector
from tests.faults.suite.load import Inbox, Memory, Person, prepare
from tests.faults.suite.plan import Fault
from tests.faults.suite.report import Report
from tests.faults.suite.rounds import Rounds
from tests.faults.suite.stage import AWAY, Stage, own_settings

DRAIN_SECONDS = 120.0
Play = Callable[[asyncio.Event], Awaitable[None]]
OPEN = """
select (select count(*) from runs where state in ('queued', 'running', 'waiting'))
    + (select count(*) from deliveries where state in ('pending', 'sending'))
"""
STOP_SCHEDULES = "update tasks set enabled = false where task_type = 'scheduled'"
FASTER = "update tasks set interval_seconds = 2 where task_type = 'scheduled' and interval_seconds is not null"


@dataclass
class Performance:
    """A seeded load under a seeded schedule of faults."""

    stage: Stage
    seed: int
    minutes: float
    people: int = 8
    memory: Memory = field(default_factory=Memory)
    broken: list[str] = field(default_factory=list)

    async def run(self, faults: list[Fault]) -> Report:
        """Perform for the minutes, drain, check."""
        injector = Injector(self.stage)
        drained = await self._play(partial(injector.play, faults), least_seconds=self.minutes * 60)
        return await self._report(injector, drained)

    async def every_failpoint(self, runs: int) -> Report:
        """Until a process has died at each of them and there are so many runs, at most for the minutes; drain, check."""
        injector = Injector(self.stage)

        async def play(over: asyncio.Event) -> None:
            await Rounds(injector, self.memory, self.seed).play(over)
            while len(self.memory.promises) < runs and not over.is_set():
                await asyncio.sleep(0.1)

        drained = await self._play(play, least_seconds=0)
        return await self._report(injector, drained, to_die_at=FAILPOINTS)

    async def _play(self, play: Play, *, least_seconds: float) -> float:
        """Load and faults together, then the drain; how long that took."""
        hooks = await self._prepare()
        over, calm = asyncio.Event(), asyncio.Event()
        people = [Person(number, self.stage, self.memory, self.seed, hooks) for number in range(self.people)]
        playing = asyncio.ensure_future(play(over))
        inbox = asyncio.create_task(Inbox(self.stage, self.memory, self.seed).live(calm))
        clients = [asyncio.create_task(person.live(over)) for person in people]
        await _until_over(playing, least_seconds, self.minutes * 60)
        over.set()
        await playing
        self._note_failures(await asyncio.gather(*clients, return_exceptions=True))
        drained = await self._drain()
        calm.set()
        self._note_failures(await asyncio.gather(inbox, return_exceptions=True))
        return drained

    def _note_failures(self, results: list[BaseException | None]) -> None:
        self.broken += [f"{type(each).__name__}: {each}" for each in results if isinstance(each, BaseException)]

    async def _prepare(self) -> list[str]:
        database = await Database.open(own_settings(self.stage), name="suite")
        fixture = Fixture(database, own_settings(self.stage))
        tools = ["note", "pay", "tell", "notify", "execute_code"]
        hasty = {"policy": "ask", "expires_seconds": 1, "on_expiry": "tell"}
        await fixture.agent("suite", model="scripted:suite", tools=tools)
        await fixture.agent("held", model="scripted:suite", tools=tools)
        await fixture.agent("flaky", model="scripted:flaky", tools=tools)
        await fixture.agent("remote", model="openai:suite", tools=["fetch_url"])
        await fixture.agent("careful", model="scripted:suite", tools=tools, approval={"pay": "ask"})
        await fixture.agent("hasty", model="scripted:suite", tools=tools, approval={"pay": hasty})
        await fixture.agent("unheard", model="scripted:suite", tools=tools, approval={"pay": "ask"})
        hooks = await prepare(self.stage, self.memory, self.seed)
        await database.execute(FASTER)
        await database.close()
        return hooks

    async def _drain(self) -> float:
        """Wait until nothing moves any more; how long that took."""
        began = time.monotonic()
        while time.monotonic() < began + DRAIN_SECONDS:
            await self.stage.restart_ended()
            try:
                connection = await self.stage.connect()
            except AWAY:
                await asyncio.sleep(0.3)
                continue
            try:
                await connection.execute(STOP_SCHEDULES)
                if await connection.fetchval(OPEN) == 0:
                    break
            finally:
                await connection.close()
            await asyncio.sleep(0.3)
        return time.monotonic() - began

    async def _report(self, injector: Injector, drained: float, to_die_at: Sequence[str] = ()) -> Report:
        connection = await self.stage.connect()
        try:
            world = await check.World.read(connection)
            environment = await _environment(connection)
        finally:
            await connection.close()
        mails = Counter(mail["Message-ID"] for mail in self.stage.mail.mails)
        notes = list(journal.read(self.stage.journal))
        logged = logged_errors(self.stage.log)
        violations = check.check(world, check.Evidence(self.memory, notes, mails, self.stage.freezes))
        violations += [check.Violation("wrong", "a client broke", what) for what in self.broken]
        violations += _defects(logged, self.memory)
        died_at = {note["name"] for note in notes if note.what == "failpoint" and note["action"] == "kill"}
        violations += [check.Violation("wrong", "nobody died at", name) for name in to_die_at if name not in died_at]
        kinds = Counter(violation.kind for violation in violations)
        return Report(
            seed=self.seed,
            again=f"python3 dev.py faults {'--short' if to_die_at else f'--minutes {self.minutes:g}'} --seed {self.seed}",
            minutes=self.minutes,
            environment=environment,
            faults=dict(sorted(injector.done.items())),
            passed_over=dict(sorted(injector.passed_over.items())),
            kills_and_freezes=injector.kills_and_freezes,
            runs=dict(Counter(run["state"] for run in world.runs.values())),
            acknowledged=dict(Counter(promise.kind for promise in self.memory.promises)),
            answers={str(status): count for status, count in sorted(self.memory.answers.items())},
            lost=kinds["lost"],
            doubled=kinds["doubled"],
            wrong=kinds["wrong"],
            violations=[asdict(violation) for violation in violations],
            recovery_seconds={
                "killed": _figures(check.recoveries(world, injector.orphans, "kill")),
                "frozen": _figures(check.recoveries(world, injector.orphans, "freeze")),
                "told to stop": _figures(check.recoveries(world, injector.orphans, "stop")),
            },
            failpoints=dict(sorted(injector.failpoints.items())),
            drain_seconds=round(drained, 2),
            streams={
                "read to the end": len(self.memory.readings),
                "over several connections": sum(reading.connections > 1 for reading in self.memory.readings),
            },
            logged_errors=dict(logged.most_common()),
        )


def logged_errors(path: Path) -> Counter[str]:
    """What the processes logged as errors, and tracebacks beside the log."""
    found: Counter[str] = Counter()
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found["traceback"] += line.startswith("Traceback")
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "critical"):
            found[str(entry.get("event")).partition("\n")[0][:80]] += 1
    return +found


def _defects(logged: Counter[str], memory: Memory) -> list[check.Violation]:
    """Things that mend themselves but must not happen."""
    found = [("conversation.stranded", logged["conversation.stranded"]), ("HTTP 500", memory.answers[500])]
    return [check.Violation("wrong", what, f"{times} times") for what, times in found if times]


def _figures(seconds: list[float]) -> dict[str, float | int | None]:
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {"count": len(seconds)} | {name: check.percentile(seconds, share) for name, share in shares.items()}


async def _environment(connection: asyncpg.Connection) -> dict[str, object]:
    return {
        "PostgreSQL": await connection.fetchval("show server_version"),
        "fsync": await connection.fetchval("show fsync"),
        "Python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


async def _until_over(playing: "asyncio.Future[None]", least: float, most: float) -> None:
    """The time is over; faults that can't be played any more end it at once."""
    until = time.monotonic() + least
    await asyncio.wait({playing}, timeout=most)
    if playing.done():
        playing.result()
        await asyncio.sleep(max(0.0, until - time.monotonic()))
