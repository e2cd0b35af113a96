"""The short form of the fault suite: a death at every commit edge, and a glimpse of the long form."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.failpoints import EDGES, FAILPOINTS
from tests.faults.suite.__main__ import SHORT_RUNS, parser, perform
from tests.faults.suite.failpoint import HOME, REACHED_BY, Order, Slot
from tests.faults.suite.journal import read
from tests.faults.suite.perform import Performance
from tests.faults.suite.plan import KILLS_AND_FREEZES, WEIGHTS, Fault, schedule
from tests.faults.suite.report import Report
from tests.faults.suite.rounds import LEADS_THERE
from tests.faults.suite.stage import staged

FAULTS = [
    Fault(2.0, "kill worker", 0, 0.1, 0),
    Fault(2.5, "kill api", 1, 0.1, 0),
    Fault(3.0, "terminate backend", 3, 0.0, 0),
    Fault(3.5, "flush", 0, 0.0, 0),
    Fault(4.0, "freeze worker", 1, 4.0, 0),
    Fault(4.5, "kill scheduler", 0, 0.1, 0),
    Fault(5.0, "postgres cut", 1, 0.0, 300),
    Fault(5.2, "http cut", 0, 0.0, 200),
    Fault(5.4, "smtp reset", 0, 0.0, 0),
    Fault(5.6, "outside cut", 0, 0.0, 100),
]
SECONDS = 6.0
ROOT = Path(__file__).parents[2]


def test_the_schedule_is_the_seeds_alone() -> None:
    faults = schedule(7, 4, 0.5)
    assert faults == schedule(7, 4, 0.5)
    assert faults != schedule(8, 4, 0.5)
    assert {fault.kind for fault in schedule(7, 60, 0.5)} == set(WEIGHTS)
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert all(0 < fault.at < 240 for fault in faults)


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_when_a_process_dies_at_every_failpoint() -> None:
    """The seed is new each time; the report says how to see a failure again."""
    seed = int(time.time())
    report = asyncio.run(perform(parser().parse_args(["--short", "--seed", str(seed)])))
    assert report.clean, report.markdown()
    assert {name for name in FAILPOINTS if f"kill {name}" not in report.failpoints} == set()
    assert sum(report.runs.values()) >= SHORT_RUNS


def test_every_failpoint_is_somebodys() -> None:
    homes = [edge for edges in HOME.values() for edge in edges]
    assert sorted(homes) == sorted(EDGES)
    assert set(LEADS_THERE) <= set(EDGES)
    assert all(set(HOME[role]) <= set(REACHED_BY[role]) <= set(EDGES) for role in HOME)


def test_a_slot_is_taken_once_and_by_whom_it_names(tmp_path: Path) -> None:
    ours, theirs = Slot(tmp_path / "slot"), Slot(tmp_path / "slot")
    ours.arm(Order(["before settle", "after settle"], "kill", skip=1))
    assert theirs.take("before park") is None
    assert theirs.take("before settle") is None, "skipped"
    assert theirs.take("after settle") == Order(["before settle", "after settle"], "kill")
    assert theirs.take("after settle") is None
    ours.disarm()
    assert ours.fired == "after settle", "it has happened"
    ours.arm(Order(["before settle"], "kill"))
    ours.disarm()
    assert theirs.take("before settle") is None


DIES = """
import sys
from pathlib import Path
from app import failpoints
from tests.faults.suite.failpoint import Slot, hook
from tests.faults.suite.journal import Journal
failpoints.arm(hook(Slot(Path(sys.argv[1])), Journal(Path(sys.argv[2]))))
failpoints.before("settle")
"""


def test_a_process_dies_at_its_failpoint(tmp_path: Path) -> None:
    Slot(tmp_path / "slot").arm(Order(["before settle"], "kill"))
    command = [sys.executable, "-c", DIES, str(tmp_path / "slot"), str(tmp_path / "journal")]
    assert subprocess.run(command, cwd=ROOT, env=dict(os.environ), timeout=60).returncode == -signal.SIGKILL
    (note,) = read(tmp_path / "journal")
    assert (note.what, note["name"], note["action"]) == ("failpoint", "before settle", "kill")


def test_nothing_is_lost_or_doubled_in_a_short_performance() -> None:
    report = asyncio.run(_perform())
    assert report.clean, report.markdown()
    assert report.kills_and_freezes == sum(fault.kind.startswith(KILLS_AND_FREEZES) for fault in FAULTS)
    assert sum(report.acknowledged.values()) > 5


async def _perform() -> Report:
    async with staged({"fsync": "off", "full_page_writes": "off"}) as stage:
        return await Performance(stage, 7, SECONDS / 60, people=4).run(FAULTS)
