"""Due instants as arithmetic: rules, backlogs, clock changes."""

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import InvalidSchedule
from app.tasks.due import STARTS_AT_ONCE, Rule, backlog

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_first_instant() -> None:
    now = at("2026-03-01 12:00:30")
    assert Rule("0 9 * * *", "Europe/Berlin").first(now) == at("2026-03-02 08:00")
    assert Rule(interval=MINUTE).first(now) == now + MINUTE
    assert Rule(run_at=now + DAY).first(now) == now + DAY


def test_an_interval_keeps_its_phase_however_late() -> None:
    due = at("2026-03-01 12:00:05")
    assert Rule(interval=MINUTE).after(due, due) == due + MINUTE
    assert Rule(interval=MINUTE).after(due, due + timedelta(seconds=59)) == due + MINUTE
    assert Rule(interval=MINUTE).after(due, due + timedelta(seconds=60)) == due + 2 * MINUTE
    assert Rule(interval=MINUTE).after(due, due + timedelta(hours=5, seconds=3)) == due + 301 * MINUTE


def test_once_is_once() -> None:
    assert Rule(run_at=at("2026-03-01")).after(at("2026-03-01"), at("2026-03-02")) is None


async def test_a_repeated_hour_is_due_once_for_a_fixed_time_and_twice_for_every_hour() -> None:
    """Berlin, 2026-10-25: the clocks go from 03:00 back to 02:00."""
    now, window = at("2026-10-25 12:00"), 2 * DAY
    fixed = await backlog(
        Rule("30 2 * * *", "Europe/Berlin"), at("2026-10-24 00:30"), now, catch_up="all", window=window
    )
    assert fixed.starts == [at("2026-10-24 00:30"), at("2026-10-25 00:30")]
    hourly = await backlog(
        Rule("0 * * * *", "Europe/Berlin"), at("2026-10-24 23:00"), at("2026-10-25 02:00"), catch_up="all", window=DAY
    )
    assert hourly.starts == [at("2026-10-24 23:00") + timedelta(hours=each) for each in range(4)]


async def test_a_skipped_time_is_due_right_after_the_change() -> None:
    """Berlin, 2026-03-29: the clocks go from 02:00 to 03:00."""
    found = await backlog(
        Rule("30 2 * * *", "Europe/Berlin"),
        at("2026-03-28 01:30"),
        at("2026-03-29 06:00"),
        catch_up="latest",
        window=DAY,
    )
    assert found.starts == [at("2026-03-29 01:00")]
    assert found.next_fire_at == at("2026-03-30 00:30")


@pytest.mark.parametrize(
    ("catch_up", "starts", "missed"), [("latest", [240], 4), ("none", [240], 4), ("all", [0, 60, 120, 180, 240], 0)]
)
async def test_policies(catch_up: str, starts: list[int], missed: int) -> None:
    due = at("2026-03-01 12:00")
    found = await backlog(Rule(interval=MINUTE), due, due + timedelta(seconds=250), catch_up=catch_up, window=DAY)
    assert [(each - due).seconds for each in found.starts] == starts
    assert found.missed.count == missed
    assert found.next_fire_at == due + timedelta(seconds=300)


async def test_a_long_backlog_is_started_in_parts() -> None:
    due = at("2026-03-01 12:00")
    found = await backlog(Rule(interval=MINUTE), due, due + timedelta(hours=10), catch_up="all", window=DAY)
    assert len(found.starts) == STARTS_AT_ONCE
    assert found.next_fire_at == due + STARTS_AT_ONCE * MINUTE


async def test_years_of_seconds_are_counted() -> None:
    due = at("2024-03-01 12:00")
    found = await backlog(
        Rule(interval=timedelta(seconds=60)), due, due + 365 * DAY, catch_up="latest", window=timedelta(hours=1)
    )
    assert found.missed.count == 365 * 24 * 60
    assert len(found.starts) == 1


async def test_a_rule_that_can_not_be_read_is_an_error_with_a_name() -> None:
    with pytest.raises(InvalidSchedule):
        await backlog(Rule("99 * * * *"), at("2026-03-01"), at("2026-03-02"), catch_up="all", window=DAY)
