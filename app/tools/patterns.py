"""Regular expressions of schemas, matched by RE2: the time grows with the text, whatever the pattern.

Python's own engine tries one way after another: `^(a+)+$` and thirty letters would hold a process for minutes. RE2 has
neither look-around nor references back, so a pattern with these is refused.
"""

import re
from functools import lru_cache
from typing import Any, cast

import re2 as untyped_re2  # pyright: ignore[reportMissingTypeStubs]

re2 = cast(Any, untyped_re2)

MAX_PATTERN = 1_000  # Characters.
MAX_PROGRAM = 5_000  # Instructions of a pattern, repetitions written out.
MEMORY_BYTES = 2**18  # Of a pattern with the states it has been through; `KEPT` patterns are held.
KEPT = 128
# ECMAScript writes \u4e00 where RE2 writes \x{4e00}; a backslash before anything else stays with what it escapes.
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


class PatternRefused(ValueError):
    """What is wrong with a pattern, in words."""


class Pattern:
    """A regular expression that can be asked of any text."""

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            PatternRefused: it is none, too large, or asks for what RE2 has not.
        """
        if len(text) > MAX_PATTERN:
            raise PatternRefused(f"the pattern {text[:60]!r}... is longer than {MAX_PATTERN} characters")
        try:
            self._compiled = re2.compile(_of_re2(text).encode(), _options())
        except (re2.error, UnicodeError) as error:
            said = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else "it is no text"
            raise PatternRefused(f"the pattern {text[:60]!r} can't be used: {said}{_hint(text)}") from error
        self.size = int(self._compiled.programsize)
        if self.size > MAX_PROGRAM:
            raise PatternRefused(f"the pattern {text[:60]!r} is too large with its repetitions written out")

    def found_in(self, text: str) -> bool:
        """Whether it matches anywhere in a text."""
        return self._compiled.search(text.encode(errors="replace")) is not None


@lru_cache(KEPT)
def pattern_of(text: str) -> Pattern:
    """The pattern, read once.

    Raises:
        PatternRefused: it can't be used.
    """
    return Pattern(text)


def _options() -> Any:
    options = re2.Options()
    options.log_errors, options.never_capture, options.max_mem = False, True, MEMORY_BYTES
    return options


def _of_re2(text: str) -> str:
    return ESCAPE.sub(lambda found: rf"\x{{{found[1]}}}" if found[1] else found[0], text)


def _hint(text: str) -> str:
    if re.search(r"\(\?<?[=!]|\\[1-9]|\\k<", text):
        return " (look-around and references back are not offered)"
    return ""
