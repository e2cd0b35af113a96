"""A short performance of the long suite, so that it works when it is needed."""

import asyncio

from tests.faults.suite.perform import Performance
from tests.faults.suite.plan import KILLS_AND_FREEZES, WEIGHTS, Fault, schedule
from tests.faults.suite.report import Report
from tests.faults.suite.stage import staged

FAULTS = [
    Fault(2.0, "kill worker", 0, 0.1, 0),
    Fault(2.5, "kill api", 1, 0.1, 0),
    Fault(3.0, "terminate backend", 3, 0.0, 0),
    Fault(3.5, "flush", 0, 0.0, 0),
    Fault(4.0, "freeze worker", 1, 4.0, 0),
    Fault(4.5, "kill scheduler", 0, 0.1, 0),
    Fault(5.0, "postgres cut", 1, 0.0, 300),
]
SECONDS = 6.0


def test_the_schedule_is_the_seeds_alone() -> None:
    faults = schedule(7, 2, 0.5)
    assert faults == schedule(7, 2, 0.5)
    assert faults != schedule(8, 2, 0.5)
    assert {fault.kind for fault in schedule(7, 60, 0.5)} == set(WEIGHTS)
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert all(0 < fault.at < 120 for fault in faults)


def test_nothing_is_lost_or_doubled_in_a_short_performance() -> None:
    report = asyncio.run(_perform())
    assert report.clean, report.markdown()
    assert report.kills_and_freezes == sum(fault.kind.startswith(KILLS_AND_FREEZES) for fault in FAULTS)
    assert sum(report.acknowledged.values()) > 5


async def _perform() -> Report:
    async with staged({"fsync": "off", "full_page_writes": "off"}) as stage:
        return await Performance(stage, 7, SECONDS / 60, people=4).run(FAULTS)
