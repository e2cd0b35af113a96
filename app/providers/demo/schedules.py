"""Schedules said in words, as the demo model understands them."""

import re
from typing import NamedTuple

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")

_WISH = re.compile(r"^\s*(?:please\s+)?every\b|\b(?:schedule|remind me|set up)\b", re.IGNORECASE)
_CRON = re.compile(r"(?<![^\s`\"'])(?:[\d*/,-]+\s+){4}[\d*/,A-Za-z-]+(?![^\s`\"'.])")
_TIME = re.compile(
    r"\bat\s+(?:(?P<word>noon|midnight)|(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s*(?P<half>am|pm)?(?:\s*o'clock)?)\b",
    re.IGNORECASE,
)
_RHYTHM = re.compile(
    r"\b(?:(?:every|each)\s+(?:(?P<count>\d+)\s+)?"
    r"(?P<unit>minutes?|hours?|days?|morning|evening|weekdays?|weeks?|months?|" + "|".join(_DAYS) + r")s?"
    r"|(?P<adverb>hourly|daily|weekly|monthly))\b",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"^(?:\W*(?:please|schedule|remind me|set up|a task|a job|task|job|to|that|and|me)\b)+\W*", re.IGNORECASE
)


class Schedule(NamedTuple):
    """A crontab expression and what to do then."""

    expression: str
    prompt: str


def read_schedule(text: str) -> Schedule | None:
    """The schedule a person asks for, or None."""
    if not _WISH.search(text):
        return None
    if cron := _CRON.search(text):
        return Schedule(cron[0].strip(), _rest(text, cron))
    rhythm, time = _RHYTHM.search(text), _TIME.search(text)
    if rhythm is None:
        return None
    hour, minute = _clock(time, 18 if "evening" in rhythm[0].lower() else 9)
    return Schedule(_expression(rhythm, hour, minute), _rest(text, rhythm, time))


def _expression(rhythm: re.Match[str], hour: int, minute: int) -> str:
    unit = (rhythm["unit"] or rhythm["adverb"]).lower()
    count = int(rhythm["count"] or 1)
    at = f"{minute} {hour}"
    if unit.startswith("minute"):
        return "* * * * *" if count == 1 else f"*/{count} * * * *"
    if unit.startswith("hour"):
        return "0 * * * *" if count == 1 else f"0 */{count} * * *"
    if unit in _DAYS or unit.startswith("week"):
        return f"{at} * * {_weekday(unit)}"
    if unit.startswith("month"):
        return f"{at} 1 * *"
    return f"{at} * * *" if count == 1 else f"{at} */{count} * *"


def _weekday(unit: str) -> str:
    if unit.startswith("weekday"):
        return "1-5"
    return str(_DAYS.index(unit)) if unit in _DAYS else "1"


def _clock(time: re.Match[str] | None, default: int) -> tuple[int, int]:
    if time is None:
        return default, 0
    if time["word"]:
        return (12 if time["word"].lower() == "noon" else 0), 0
    hour, half = int(time["hour"]), (time["half"] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return min(hour, 23), min(int(time["minute"] or 0), 59)


def _rest(text: str, *taken: re.Match[str] | None) -> str:
    """What is to be done: the text without the schedule and the asking."""
    for match in sorted((each for each in taken if each), key=lambda each: -each.start()):
        text = f"{text[: match.start()]} {text[match.end() :]}"
    text = " ".join(text.split())
    return _FILLER.sub("", text).strip(" ,.;:`\"'") or "Say that the time has come."
