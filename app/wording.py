"""What is said of a value that does not fit: short words, the same everywhere, and what would be right."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

INSTANT = "should be a time with its offset, such as 2026-01-31T09:00:00Z"
# By pydantic's types of errors; what is not here it says well enough itself.
WORDS = {
    "missing": "is required",
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "should be an object"),
    **dict.fromkeys(("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "timezone_aware"), INSTANT),
}


def said(error: Mapping[str, Any]) -> str:
    """One error of a failed validation in our words.

    Args:
        error: A member of `ValidationError.errors()`.
    """
    if error["type"] == "extra_forbidden":
        return f"there is no field {str(error['loc'][-1])!r} here"
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return WORDS.get(error["type"]) or text[:1].lower() + text[1:]


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that is spelled most like one that is not known."""
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.75)), None)
