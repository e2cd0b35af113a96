"""What the headers of a mail say: whom it is from, whether somebody vouches for that, and whether a machine sent it.

Whoever sent it has written most of them. Nothing here takes longer than it takes to read a header once, and where two
programs could read one differently it says nothing.
"""

import re
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from app.notifications.config import ADDRESS, Address

Headers = dict[str, list[str]]

MAX_ADDRESS = 320  # 64 before the @, 255 behind it (RFC 5321).

# An address, or one in <> behind a name of words, quoted strings and comments (RFC 5322). What else could be read as two
# addresses is none: a server may have vouched for the other one (CVE-2023-27043).
NAME = r'(?:[^"()\\<>\[\]@,;:\x00-\x1f\x7f]|"(?:[^"\\]|\\.)*+"|\([^"()\\<>@]*+\))*+'
MAILBOX = re.compile(f"(?P<bare>{ADDRESS.pattern})|{NAME}<(?P<named>{ADDRESS.pattern})>")
CHECKED: TypeAdapter[str] = TypeAdapter(Address)
BETWEEN = re.compile(r'[\s,;:<>()"]+')
# What is not a header's own word: quoted strings, the last of which may lack its end, and comments.
ASIDE = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\([^()"]*+\)', re.DOTALL)
DMARC = re.compile(r"\bdmarc\s*(?:/\s*\d+\s*)?=\s*([a-z]*)")
# What a mail says that no person sent: RFC 3834, and what servers said before it and besides.
AUTOMATIC_HEADERS = ("x-autoreply", "x-autorespond", "x-auto-response-suppress", "list-id", "feedback-id")
BULK = ("bulk", "junk", "list", "auto_reply")
MACHINES = re.compile(r"(mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?)([+=-].*)?", re.IGNORECASE)


def collected(headers: Iterable[tuple[str, str]]) -> Headers:
    """All the values of each header, by its name in lower case: one may be there several times, and each counts."""
    found: Headers = {}
    for name, value in headers:
        found.setdefault(name.strip().lower(), []).append(value)
    return found


def mailbox_of(header: str) -> str | None:
    """The one address that a header names; None when it names none, several, or one that is not plain ASCII."""
    found = MAILBOX.fullmatch(" ".join(header.split()))
    try:
        return CHECKED.validate_python(found["bare"] or found["named"]) if found else None
    except ValidationError:  # It is too long.
        return None


def addresses_in(header: str) -> list[str]:
    """What may be addresses in a header of receivers: one of ours proves itself by its token."""
    return [part.lower() for part in BETWEEN.split(header) if "@" in part and len(part) <= MAX_ADDRESS]


def dmarc_results(headers: Headers) -> tuple[str, ...]:
    """The results in the headers `Authentication-Results`, in lower case; "" for a header without one."""
    return tuple(result for value in headers.get("authentication-results", []) for result in _results(value))


def _results(value: str) -> list[str]:
    """Those of one header. A failure counts wherever it stands: what is quoted may begin where a sender wanted it to."""
    said = DMARC.findall(_plain(value)) or [""]
    return [*said, *(result for result in DMARC.findall(value.lower()) if result != "pass")]


def why_automatic(headers: Headers, sender: str | None, envelope_from: str | None) -> str | None:
    """Why a mail is a machine's: nobody answers one, so that two machines never answer each other."""

    def said(name: str) -> list[str]:
        return [_plain(value).partition(";")[0].strip() for value in headers.get(name, [])]

    if any(value != "no" for value in said("auto-submitted")):
        return "it says that it was sent automatically (Auto-Submitted)"
    if any(value in BULK for value in said("precedence")):
        return "it is bulk mail (Precedence)"
    if found := next((name for name in AUTOMATIC_HEADERS if name in headers), None):
        return f"it was sent by a machine ({found})"
    if any(name.startswith("x-parley-") for name in headers):
        return "it is a mail of our own"
    if envelope_from is not None and not envelope_from.strip().strip("<>"):
        return "it has no return path, as bounces have"
    if "multipart/report" in said("content-type") or MACHINES.fullmatch((sender or "").partition("@")[0]):
        return "it is a report of a mail server"
    return None


def _plain(value: str) -> str:
    """A header's value without quoted strings and comments, nor one more layer of these, in lower case."""
    return ASIDE.sub(" ", ASIDE.sub(" ", value)).strip().lower()
