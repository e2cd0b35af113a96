"""A notice as a mail: HTML and plain text from the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cache
from typing import Any

from css_inline import CSSInliner
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from app.notifications.files import File
from app.notifications.notice import OUTCOMES, Notice
from app.notifications.text import one_line, plain, safe_html
from app.notifications.words import answering, body_of, elsewhere, headline, in_plain, question_of, signature, why

MAX_SUBJECT = 150
BY_MAIL = "To answer, reply to this mail: your words reach the conversation, and its answer comes back in this thread."
BY_LINK = "Decide by the link; a reply to this mail does not decide."
BY_LINK_OR_MAIL = "Decide about the call by the link; a reply to this mail answers the question."
NOT_BY_MAIL = "A reply to this mail does not decide."
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
        decision_urls: Where its questions are decided, in their order; none for whom they are not to be decided by.
    """
    if notice.asked:
        notice = replace(notice, text=_asked(notice, decides=bool(decision_urls), by_mail=by_mail))
    body = body_of(notice)
    words: dict[str, Any] = _words(notice) | {
        "files": files,
        "mute_url": mute_url,
        "decisions": _decisions(notice, decision_urls),
    }
    if any(_is_call(each) for each in notice.asked):
        words["answering"] = _deciding(notice, decides=bool(decision_urls), by_mail=by_mail)
    elif by_mail:
        words["answering"] = BY_MAIL
    text = _templates().get_template("notice.txt.j2").render(words, body=plain(body_of(notice, in_plain)))
    html = _templates().get_template("notice.html.j2").render(words, body=Markup(safe_html(body)))  # noqa: S704 - sanitised
    return Mail(_subject(notice) or words["headline"], text, _inliner().inline(html))


def _subject(notice: Notice) -> str:
    """Of an answer to a mail: that mail's, so that both stand in one thread."""
    subject = one_line(str((notice.thread or {}).get("subject") or ""), MAX_SUBJECT)
    return subject if not subject or subject.lower().startswith("re:") else f"Re: {subject}"


def _is_call(asked: Mapping[str, Any]) -> bool:
    """Whether it is about a call, which is decided, rather than a question, which words answer."""
    return asked["kind"] != "question"


def _asked(notice: Notice, *, decides: bool, by_mail: bool) -> str:
    """The questions as one sees them who decides, or may answer; POST lines are for programs."""
    told = [question_of(each) if decides or not _is_call(each) else elsewhere(each) for each in notice.asked]
    waits = [] if decides or by_mail else ["This waits for somebody else."]
    return "\n\n".join([*told, *waits])


def _deciding(notice: Notice, *, decides: bool, by_mail: bool) -> str:
    """How calls are decided."""
    if not decides:
        return NOT_BY_MAIL
    return BY_LINK if not by_mail or all(map(_is_call, notice.asked)) else BY_LINK_OR_MAIL


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
