"""Crontab rules: what an expression means, when it comes due, and how to say it in words.

cronsim walks the wall clock (a calendar without time zones); this module checks the expression first
and maps wall times to instants itself, by Debian's rule for clock changes:

- A job at a fixed time (neither minute nor hour begins with `*`) comes due once a day it names. A time
  skipped by the clock comes due right after the change, a repeated one at its first occurrence.
- A job with a `*` minute or hour comes due whenever the wall clock matches: skipped times are skipped,
  repeated ones repeat.
"""

import re
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice, pairwise, takewhile
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cron_descriptor import ExpressionDescriptor, Options  # pyright: ignore[reportMissingTypeStubs]
from cronsim import CronSim, CronSimError

from app.errors import InvalidRequest, InvalidSchedule, InvalidTimezone

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MAX_LENGTH = 250
SECOND = timedelta(seconds=1)
# Offsets never change twice within a week in any zone with future rules (Morocco's pair is a month apart).
STRIDE = timedelta(days=7)
AHEAD = timedelta(days=50 * 365.25)  # As far as cronsim looks for one match.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2400, 1, 1, tzinfo=UTC)
ITEM = re.compile(r"(?P<first>\*|[0-9]{1,2}|[A-Z]{3})(?:-(?P<last>[0-9]{1,2}|[A-Z]{3}))?(?:/(?P<step>[0-9]{1,3}))?")
STEPS = re.compile(r"(?P<first>\*|[0-9]+)/(?P<step>[0-9]+)")
ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
# Files beside the zones: the machine's own zone, and copies of all zones by other rules.
NO_ZONES = ("localtime", "posixrules", "Factory", "posix/", "right/")


@dataclass(frozen=True)
class Field:
    """One of the five places of an expression."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """The value of a number or name."""
        if text in self.names:
            return self.names.index(text) + self.low
        if not text.isdecimal() or not self.low <= int(text) <= self.high:
            raise self.refusal(text)
        return int(text)

    def refusal(self, item: str, instead: str | None = None) -> InvalidSchedule:
        """The error for an item that is not right here."""
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        right = instead or f"use {self.low} to {self.high}{names}, with * , - and / as in crontab"
        return InvalidSchedule(f"{self.name}: {item!r} is not valid; {right}", field="schedule_expression")


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 7, WEEKDAYS),
)
DAY_FIELDS = (2, 4)
# How many values a field goes through before it begins again; weeks and months fit no number of days.
TURNS = {"minute": 60, "hour": 24, "month": 12}


@dataclass(frozen=True)
class Schedule:
    """A checked expression: what was written and its five plain fields in numbers."""

    expression: str
    fields: tuple[str, str, str, str, str]

    @property
    def plain(self) -> str:
        """The five fields as one text."""
        return " ".join(self.fields)

    @property
    def by_wall_clock(self) -> bool:
        """Whether it comes due at every match of the wall clock rather than once a named time."""
        return self.fields[0].startswith("*") or self.fields[1].startswith("*")

    def walls(self, start: datetime) -> Iterator[datetime]:
        """The matching wall times from `start` on, itself included."""
        return iter(CronSim(self.plain, start - SECOND))


@dataclass(frozen=True)
class Instant:
    """One due instant, in UTC and on the wall clock, with a note where a clock change matters."""

    utc: datetime
    local: datetime
    note: str | None


@dataclass(frozen=True)
class Preview:
    """What a schedule will do, for a person to check."""

    description: str
    timezone: str
    next: list[Instant]


@dataclass(frozen=True)
class Change:
    """A clock change: its first instant and how far the wall clock jumps."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def jump(self) -> timedelta:
        """Positive when the clocks go forward."""
        return self.after - self.before

    def __str__(self) -> str:
        """The change in words."""
        way = "forward" if self.jump > timedelta(0) else "back"
        wall = (self.at + self.before).strftime("%Y-%m-%d at %H:%M")
        return f"clocks go {way} {round(abs(self.jump).total_seconds() / 60)} min on {wall}"


@lru_cache(maxsize=4096)
def parse(expression: str) -> Schedule:
    """Check a crontab expression.

    Raises:
        InvalidSchedule: saying which field is wrong and what would be right, or that it never comes due.
    """
    if len(expression) > MAX_LENGTH:
        raise _refused(f"the expression is longer than {MAX_LENGTH} characters")
    parts = _expand(expression).upper().split()
    if len(parts) != len(FIELDS):
        hint = "; there is no field for seconds" if len(parts) == len(FIELDS) + 1 else ""
        raise _refused(
            f"{len(parts)} fields instead of 5 (minute hour day-of-month month day-of-week), "
            f"as in '0 9 * * MON-FRI'{hint}"
        )
    minute, hour, day, month, weekday = (_plain(field, part) for field, part in zip(FIELDS, parts, strict=True))
    schedule = Schedule(expression, (minute, hour, day, month, weekday))
    _require_due(schedule)
    return schedule


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name.

    Raises:
        InvalidTimezone: when there is none, with the nearest name.
    """
    try:
        if ZONE_NAME.fullmatch(name) and not name.startswith(NO_ZONES):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # answered below, like every other name that is none
    near = _zones_of_city(name) or get_close_matches(name[:64], available_timezones(), n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else "use a name such as Europe/Berlin or UTC"
    raise InvalidTimezone(f"{name[:64]!r} is not an IANA time zone; {hint}", field="timezone")


def _zones_of_city(name: str) -> list[str]:
    """The zones that are named after a city, such as Asia/Tokyo."""
    city = name.strip().replace(" ", "_").lower()
    return sorted(each for each in available_timezones() if each.lower().endswith(f"/{city}"))


def next_after(expression: str, timezone: str, after_utc: datetime) -> datetime:
    """The first due instant strictly after another, in UTC.

    Raises:
        InvalidSchedule: when the expression is wrong or does not come due any more.
        InvalidTimezone: when the zone is unknown.
        InvalidRequest: when `after_utc` is outside the years 1970 to 2399.
    """
    return _next(parse(expression), zone(timezone), after_utc)


def due_between(expression: str, timezone: str, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The due instants after one instant up to and including another, at most `limit`, oldest first."""
    instants = _instants(parse(expression), zone(timezone), after)
    found: list[datetime] = []
    for due in islice(instants, limit):
        if due > until:
            break
        found.append(due)
    return found


def describe(expression: str, timezone: str) -> str:
    """The schedule as an English sentence, such as "At 09:00, Monday through Friday (Europe/Berlin)"."""
    return _describe(parse(expression), zone(timezone))


def preview(expression: str, timezone: str, count: int, start: datetime) -> Preview:
    """The sentence and the next `count` instants after `start`, at most fifty years ahead, with notes on clock changes.

    It takes a while for an expression that is rarely due: not for an event loop.
    """
    schedule, where = parse(expression), zone(timezone)
    end = min(start.astimezone(UTC) + AHEAD, LATEST)
    dues = list(islice(takewhile(lambda due: due < end, _instants(schedule, where, start)), count))
    steps = pairwise([start.astimezone(UTC), *dues])
    instants = [Instant(due, due.astimezone(where), _note(schedule, where, before, due)) for before, due in steps]
    return Preview(_describe(schedule, where), timezone, instants)


# --- reading an expression ------------------------------------------------------------------------


def _refused(detail: str) -> InvalidSchedule:
    return InvalidSchedule(f"schedule_expression: {detail}", field="schedule_expression")


def _expand(expression: str) -> str:
    text = expression.strip()
    if not text.startswith("@"):
        return text
    if text.lower() not in ALIASES:
        raise _refused(f"{text!r} is not known; use one of {', '.join(sorted(ALIASES))}, or five fields")
    return ALIASES[text.lower()]


def _plain(field: Field, text: str) -> str:
    return ",".join(_plain_item(field, item) for item in text.split(","))


def _plain_item(field: Field, item: str) -> str:
    found = ITEM.fullmatch(item)
    if found is None or (found["first"] == "*" and found["last"]):
        raise field.refusal(item)
    step = _step(field, item, found["step"])
    if found["first"] == "*":
        return f"*{step}"
    first = field.number(found["first"])
    if not found["last"]:
        return f"{first}{step}"
    last = field.number(found["last"])
    if last < first:
        raise field.refusal(item, "a range must not run backwards: write it as a list, such as 5,6,0 or 22,23,0")
    # `4-4/2` means 4; cronsim would read it as `4/2`.
    return f"{first}-{last}{step}" if first < last else str(first)


def _step(field: Field, item: str, step: str | None) -> str:
    if step is None:
        return ""
    if int(step) == 0:
        raise field.refusal(item, "a step must be 1 or more")
    return f"/{int(step)}"


def _require_due(schedule: Schedule) -> None:
    try:
        next(schedule.walls(datetime(2000, 1, 1)))  # noqa: DTZ001 - a wall time has no zone
    except (CronSimError, StopIteration):
        raise _refused("it never comes due: no such day exists in the months it names") from None


# --- from wall times to instants --------------------------------------------------------------------


Walk = Callable[[Schedule, ZoneInfo, datetime], Iterator[datetime]]


def _next(schedule: Schedule, where: ZoneInfo, after: datetime) -> datetime:
    try:
        return next(_instants(schedule, where, after))
    except StopIteration:
        raise _refused("it does not come due within fifty years") from None


def _instants(schedule: Schedule, where: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The due instants after another, until the calendar gives up: after fifty years without a match."""
    if not EARLIEST <= after < LATEST:
        raise InvalidRequest("the instant must lie in the years 1970 to 2399")
    walk: Walk = _by_wall_clock if schedule.by_wall_clock else _by_day
    return walk(schedule, where, after.astimezone(UTC).replace(microsecond=0))


def _by_day(schedule: Schedule, where: ZoneInfo, after: datetime) -> Iterator[datetime]:
    for wall in schedule.walls(_wall(after, _offset(where, after)) + SECOND):
        due = _once(where, wall)
        # In a repeated hour the wall clock offers times that have passed already; a gap gives several one instant.
        if due > after:
            yield due
            after = due


def _once(where: ZoneInfo, wall: datetime) -> datetime:
    """The first instant that shows this wall time, or the end of the gap that swallows it."""
    due = wall.replace(tzinfo=where).astimezone(UTC)
    change = _gap(where, wall, due)
    return change.at if change else due


def _gap(where: ZoneInfo, wall: datetime, due: datetime) -> Change | None:
    if _wall(due, _offset(where, due)) == wall:
        return None
    return _first_change(where, wall.replace(tzinfo=where, fold=1).astimezone(UTC), due)


def _by_wall_clock(schedule: Schedule, where: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Walk from clock change to clock change: between two of them the offset stands still."""
    since: datetime | None = after + SECOND
    while since is not None:
        since = yield from _until_change(schedule, where, since)


def _until_change(schedule: Schedule, where: ZoneInfo, since: datetime) -> Generator[datetime, None, datetime | None]:
    """The due instants from one on up to the next clock change; returns that change's instant."""
    offset = _offset(where, since)
    for wall in schedule.walls(_wall(since, offset)):
        due = wall.replace(tzinfo=UTC) - offset
        if change := _first_change(where, since, due):
            return change.at
        yield due
        since = due
    return None


def _wall(instant: datetime, offset: timedelta) -> datetime:
    return (instant + offset).replace(tzinfo=None)


def _offset(where: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(where).utcoffset() or timedelta(0)


def _first_change(where: ZoneInfo, after: datetime, until: datetime) -> Change | None:
    """The first clock change in (after, until]."""
    while after < until:
        ahead = min(after + STRIDE, until)
        if _offset(where, ahead) != _offset(where, after):
            return _bisect(where, after, ahead)
        after = ahead
    return None


def _bisect(where: ZoneInfo, low: datetime, high: datetime) -> Change:
    before, after = _offset(where, low), _offset(where, high)
    while high - low > SECOND:
        middle = low + timedelta(seconds=(high - low) // SECOND // 2)
        low, high = (middle, high) if _offset(where, middle) == before else (low, middle)
    return Change(high, before, after)


# --- for people ---------------------------------------------------------------------------------------


def _describe(schedule: Schedule, where: ZoneInfo) -> str:
    options = Options(locale_code="en_US", use_24hour_time_format=True)
    read = CronSim(schedule.plain, datetime(2000, 1, 1))  # noqa: DTZ001 - only its sets are read
    weekdays = {cast("int", each) % 7 for each in read.weekdays}
    values = (read.minutes, read.hours, read.days, read.months, weekdays)
    said = " ".join(map(_sayable, FIELDS, schedule.fields, values))
    words = str(ExpressionDescriptor(said, options))
    # A star in either day field means both must match (Debian's rule); the sentence says "or".
    if any(schedule.fields[place].startswith("*") for place in DAY_FIELDS):
        words = words.replace(", or on ", ", and only on ")
    return f"{words} ({where.key})"


def _sayable(field: Field, text: str, values: Collection[int]) -> str:
    """A field whose steps are the same all round; else the values it has: `*/45` is not every 45 minutes but 0 and 45."""
    if "/" not in text or _is_even(field, text):
        return text
    return "*" if len(values) == field.high - field.low + 1 else ",".join(map(str, sorted(values)))


def _is_even(field: Field, text: str) -> bool:
    found, turn = STEPS.fullmatch(text), TURNS.get(field.name)
    if found is None or turn is None or turn % int(found["step"]):
        return False
    return found["first"] == "*" or int(found["first"]) - field.low < int(found["step"])


def _note(schedule: Schedule, where: ZoneInfo, before: datetime, due: datetime) -> str | None:
    changes = _changes(where, before, due)
    repeat = _repeat_note(schedule, where, due)
    if len(changes) > 2:
        return repeat or f"{len(changes)} clock changes lie in between"
    notes = [f"{change}{_effect(schedule, change, due)}" for change in changes]
    return "; ".join([*notes, *([repeat] if repeat else [])]) or None


def _changes(where: ZoneInfo, after: datetime, until: datetime) -> list[Change]:
    found: list[Change] = []
    while change := _first_change(where, after, until):
        found.append(change)
        after = change.at
    return found


def _effect(schedule: Schedule, change: Change, due: datetime) -> str:
    """What a clock change did to this very instant."""
    if schedule.by_wall_clock or change.at != due or change.jump < timedelta(0):
        return ""
    skipped = next(schedule.walls(_wall(due, change.before)))
    if skipped >= _wall(due, change.after):
        return ""
    return f": {skipped:%H:%M} does not exist that day, so it runs right after"


def _repeat_note(schedule: Schedule, where: ZoneInfo, due: datetime) -> str | None:
    local = due.astimezone(where)
    other = local.replace(fold=1 - local.fold)
    if other.utcoffset() == local.utcoffset():
        return None
    which = "second" if local.fold else "first"
    runs = f"this is the {which}" if schedule.by_wall_clock else "it runs at the first only"
    return f"{local:%H:%M} comes twice on {local:%Y-%m-%d}; {runs}"
