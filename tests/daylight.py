"""The table of clock changes in `docs/schedules.md`, made by the code: `python -m tests.daylight` puts it there."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from app.cron import due_between
from tests.crontab import changes

PAGE = Path(__file__).parents[1] / "docs" / "schedules.md"
BEGIN, END = "<!-- clock changes -->", "<!-- end of clock changes -->"
AROUND = timedelta(hours=2)

# What is special about a zone, one of its years, schedules worth a look there, and instants beside its clock changes.
ZONES: tuple[tuple[str, str, int, tuple[str, ...], tuple[datetime, ...]], ...] = (
    ("Europe/Berlin", "one hour", 2026, ("30 2 * * *", "0 2,3 * * *", "*/30 * * * *", "30 */2 * * *"), ()),
    ("America/New_York", "one hour", 2026, ("30 2 * * *", "30 1 * * *", "0 * * * *"), ()),
    ("Australia/Lord_Howe", "half an hour", 2026, ("15 2 * * *", "45 1 * * *", "0 * * * *", "*/15 1-2 * * *"), ()),
    (
        "America/Sao_Paulo",
        "one hour at midnight, until the law was changed in 2019; the last line is when it would have been again",
        2018,
        ("30 0 * * *", "30 23 * * *", "0 * * * *"),
        (datetime(2019, 11, 3, 3, tzinfo=UTC),),
    ),
)


def page() -> str:
    """The page with the table as the code has it now."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def table() -> str:
    lines = ["| Zone | Its clock | Schedule | Due, with the offset |", "|---|---|---|---|"]
    for zone, said, year, expressions, more in ZONES:
        name = f"{zone}: {said}"
        ends = datetime(year + 1, 12, 31, tzinfo=UTC) if more else datetime(year + 1, 1, 1, tzinfo=UTC)
        for at in [*(each for each in changes(zone, year) if each < ends), *more]:
            clock = shown_change(zone, at)
            for expression in expressions:
                lines.append(f"| {name} | {clock} | `{expression}` | {dues(expression, zone, at)} |")
                name = clock = ""
    return "\n".join(lines)


def shown_change(zone: str, at: datetime) -> str:
    """From which wall time to which."""
    before, after = ((at - timedelta(seconds=each)).astimezone(ZoneInfo(zone)) for each in (60, 0))
    first = (before + timedelta(minutes=1)).replace(tzinfo=None)
    if before.utcoffset() == after.utcoffset():
        return f"{first:%Y-%m-%d %H:%M} goes on"
    return f"{first:%Y-%m-%d %H:%M} becomes {after:%H:%M}"


def dues(expression: str, zone: str, at: datetime) -> str:
    """What is due within two hours of an instant."""
    found = due_between(expression, zone, at - AROUND, at + AROUND, 99)
    locals_ = [due.astimezone(ZoneInfo(zone)).isoformat() for due in found]
    return ", ".join(f"{text[11:16]} {text[19:]}" for text in locals_) or "nothing"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
