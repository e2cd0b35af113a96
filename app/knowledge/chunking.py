"""A text is cut into chunks: at pages or headings, then paragraphs, then sentences, each chunk with its place in the text."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from app.knowledge.reading import HTML, MARKDOWN, Reading

# About 300 tokens: enough for an answer, and well within what every embedding model reads at once.
MOST, LEAST = 1_600, 700
OVERLAP = 160
MAX_HEADING = 300

# Bounded, for a line of a foreign text may have millions of characters.
HEADING = re.compile(r"^ {0,3}(?P<marks>#{1,6})[ \t]{1,9}(?P<title>\S[^\n]{0,299})$", re.MULTILINE)
UNDERLINED = re.compile(
    r"(?:\A|\n[ \t]{0,9}\n)(?P<title>[^\n#>|\s-][^\n]{0,299})\n(?P<marks>=+|-{3,})[ \t]*$", re.MULTILINE
)
FENCE = re.compile(r"^ {0,3}(?P<mark>```+|~~~+)[^\n]*$", re.MULTILINE)
SENTENCE = re.compile(r"[.!?][\"')\]]*\s")
BLANK = re.compile(r"\s")


@dataclass(frozen=True)
class Chunk:
    """A part of a text.

    Attributes:
        begins_at: Where in the text, in characters.
        ends_at: Behind its last character.
        heading: The headings above it, the outermost first.
        page: From 1 on; None where there are no pages.
    """

    begins_at: int
    ends_at: int
    heading: str
    page: int | None


@dataclass(frozen=True)
class Section:
    """What stands below one heading, or on one page."""

    begins_at: int
    ends_at: int
    heading: str
    page: int | None = None


def chunks_of(reading: Reading) -> list[Chunk]:
    """The chunks of a text in order; every word of it is in one."""
    return [
        Chunk(begins_at, ends_at, section.heading, section.page)
        for section in _sections_of(reading)
        for begins_at, ends_at in _cut(reading.text, section.begins_at, section.ends_at)
    ]


def _sections_of(reading: Reading) -> Iterator[Section]:
    length = len(reading.text)
    if reading.pages:  # No chunk goes over the end of its page, so that what it cites is right.
        ends = [*reading.pages[1:], length]
        for page, (begins_at, ends_at) in enumerate(zip(reading.pages, ends, strict=True), 1):
            yield Section(begins_at, ends_at, "", page)
    elif reading.media_type in (MARKDOWN, HTML):
        yield from _joined(reading.text, list(_sections(reading.text)))
    else:
        yield Section(0, length, "")


# --- headings ---------------------------------------------------------------------------------------


def _sections(text: str) -> Iterator[Section]:
    """The text from heading to heading."""
    above: list[tuple[int, str]] = []
    begins_at = 0
    for position, level, title in _headings(text):
        if position > begins_at:
            yield Section(begins_at, position, _path(above))
        above = [*(each for each in above if each[0] < level), (level, title)]
        begins_at = position
    yield Section(begins_at, len(text), _path(above))


def _path(above: list[tuple[int, str]]) -> str:
    return " > ".join(title for _, title in above)[:MAX_HEADING]


def _headings(text: str) -> list[tuple[int, int, str]]:
    """Position, level and title of every heading that does not stand in a fenced block."""
    fenced = _fences(text)
    found = [(match.start(), len(match["marks"]), match["title"].rstrip("# \t")) for match in HEADING.finditer(text)]
    found += [
        (match.start("title"), 1 if match["marks"][0] == "=" else 2, match["title"].strip())
        for match in UNDERLINED.finditer(text)
    ]
    begins = [begin for begin, _ in fenced]
    return sorted(each for each in found if not _within(fenced, begins, each[0]))


def _within(spans: list[tuple[int, int]], begins: list[int], position: int) -> bool:
    index = bisect_right(begins, position) - 1
    return index >= 0 and position < spans[index][1]


def _fences(text: str) -> list[tuple[int, int]]:
    """Where fenced blocks begin and end; one that is not closed goes to the end."""
    spans: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    for fence in FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence["mark"].startswith(opened["mark"]):
            spans.append((opened.start(), fence.end()))
            opened = None
    return [*spans, (opened.start(), len(text))] if opened else spans


def _joined(text: str, sections: list[Section]) -> Iterator[Section]:
    """The sections, one that is a heading alone as the beginning of the next."""
    begins_at: int | None = None
    for section in sections[:-1]:
        start = section.begins_at if begins_at is None else begins_at
        if _is_bare(text[section.begins_at : section.ends_at]):
            begins_at = start
            continue
        yield Section(start, section.ends_at, section.heading)
        begins_at = None
    last = sections[-1]
    yield Section(last.begins_at if begins_at is None else begins_at, last.ends_at, last.heading)


def _is_bare(section: str) -> bool:
    return not section.strip().partition("\n")[2].strip("=-\n\t ")


# --- lengths ----------------------------------------------------------------------------------------


def _cut(text: str, begins_at: int, ends_at: int) -> Iterator[tuple[int, int]]:
    """Pieces of at most `MOST` characters; each begins a little before the last one's end."""
    while ends_at - begins_at > MOST:
        cut = _end(text, begins_at)
        yield from _trimmed(text, begins_at, cut)
        begins_at = _again(text, cut)
    yield from _trimmed(text, begins_at, ends_at)


def _trimmed(text: str, begins_at: int, ends_at: int) -> Iterator[tuple[int, int]]:
    """Without blanks at its ends; nothing when that is all there is."""
    piece = text[begins_at:ends_at]
    stripped = piece.strip()
    if stripped:
        begins_at += len(piece) - len(piece.lstrip())
        yield begins_at, begins_at + len(stripped)


def _end(text: str, begins_at: int) -> int:
    """The best place to cut: behind a paragraph, a sentence, a line, a word, else anywhere."""
    first, last = begins_at + LEAST, begins_at + MOST
    paragraph = text.rfind("\n\n", first, last)
    if paragraph > 0:
        return paragraph
    sentences = [match.end() for match in SENTENCE.finditer(text, first, last)]
    if sentences:
        return sentences[-1]
    return max(text.rfind("\n", first, last), 0) or max(text.rfind(" ", first, last), 0) or last


def _again(text: str, cut: int) -> int:
    """Where the next piece begins: at a word within the overlap, where there is one."""
    blank = BLANK.search(text, cut - OVERLAP, cut)
    return blank.end() if blank else cut
