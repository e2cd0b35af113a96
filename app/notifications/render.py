"""A notice as a mail: HTML and plain text from the templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from typing import Any

from css_inline import CSSInliner
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from app.notifications.files import File
from app.notifications.notice import OUTCOMES, Notice
from app.notifications.text import one_line, plain, safe_html
from app.notifications.words import answering, body_of, headline, in_plain, signature, why

MAX_SUBJECT = 150
BY_MAIL = "To answer, reply to this mail: your words reach the conversation, and its answer comes back in this thread."
ENDS = OUTCOMES - {"waiting"}


@dataclass(frozen=True)
class Mail:
    """The parts of a mail that are for the reader."""

    subject: str
    text: str
    html: str


def render_mail(
    notice: Notice,
    files: Sequence[File] = (),
    *,
    mute_url: str | None = None,
    by_mail: bool = False,
    decision_urls: Sequence[str] = (),
) -> Mail:
    """Subject, plain text and HTML of a notice.

    Args:
        notice: What is told.
        files: Shown as links.
        mute_url: Where its receiver unsubscribes.
        by_mail: Whether an answer to the mail reaches the conversation.
        decision_urls: Where its questions are decided, in their order.
    """
    body = body_of(notice)
    words: dict[str, Any] = _words(notice) | {
        "files": files,
        "mute_url": mute_url,
        "decisions": _decisions(notice, decision_urls),
    }
    if by_mail:
        words["answering"] = BY_MAIL
    text = _templates().get_template("notice.txt.j2").render(words, body=plain(body_of(notice, in_plain)))
    html = _templates().get_template("notice.html.j2").render(words, body=Markup(safe_html(body)))  # noqa: S704 - sanitised
    return Mail(_subject(notice) or words["headline"], text, _inliner().inline(html))


def _subject(notice: Notice) -> str:
    """Of an answer to a mail: that mail's, so that both stand in one thread."""
    subject = one_line(str((notice.thread or {}).get("subject") or ""), MAX_SUBJECT)
    return subject if not subject or subject.lower().startswith("re:") else f"Re: {subject}"


def _decisions(notice: Notice, urls: Sequence[str]) -> list[tuple[str, str]]:
    """What each link decides, in words."""
    words = {"question": "Answer the question", "effect": "Say whether it happened"}
    asked = [
        words.get(each["kind"]) or f"Approve or deny {one_line(each['tool'] or each['kind'], 60)}"
        for each in notice.asked
    ]
    return list(zip(asked, urls, strict=False))


def _words(notice: Notice) -> dict[str, Any]:
    at = notice.finished_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if notice.finished_at else ""
    return {
        "headline": one_line(headline(notice), MAX_SUBJECT),
        "signature": one_line(signature(notice), 500),
        "when": at and f"{'Finished' if notice.rule in ENDS else 'At'} {at}.",
        "read_url": notice.read_url,
        "api_url": notice.api_url,
        "answering": answering(notice),
        "why": why(notice),
    }


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("app.notifications"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _inliner() -> CSSInliner:
    return CSSInliner(load_remote_stylesheets=False)
