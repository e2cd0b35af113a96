"""Crontab rules, against hand-worked cases and a search minute by minute that shares no code with them."""

import random
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from app.cron import describe, due_between, next_after, parse, preview, zone
from app.errors import InvalidRequest, InvalidSchedule, InvalidTimezone
from tests.crontab import PLACES, Rules, changes, disagreements, drawn

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(timezone: str, text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold).astimezone(UTC)


def upcoming(expression: str, timezone: str, after: datetime, count: int) -> list[str]:
    """The next instants, each asked for by itself as the scheduler does, as local time with offset."""
    found: list[str] = []
    for _ in range(count):
        after = next_after(expression, timezone, after)
        found.append(after.astimezone(ZoneInfo(timezone)).strftime("%m-%d %H:%M%z"))
    return found


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "plain"),
    [
        ("0 9 * * *", "0 9 * * *"),
        ("  0   9\t* * mon-Fri ", "0 9 * * 1-5"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("4-4/2 * * * *", "4 * * * *"),
        ("*/15,7 08-18/2 1,15 JAN,jun-AUG 7", "*/15,7 8-18/2 1,15 1,6-8 7"),
    ],
)
def test_an_expression_is_read(expression: str, plain: str) -> None:
    assert parse(expression).plain == plain


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("", "0 fields"),
        ("0 9 * *", "4 fields"),
        ("0 0 9 * * *", "there is no field for seconds"),
        ("@reboot", "@daily"),
        ("@every 5m", "@daily"),
        ("60 * * * *", "minute: '60' is not valid; use 0 to 59"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * 32 * *", "day of month"),
        ("* * * 13 *", "month: '13'"),
        ("* * * FOO *", "JAN to DEC"),
        ("* * * * 8", "day of week"),
        ("0 0 L * *", "day of month: 'L'"),
        ("0 0 LW * *", "day of month"),
        ("0 0 15W * *", "day of month"),
        ("0 0 * * 5L", "day of week"),
        ("0 0 * * MON#2", "day of week"),
        ("0 0 ? * MON", "day of month: '?'"),
        ("*/0 * * * *", "a step must be 1 or more"),
        ("*-5 * * * *", "minute"),
        ("1,,2 * * * *", "minute: ''"),
        ("-1 * * * *", "minute"),
        ("1-2-3 * * * *", "minute"),
        ("5/ * * * *", "minute"),
        ("0 22-2 * * *", "backwards"),
        ("0 0 * * FRI-MON", "backwards"),
        ("٥ * * * *", "minute"),
        ("* * * * *\x00", "day of week"),
        ("0 0 31 2 *", "never comes due"),
        ("0 0 30,31 2 *", "never comes due"),
        ("0 0 31 4,6,9,11 *", "never comes due"),
        ("* " * 200, "longer than"),
        ("; drop table", "3 fields"),
    ],
)
def test_what_is_not_crontab_is_refused_with_what_would_be(expression: str, hint: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        parse(expression)
    assert caught.value.field == "schedule_expression"
    assert hint in caught.value.detail


def test_a_leap_day_is_due_though_rarely() -> None:
    assert next_after("0 0 29 2 *", "UTC", at("2026-01-01")) == at("2028-02-29")


@pytest.mark.parametrize(
    "name",
    [
        "Mars/Olympus",
        "Europe",
        "",
        "../etc/passwd",
        "/etc/localtime",
        "CET\x00",
        "UTC+25:00",
        "localtime",
        "right/UTC",
        "posix/UTC",
    ],
)
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidTimezone) as caught:
        zone(name)
    assert caught.value.field == "timezone"


def test_a_mistyped_zone_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidTimezone, match="did you mean Europe/Berlin"):
        zone("Europe/Berlinn")


@pytest.mark.parametrize("city", ["Tokyo", "tokyo", " TOKYO "])
def test_a_city_is_answered_with_its_zone(city: str) -> None:
    with pytest.raises(InvalidTimezone, match="did you mean Asia/Tokyo"):
        zone(city)


@pytest.mark.parametrize("year", [1, 1969, 2400, 9999])
def test_an_instant_out_of_reach_is_refused(year: int) -> None:
    with pytest.raises(InvalidRequest, match="1970 to 2399"):
        next_after("@daily", "UTC", datetime(year, 6, 1, tzinfo=UTC))


# --- next instants -------------------------------------------------------------------------------


def test_sunday_is_0_and_7_and_monday_is_1() -> None:
    monday = at("2026-11-16T12:00")
    assert next_after("0 0 * * 0", "UTC", monday) == next_after("0 0 * * 7", "UTC", monday) == at("2026-11-22")
    assert upcoming("0 0 * * 1-5", "UTC", monday, 5) == [f"11-{day} 00:00+0000" for day in (17, 18, 19, 20, 23)]


def test_a_day_of_month_or_a_day_of_week_when_both_are_named() -> None:
    found = upcoming("0 0 13 * FRI", "UTC", at("2026-11-07"), 4)
    assert found == ["11-13 00:00+0000", "11-20 00:00+0000", "11-27 00:00+0000", "12-04 00:00+0000"]
    assert upcoming("0 0 15 * FRI", "UTC", at("2026-11-14"), 2) == ["11-15 00:00+0000", "11-20 00:00+0000"]


def test_a_star_in_a_day_field_means_both() -> None:
    assert upcoming("0 0 */2 * MON", "UTC", at("2026-11-01"), 2) == ["11-09 00:00+0000", "11-23 00:00+0000"]


def test_the_next_instant_is_strictly_later() -> None:
    assert next_after("0 9 * * *", "UTC", at("2026-11-20T09:00")) == at("2026-11-21T09:00")
    assert next_after("0 9 * * *", "UTC", at("2026-11-20T08:59:59.999999")) == at("2026-11-20T09:00")
    assert next_after("* * * * *", "UTC", at("2026-11-20T09:00:00.5")) == at("2026-11-20T09:01")


def test_due_instants_between_two_others_stop_at_the_limit() -> None:
    after, until = at("2026-11-20T00:00"), at("2026-11-20T03:00")
    assert due_between("@hourly", "UTC", after, until, 10) == [at(f"2026-11-20T0{hour}:00") for hour in (1, 2, 3)]
    assert due_between("* * * * *", "UTC", after, until, 2) == [at("2026-11-20T00:01"), at("2026-11-20T00:02")]
    assert due_between("@yearly", "UTC", after, until, 2) == []


# --- clock changes: Berlin 2026-03-29 02:00 -> 03:00 and 2026-10-25 03:00 -> 02:00,
# --- New York 2026-03-08 and 2026-11-01, Lord Howe (30 minutes) 2026-10-04 and 2026-04-05 -----------


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "due"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
        ("0,30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:00+0200"]),
        ("0 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:00+0200"]),
        ("30 2,3 * * *", BERLIN, "2026-03-28T12:00", ["03-29 03:00+0200", "03-29 03:30+0200"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", ["03-08 03:00-0400", "03-09 02:30-0400"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04 02:30+1100", "10-05 02:15+1100"]),
        ("45 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["10-04 02:45+1100", "10-05 02:45+1100"]),
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00", ["09-06 01:00-0300", "09-07 00:00-0300"]),
    ],
)
def test_a_fixed_time_in_a_gap_comes_once_right_after(
    expression: str, timezone: str, start: str, due: list[str]
) -> None:
    assert upcoming(expression, timezone, local(timezone, start), len(due)) == due


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "due"),
    [
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("0,30 2 * * *", BERLIN, "2026-10-25T01:00", ["10-25 02:00+0200", "10-25 02:30+0200", "10-26 02:00+0100"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", ["11-01 01:30-0400", "11-02 01:30-0500"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["04-05 01:45+1100", "04-06 01:45+1030"]),
    ],
)
def test_a_fixed_time_in_an_overlap_comes_once(expression: str, timezone: str, start: str, due: list[str]) -> None:
    assert upcoming(expression, timezone, local(timezone, start), len(due)) == due


def test_a_fixed_time_asked_for_inside_the_repeated_hour_is_not_in_the_past() -> None:
    inside = local(BERLIN, "2026-10-25T02:10", fold=1)
    assert upcoming("30 2 * * *", BERLIN, inside, 1) == ["10-26 02:30+0100"]


def test_every_half_hour_keeps_its_pace_through_both_changes() -> None:
    spring = due_between("*/30 * * * *", BERLIN, at("2026-03-28T23:00"), at("2026-03-29T03:00"), 99)
    autumn = due_between("*/30 * * * *", BERLIN, at("2026-10-24T23:00"), at("2026-10-25T03:00"), 99)
    for dues in (spring, autumn):
        assert len(dues) == 8
        assert {later - sooner for sooner, later in pairwise(dues)} == {timedelta(minutes=30)}


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "due"),
    [
        ("30 */2 * * *", BERLIN, "2026-03-29T00:45", ["03-29 04:30+0200", "03-29 06:30+0200"]),
        ("*/30 2 * * *", BERLIN, "2026-03-28T12:00", ["03-30 02:00+0200"]),
        ("0 * * * *", LORD_HOWE, "2026-10-04T00:30", ["10-04 01:00+1030", "10-04 03:00+1100"]),
        ("*/15 5 * * *", LORD_HOWE, "2026-10-04T00:10", ["10-04 05:00+1100", "10-04 05:15+1100"]),
        ("*/30 0 * * 0", "America/Santiago", "2026-09-05T12:00", ["09-13 00:00-0300"]),
    ],
)
def test_a_star_job_skips_a_gap(expression: str, timezone: str, start: str, due: list[str]) -> None:
    assert upcoming(expression, timezone, local(timezone, start), len(due)) == due


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "due"),
    [
        ("0 * * * *", BERLIN, "2026-10-25T01:30", ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"]),
        ("*/30 1 * * *", LORD_HOWE, "2026-04-05T00:50", ["04-05 01:00+1100", "04-05 01:30+1100", "04-05 01:30+1030"]),
        ("*/15 2 * * *", LORD_HOWE, "2026-04-05T00:10", ["04-05 02:00+1030", "04-05 02:15+1030"]),
    ],
)
def test_a_star_job_repeats_in_an_overlap(expression: str, timezone: str, start: str, due: list[str]) -> None:
    assert upcoming(expression, timezone, local(timezone, start), len(due)) == due


# --- the oracle ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timezone", "year"), PLACES, ids=[place for place, _ in PLACES])
def test_random_expressions_agree_with_a_search_minute_by_minute(timezone: str, year: int) -> None:
    """The next fifty fires, and all within three days of each clock change of two years; `dev.py crontab` for more."""
    expressions, start = drawn(random.Random(f"20261121 {timezone}"), year, 155)
    assert disagreements(timezone, year, expressions, start) == []


def test_the_search_knows_how_crontab_reads_days_names_and_stars() -> None:
    """The oracle itself, by hand: it must not share a mistake with the code."""
    assert Rules.of("0 0 13 * fri").on(date(2026, 11, 13))
    assert Rules.of("0 0 14 * fri").on(date(2026, 11, 13))
    assert not Rules.of("0 0 */2 * sat").on(date(2026, 11, 14))
    assert Rules.of("0 0 * * 7").on(date(2026, 11, 15))
    assert Rules.of("5-9/2,30 */7 1 JAN,mar-may 1-5").minutes == {5, 7, 9, 30}
    assert [len(list(changes(zone, year))) for zone, year in PLACES] == [0, 4, 4, 4, 3, 1, 4, 4, 4, 4]


# --- for people -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 9 * * MON-FRI", "At 09:00, Monday through Friday (Europe/Berlin)"),
        ("0 0 1,15 * 1", "At 00:00, on day 1 and 15 of the month, or on Monday (Europe/Berlin)"),
        ("0 0 */16 * 1", "At 00:00, on day 1 and 17 of the month, and only on Monday (Europe/Berlin)"),
        ("0 0 */1 * 1", "At 00:00, only on Monday (Europe/Berlin)"),
        ("*/15 * * * *", "Every 15 minutes (Europe/Berlin)"),
        ("*/100 * * * *", "Every hour (Europe/Berlin)"),
        ("59/59 * * * *", "At 59 minutes past the hour (Europe/Berlin)"),
        ("*/45 * * * *", "At 0 and 45 minutes past the hour (Europe/Berlin)"),
        ("30/20 9 * * *", "At 30 and 50 minutes past the hour, at 09:00 (Europe/Berlin)"),
        ("5/15 * * * *", "Every 15 minutes, starting at 5 minutes past the hour (Europe/Berlin)"),
        ("*/30,7 * * * *", "At 0, 7, and 30 minutes past the hour (Europe/Berlin)"),
        ("0 */6 * * *", "Every 6 hours (Europe/Berlin)"),
        ("0 */10 * * *", "At 00:00, 10:00 and 20:00 (Europe/Berlin)"),
        ("0 0 1 */5 *", "At 00:00, on day 1 of the month, only in January, June, and November (Europe/Berlin)"),
        ("0 0 * * */2", "At 00:00, only on Sunday, Tuesday, Thursday, and Saturday (Europe/Berlin)"),
        ("0 0 * * */7", "At 00:00, only on Sunday (Europe/Berlin)"),
        ("@hourly", "Every hour (Europe/Berlin)"),
    ],
)
def test_a_schedule_is_said_in_words(expression: str, words: str) -> None:
    assert describe(expression, BERLIN) == words


def notes(expression: str, timezone: str, start: str, count: int) -> list[str | None]:
    return [due.note for due in preview(expression, timezone, count, local(timezone, start)).next]


def test_a_preview_shows_utc_and_wall_clock() -> None:
    shown = preview("0 9 * * *", BERLIN, 2, at("2026-11-20T00:00"))
    assert (shown.description, shown.timezone) == ("At 09:00 (Europe/Berlin)", BERLIN)
    assert [due.utc for due in shown.next] == [at("2026-11-20T08:00"), at("2026-11-21T08:00")]
    assert [due.local.isoformat() for due in shown.next] == ["2026-11-20T09:00:00+01:00", "2026-11-21T09:00:00+01:00"]
    assert [due.note for due in shown.next] == [None, None]


def test_a_preview_notes_clock_changes() -> None:
    forward = "clocks go forward 60 min on 2026-03-29 at 02:00"
    assert notes("0 9 * * *", BERLIN, "2026-03-28T00:00", 3) == [None, forward, None]
    swallowed = f"{forward}: 02:30 does not exist that day, so it runs right after"
    assert notes("30 2 * * *", BERLIN, "2026-03-28T00:00", 3) == [None, swallowed, None]
    assert notes("0 3 * * *", BERLIN, "2026-03-28T12:00", 1) == [forward]


def test_a_preview_notes_repeated_times() -> None:
    once = "02:30 comes twice on 2026-10-25; it runs at the first only"
    assert notes("30 2 * * *", BERLIN, "2026-10-24T12:00", 1) == [once]
    first, second, after = notes("0 * * * *", BERLIN, "2026-10-25T01:30", 3)
    assert first == "02:00 comes twice on 2026-10-25; this is the first"
    assert second == (
        "clocks go back 60 min on 2026-10-25 at 03:00; 02:00 comes twice on 2026-10-25; this is the second"
    )
    assert after is None


@pytest.mark.parametrize("expression", ["0 0 29 2 */7", "0 0 29 2 *", "0 0 1 1 *"])
def test_a_preview_looks_fifty_years_ahead_and_no_further(expression: str) -> None:
    start = at("2026-11-21")
    found = [due.utc for due in preview(expression, "UTC", 100, start).next]
    assert found == due_between(expression, "UTC", start, at("2076-11-21"), 100)
    assert 0 < len(found) <= 50
    assert preview("@yearly", "UTC", 5, at("2399-06-01")).next == []


def test_a_preview_notes_changes_that_are_a_month_apart() -> None:
    """Morocco puts its clocks back for Ramadan only."""
    back, forward = "clocks go back 60 min on 2026-02-15 at 03:00", "clocks go forward 60 min on 2026-03-22 at 02:00"
    assert notes("0 12 23 3 *", "Africa/Casablanca", "2026-02-14T12:00", 1) == [f"{back}; {forward}"]


def test_a_preview_of_rare_instants_counts_changes() -> None:
    assert notes("0 0 29 2 *", BERLIN, "2026-12-01T00:00", 2) == [
        "clocks go forward 60 min on 2027-03-28 at 02:00; clocks go back 60 min on 2027-10-31 at 03:00",
        "8 clock changes lie in between",
    ]
