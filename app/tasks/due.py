"""Due instants: when a task is due next, and what to make of those that have passed. No database here."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from app import cron

# An instant this much older than now is late: it is made up for, or missed, by the catch-up policy.
LATE = timedelta(seconds=60)
WALK = 500
STARTS_AT_ONCE = 50


@dataclass(frozen=True)
class Rule:
    """When a task is due: by crontab expression, by interval, or once."""

    schedule_expression: str | None = None
    timezone: str = "UTC"
    interval: timedelta | None = None
    run_at: datetime | None = None

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Self:
        """When a stored task is due."""
        seconds = task["interval_seconds"]
        interval = timedelta(seconds=seconds) if seconds else None
        return cls(task["schedule_expression"], task["timezone"], interval, task["run_at"])

    def first(self, now: datetime) -> datetime | None:
        """The first due instant of a task stored or changed now."""
        if self.run_at is not None:
            return self.run_at
        return self.after(now, now)

    def after(self, due: datetime, now: datetime) -> datetime | None:
        """The first due instant after now, given one that was due; None when there is none any more.

        An interval keeps its phase, however late the last start was.
        """
        if self.schedule_expression is not None:
            return cron.next_after(self.schedule_expression, self.timezone, max(due, now))
        if self.interval is not None:
            return due + self.interval * max(1, (now - due) // self.interval + 1)
        return None

    def chunks(self, due: datetime, now: datetime) -> Iterator[list[datetime]]:
        """The due instants from one up to now, oldest first, in lists short enough not to hold up a loop."""
        chunk = [due]
        while chunk:
            yield chunk
            chunk = self._next_chunk(chunk[-1], now)

    def _next_chunk(self, last: datetime, now: datetime) -> list[datetime]:
        if self.schedule_expression is not None:
            return cron.due_between(self.schedule_expression, self.timezone, last, now, WALK)
        if self.interval is not None:
            passed = min(WALK, (now - last) // self.interval)
            return [last + self.interval * step for step in range(1, passed + 1)]
        return []


@dataclass
class Stretch:
    """Instants one after another that are accounted for in one row."""

    first: datetime | None = None
    last: datetime | None = None
    count: int = 0

    def add(self, due: datetime) -> None:
        """Put one more instant at its end."""
        self.first = self.first or due
        self.last = due
        self.count += 1


@dataclass
class Backlog:
    """What to make of the instants that are due.

    Attributes:
        missed: Those that never run.
        starts: Those that shall, oldest first.
        next_fire_at: The next instant to look at.
    """

    missed: Stretch = field(default_factory=Stretch)
    starts: list[datetime] = field(default_factory=list[datetime])
    next_fire_at: datetime | None = None


async def backlog_of(task: Mapping[str, Any]) -> Backlog:
    """What to make of the instants of a stored task that are due.

    Raises:
        InvalidSchedule: when its rule can't be read any more.
    """
    return await backlog(
        Rule.of(task),
        task["next_fire_at"],
        task["now"],
        catch_up=task["catch_up"],
        window=timedelta(seconds=task["catch_up_window_seconds"]),
        watched_since=task["watched_since"],
    )


async def backlog(
    rule: Rule,
    due: datetime,
    now: datetime,
    *,
    catch_up: str,
    window: timedelta,
    watched_since: datetime | None = None,
) -> Backlog:
    """Sort the instants from `due` up to now by the catch-up policy.

    Args:
        rule: When the task is due.
        due: The oldest instant not yet accounted for.
        now: PostgreSQL's time.
        catch_up: latest, none or all.
        window: How old an instant may be to be made up for.
        watched_since: Since when schedulers have been running: what they only came late to is not lost.

    Raises:
        InvalidSchedule: when the stored rule can't be read any more.
    """
    found = Backlog()
    oldest = min(now - max(LATE, window if catch_up != "none" else LATE), watched_since or now)
    for chunk in rule.chunks(due, now):
        for instant in chunk:
            _sort_in(found, instant, oldest, keeps_all=catch_up == "all")
            if len(found.starts) > STARTS_AT_ONCE:
                found.next_fire_at = found.starts.pop()
                return found
        await asyncio.sleep(0)  # A month of minutes must not stop the others.
    found.next_fire_at = rule.after(due, now)
    return found


async def passed(rule: Rule, due: datetime, now: datetime) -> Stretch:
    """The instants from `due` up to now.

    Raises:
        InvalidSchedule: when the stored rule can't be read any more.
    """
    found = Stretch()
    for chunk in rule.chunks(due, now):
        for instant in chunk:
            found.add(instant)
        await asyncio.sleep(0)
    return found


def _sort_in(found: Backlog, instant: datetime, oldest: datetime, *, keeps_all: bool) -> None:
    if instant < oldest:
        found.missed.add(instant)
        return
    if found.starts and not keeps_all:
        found.missed.add(found.starts.pop())
    found.starts.append(instant)
