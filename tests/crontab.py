"""Crontab's rules once more, by brute force: what every single minute's wall clock shows is held to the expression.

It shares nothing with `app.cron` but the time zone database. The rules are those of crontab(5) and of Debian's cron:

- A field is a list of items; an item is a star, a number or name, or a range, a star and a range with an optional step.
- Sunday is 0 and 7. When both day fields are restricted, either may match; one that begins with a star is not restricted,
  and then both must match.
- A job whose minute or hour begins with a star runs at each minute that matches. Any other runs once for each wall time
  it names: one that is repeated counts the first time, one that was jumped over counts at the jump.

    python -m tests.crontab --count 20000 --seed 7      # a longer search; `python3 dev.py crontab` is the same
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from app.cron import due_between, parse
from app.errors import InvalidSchedule

DAY = 1440
FIRES = 50
YEARS = 40  # So long is looked for the fifty fires of an expression.
AROUND = timedelta(days=3)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
NAMES: tuple[Sequence[str], ...] = ((), (), (), MONTHS, WEEKDAYS)
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

# A zone, and the first of the two years whose clock changes are looked at. Sao Paulo gave its summer time up in 2019,
# Almaty moved to another offset in 2024, Casablanca changes around Ramadan, Troll jumps by two hours.
PLACES = (
    ("UTC", 2026),
    ("Europe/Berlin", 2026),
    ("America/New_York", 2026),
    ("Australia/Lord_Howe", 2026),
    ("America/Sao_Paulo", 2018),
    ("Asia/Almaty", 2023),
    ("Africa/Casablanca", 2026),
    ("America/Santiago", 2025),
    ("Pacific/Chatham", 2026),
    ("Antarctica/Troll", 2026),
)


# --- what an expression says ------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """An expression as the sets of numbers it names."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool
    fixed: bool

    @classmethod
    def of(cls, expression: str) -> "Rules":
        fields = ALIASES.get(expression.lower(), expression).split()
        sets = [members(field, *bounds, names) for field, bounds, names in zip(fields, BOUNDS, NAMES, strict=True)]
        starry = [field.startswith("*") for field in fields]
        return cls(*sets, both_days=starry[2] or starry[4], fixed=not starry[0] and not starry[1])

    def on(self, day: date) -> bool:
        """Whether a date matches."""
        by_day, by_weekday = day.day in self.days, bool({day.isoweekday(), day.isoweekday() % 7} & self.weekdays)
        return day.month in self.months and ((by_day and by_weekday) if self.both_days else (by_day or by_weekday))


def members(field: str, low: int, high: int, names: Sequence[str]) -> frozenset[int]:
    """The numbers that a field names."""
    found: set[int] = set()
    for item in field.lower().split(","):
        span, _, step = item.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        begin = number(first, low, names)
        found |= set(range(begin, number(last, low, names) + 1 if last else begin + 1, int(step or 1)))
    return frozenset(found)


def number(text: str, low: int, names: Sequence[str]) -> int:
    return names.index(text) + low if text in names else int(text)


# --- what the wall clock shows ----------------------------------------------------------------------


class Span:
    """The wall clock at every UTC minute of some days.

    Attributes:
        first: The first minute, counted from 1970.
        wall: What the wall clock shows at each, counted likewise.
        fresh: Whether it shows that for the first time.
    """

    def __init__(self, timezone: str, start: datetime, days: int) -> None:
        where = ZoneInfo(timezone)
        self.first = minute_of(start)
        utc = self.first + np.arange(days * DAY, dtype=np.int32)
        self.wall = utc + np.concatenate([offsets(where, start + timedelta(days=day)) for day in range(days)])
        before = np.concatenate([[self.wall[0] - 1], np.maximum.accumulate(self.wall)[:-1]])
        self.fresh = self.wall > before
        self.gaps = [(int(at), range(before[at] + 1, self.wall[at])) for at in np.flatnonzero(self.wall > before + 1)]
        edges = [0, *(np.flatnonzero(np.diff(self.wall // DAY)) + 1), len(utc)]
        self.stretches = [(date_of(int(self.wall[begin])), int(begin), int(end)) for begin, end in pairwise(edges)]
        self.time = self.wall % DAY

    def fires(self, rules: Rules) -> list[int]:
        """The minutes, counted from 1970, at which an expression is due."""
        matches = np.zeros(DAY, dtype=bool)
        matches[[hour * 60 + minute for hour in rules.hours for minute in rules.minutes]] = True
        found: list[int] = []
        for day, begin, end in self.stretches:
            if rules.on(day):
                hits = matches[self.time[begin:end]]
                found += (begin + np.flatnonzero(hits & self.fresh[begin:end] if rules.fixed else hits)).tolist()
        if rules.fixed:
            jumped = {
                at for at, skipped in self.gaps if any(matches[w % DAY] and rules.on(date_of(w)) for w in skipped)
            }
            found = sorted({*found, *jumped})
        return [self.first + at for at in found]


def minute_of(at: datetime) -> int:
    return int(at.timestamp()) // 60


def instant_of(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def date_of(wall: int) -> date:
    return instant_of(wall).date()


def offsets(where: ZoneInfo, start: datetime) -> Any:
    """The offset in minutes at each minute of a UTC day; one that is the same at both ends is the same between."""
    first, last = offset(where, start), offset(where, start + timedelta(days=1))
    if first == last:
        return np.full(DAY, first, dtype=np.int32)
    return np.array([offset(where, start + timedelta(minutes=minute)) for minute in range(DAY)], np.int32)


def offset(where: ZoneInfo, at: datetime) -> int:
    return int(at.astimezone(where).utcoffset().total_seconds()) // 60  # type: ignore[union-attr]


def changes(timezone: str, year: int) -> Iterator[datetime]:
    """The clock changes of two years."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    span = Span(timezone, start, 731)
    steps = np.diff(span.wall)
    yield from (start + timedelta(minutes=int(at) + 1) for at in np.flatnonzero(steps != 1))


# --- random expressions -----------------------------------------------------------------------------


def random_expression(rng: random.Random) -> str:
    """One that people might write, and many that nobody would."""
    if rng.random() < 0.02:
        return rng.choice(sorted(ALIASES))
    # Minutes and hours are mostly named, so that many are fixed times; some hours lie where clocks change.
    starry = (0.15, 0.35, 0.55, 0.6, 0.55)
    return " ".join(random_field(rng, place, starry[place]) for place in range(5))


def random_field(rng: random.Random, place: int, starry: float) -> str:
    if rng.random() < starry:
        star = rng.choice(["*", "*", f"*/{rng.randint(1, BOUNDS[place][1] + 5)}"])
        return star if rng.random() < 0.9 else f"{star},{random_item(rng, place)}"
    items = [random_item(rng, place) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return ",".join([*items, *(["*/7"] if rng.random() < 0.03 else [])])


def random_item(rng: random.Random, place: int) -> str:
    low, high = BOUNDS[place]
    top = 4 if place == 1 and rng.random() < 0.6 else high
    first, last = sorted((rng.randint(low, top), rng.randint(low, top)))
    kind = rng.random()
    if kind < 0.65:
        return named(rng, place, first)
    if kind < 0.7:
        return f"{first}-{first}/{rng.randint(1, 5)}"
    span = f"{named(rng, place, first)}-{named(rng, place, last) if last < 7 or place != 4 else last}"
    return span if kind < 0.85 else f"{span}/{rng.randint(1, 9)}"


def named(rng: random.Random, place: int, value: int) -> str:
    """A number, or its name in any case."""
    low, names = BOUNDS[place][0], NAMES[place]
    if rng.random() < 0.7 or not value - low < len(names):
        return f"{value:02}" if rng.random() < 0.1 else str(value)
    return rng.choice([str.lower, str.upper, str.title])(names[value - low])


# --- comparing --------------------------------------------------------------------------------------


def disagreements(timezone: str, year: int, expressions: Sequence[str], start: datetime) -> list[str]:
    """Where `app.cron` says something else: the next fifty fires after an instant, and all around clock changes."""
    rules = {expression: Rules.of(expression) for expression in expressions}
    wrong = next_fires(timezone, rules, start)
    for change in changes(timezone, year):
        wrong += fires_around(timezone, rules, change)
    return wrong


def next_fires(timezone: str, rules: dict[str, Rules], start: datetime) -> list[str]:
    expected: dict[str, list[int]] = {expression: [] for expression in rules}
    after = minute_of(start)
    for year in range(start.year, start.year + YEARS):
        wanting = [expression for expression, found in expected.items() if len(found) < FIRES]
        if not wanting:
            break
        first = datetime(year, 1, 1, tzinfo=UTC)
        span = Span(timezone, first, (datetime(year + 1, 1, 1, tzinfo=UTC) - first).days)
        for expression in wanting:
            expected[expression] += [minute for minute in span.fires(rules[expression]) if minute > after]
    until = datetime(start.year + YEARS, 1, 1, tzinfo=UTC) - timedelta(minutes=1)
    wrong: list[str] = []
    for expression, found in expected.items():
        told, right = answer(expression, timezone, start, until, FIRES), [*map(instant_of, found[:FIRES])]
        if told != right:
            wrong.append(f"{expression!r} in {timezone} after {start}: {odd(told, right)}")
        if refused(expression) == bool(right):
            wrong.append(f"{expression!r} is {'due' if right else 'never due'}, against what is said of it")
    return wrong


def fires_around(timezone: str, rules: dict[str, Rules], change: datetime) -> list[str]:
    """Every fire within three days of a clock change."""
    midnight = change.replace(hour=0, minute=0)
    span = Span(timezone, midnight - timedelta(days=5), 10)
    after, until = change - AROUND, change + AROUND
    wrong: list[str] = []
    for expression, each in rules.items():
        right = [at for minute in span.fires(each) if after < (at := instant_of(minute)) <= until]
        told = answer(expression, timezone, after, until, len(right) + 1)
        if told != right:
            wrong.append(f"{expression!r} in {timezone} around {change}: {odd(told, right)}")
    return wrong


def odd(told: list[datetime], right: list[datetime]) -> str:
    """The first instants that only one of them names."""
    ours, theirs = sorted(set(told) - set(right))[:3], sorted(set(right) - set(told))[:3]
    return f"only app.cron names {[*map(str, ours)]}, only the search {[*map(str, theirs)]}"


def answer(expression: str, timezone: str, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """What the code under test says; it must refuse what is never due."""
    return [] if refused(expression) else due_between(expression, timezone, after, until, limit)


def refused(expression: str) -> bool:
    try:
        parse(expression)
    except InvalidSchedule:
        return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Compare many expressions and print those that differ; the exit code."""
    parser = argparse.ArgumentParser(prog="dev.py crontab", description="Compare app.cron with a search by the minute.")
    parser.add_argument("--count", type=int, default=20_000, help="expressions in all (20000)")
    parser.add_argument("--seed", type=int, default=None, help="repeats a search; new each time when left out")
    chosen = parser.parse_args(argv)
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1_000_000)
    began, wrong = time.monotonic(), 0
    for timezone, year in PLACES:
        rng = random.Random(f"{seed} {timezone}")
        found = disagreements(timezone, year, *drawn(rng, year, chosen.count // len(PLACES)))
        wrong += len(found)
        print("\n".join([f"{timezone}: {len(found)} differ", *found[:10]]), flush=True)
    print(f"seed {seed}: {chosen.count} expressions, {wrong} differences, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def drawn(rng: random.Random, year: int, count: int) -> tuple[list[str], datetime]:
    """Random expressions, and an instant to go on from."""
    start = datetime(year, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(365 * DAY))
    return [random_expression(rng) for _ in range(count)], start


if __name__ == "__main__":
    sys.exit(main())
