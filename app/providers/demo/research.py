"""How the demo model plays its parts in a research job: looking a question up, writing the report."""

import re
from typing import NamedTuple

from app.providers.demo.turn import Call, Turn

MAX_PAGES = 2

_QUESTION = re.compile(r"^\W*(?:sub-?question|question)\b[^:\n]{0,20}:\s*(?P<text>\S.*)$", re.IGNORECASE | re.MULTILINE)
_TOPIC = re.compile(
    r"(?:^\W*|[.!?]\s+)(?:topic|subject|task|request)\b[^:\n]{0,20}:\s*(?P<text>\S.*)$", re.IGNORECASE | re.MULTILINE
)
_ABOUT = re.compile(r"\b(?:research(?: on| into| about)?|about|on|into)\s+(?P<text>[^\n.?!:;]{3,80})", re.IGNORECASE)
_RESEARCH = re.compile(r"\b(?:sub-?question|research|sources?|cite|citations?)\b", re.IGNORECASE)
_REPORT = re.compile(r"\b(?:report|synthesi[sz]e|synthesis)\b", re.IGNORECASE)
_SOURCE = re.compile(r"^[ \t>*-]*\[(?P<number>\d+)\][ \t:]*(?P<title>\S.*)$", re.MULTILINE)
_SOURCE_LIST = re.compile(
    r"\b(?:list of|list the|list its|end with)\b.{0,20}\bsources|\bsources? (?:list|section)", re.IGNORECASE
)
_URL = re.compile(r"https?://[^\s<>\"')\];\\]*[^\s<>\"')\];\\.,:!?]")


class Cited(NamedTuple):
    """A numbered source of the prompt and what stands below it."""

    number: int
    title: str
    url: str
    note: str


def topic_of(prompt: str) -> str:
    """A few words for what a prompt is about."""
    match = _TOPIC.search(prompt) or _QUESTION.search(prompt) or _ABOUT.search(prompt)
    text = match["text"] if match else prompt.strip().partition("\n")[0]
    return _clipped(text.strip(" .?!:;\"'"), 80) or "the request"


def lookup(turn: Turn) -> Call | None:
    """The next search or page for a question that is to be answered from sources."""
    if not _RESEARCH.search(turn.wish) or sources(turn.prompt):
        return None
    if "web_search" in turn.tools and not turn.results:
        question = _QUESTION.search(turn.wish)
        return Call(
            "web_search", {"query": _clipped(question["text"].strip() if question else topic_of(turn.wish), 200)}
        )
    return _next_page(turn) if "fetch_url" in turn.tools else None


def report(turn: Turn) -> str | None:
    """A cited report, when the prompt asks for one and numbers its sources."""
    if not _REPORT.search(turn.wish):
        return None
    found = sources(turn.prompt)
    if not found:
        return _without_sources(turn)
    topic = topic_of(turn.earlier[0] if turn.earlier else turn.wish)
    lines = [
        f"# {topic[:1].upper()}{topic[1:]}",
        "",
        f"What {len(found)} sources say, in their own words.",
        "",
        "## Findings",
        "",
    ]
    lines += [f"- {source.title}: {source.note or 'read for this report'} [{source.number}]" for source in found]
    if _SOURCE_LIST.search(turn.wish):
        lines += [
            "",
            "## Sources",
            "",
            *(f"[{source.number}] {source.title} {source.url}".rstrip() for source in found),
        ]
    return "\n".join(lines)


def _without_sources(turn: Turn) -> str | None:
    """The honest report of a job that could read nothing; None when there was no such job."""
    asked = [match["text"].strip() for prompt in turn.earlier if (match := _QUESTION.search(prompt))]
    if not asked:
        return None
    topic = topic_of(turn.earlier[0])
    return "\n".join(
        [
            f"# {topic[:1].upper()}{topic[1:]}",
            "",
            "No page could be read, so nothing here is answered. Set SEARCH_PROVIDER to let agents search the web, "
            "or name pages in the request.",
            "",
            "## Open questions",
            "",
            *(f"- {question}" for question in asked),
        ]
    )


def sources(prompt: str) -> list[Cited]:
    """The sources a prompt numbers as `[1] Title https://...`, with the text below each."""
    marks = [mark for mark in _SOURCE.finditer(prompt) if _URL.search(mark["title"])]
    ends = [*(mark.start() for mark in marks[1:]), len(prompt)]
    return [_cited(mark, prompt[mark.end() : end]) for mark, end in zip(marks, ends, strict=False)]


def _cited(mark: re.Match[str], below: str) -> Cited:
    url = _URL.search(mark["title"])
    title = _URL.sub("", mark["title"]).strip(" -\u2013\u2014()<>:|,") or (url[0] if url else "")
    note = below.strip().partition("\n\n")[0] if below.startswith("\n") and not below.startswith("\n\n") else ""
    return Cited(int(mark["number"]), title, url[0] if url else "", _clipped(re.sub(r"[<\[].*?[>\]]", "", note), 200))


def _next_page(turn: Turn) -> Call | None:
    read = {result.arguments.get("url") for result in turn.results if result.tool == "fetch_url"}
    if len(read) >= MAX_PAGES:
        return None
    found = [url for result in turn.results if result.tool == "web_search" for url in _URL.findall(str(result.content))]
    url = next((url for url in [*_URL.findall(turn.wish), *found] if url not in read), None)
    return Call("fetch_url", {"url": url}) if url else None


def _clipped(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3].rstrip()}..."
