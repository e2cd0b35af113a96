"""Files become text with positions. What could hang or eat memory is read by a process that can be ended."""

import asyncio
import json
import os
import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.errors import UnreadableDocument
from app.knowledge.html import Article
from app.shares import Shares

PLAIN, MARKDOWN, HTML, PDF = "text/plain", "text/markdown", "text/html", "application/pdf"
# By how a name ends, for uploads that come without a type or with one that says nothing.
ENDINGS = {
    ".txt": PLAIN,
    ".text": PLAIN,
    ".log": PLAIN,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".htm": HTML,
    ".html": HTML,
    ".xhtml": HTML,
    ".pdf": PDF,
}
SAYS_NOTHING = frozenset({"", "application/octet-stream", "binary/octet-stream"})
ALIASES = {"text/x-markdown": MARKDOWN, "application/xhtml+xml": HTML, "application/x-pdf": PDF}
KINDS = {PDF: "pdf", HTML: "html"}
ARTICLE = "article"
WALL_SECONDS = 60.0  # Longer than the reader's own limit of CPU time, for a machine that is busy.
ARTICLE_SECONDS = 20.0
READERS = 2  # At once, one for each workspace, and as many for articles: neither waits for the other.
MAX_CHARACTERS = 10_000_000

_readers, _articles = Shares(READERS, 1), Shares(READERS, 1)


@dataclass(frozen=True)
class Reading:
    """What a file says.

    Attributes:
        text: All of it.
        media_type: What it was read as.
        title: What it calls itself; empty when it does not say.
        pages: Where in the text each page begins; empty when it has none.
    """

    text: str
    media_type: str
    title: str = ""
    pages: tuple[int, ...] = ()


def media_type_of(given: str | None, name: str, content: bytes, *, field: str) -> str:
    """What a file is: what it was said to be, else what its name or its first bytes say.

    Raises:
        UnreadableDocument: it is of a type that is not read.
    """
    said = (given or "").partition(";")[0].strip().lower()
    said = ALIASES.get(said, said)
    if said in SAYS_NOTHING:
        ending = os.path.splitext(name.lower())[1]
        said = PDF if content.startswith(b"%PDF-") else ENDINGS.get(ending, said or PLAIN)
    if said in (PLAIN, MARKDOWN, HTML, PDF):
        return said
    if said.startswith("text/"):
        return PLAIN
    raise UnreadableDocument(f"{said} is not read: send text, Markdown, HTML or PDF", field=field)


async def read(content: bytes, media_type: str, *, field: str, workspace_id: UUID | None = None) -> Reading:
    """The text of a file.

    Raises:
        UnreadableDocument: naming the field, with the reason in words.
    """
    if media_type in KINDS:
        return await _read_apart(content, media_type, field, workspace_id)
    return checked(Reading(decoded(content, field=field), media_type), field=field)


def decoded(content: bytes, *, field: str) -> str:
    """Text of its bytes: UTF-8, or UTF-16 where it says so itself.

    Raises:
        UnreadableDocument: it is neither.
    """
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8"
    try:
        return content.removeprefix(BOM_UTF8).decode(encoding)
    except UnicodeDecodeError as error:
        said = f"it is no {encoding.upper()} text (byte {error.start}): save it as UTF-8"
        raise UnreadableDocument(said, field=field) from error


def checked(reading: Reading, *, field: str) -> Reading:
    """The reading, if it can be kept.

    Raises:
        UnreadableDocument: it is empty, too long, or holds NUL.
    """
    if "\x00" in reading.text:
        raise UnreadableDocument("it holds NUL characters: it is no text", field=field)
    if not reading.text.strip():
        raise UnreadableDocument("it holds no text", field=field)
    if len(reading.text) > MAX_CHARACTERS:
        raise UnreadableDocument(f"its text has more than {MAX_CHARACTERS} characters", field=field)
    return reading


async def _read_apart(content: bytes, media_type: str, field: str, workspace_id: UUID | None) -> Reading:
    found = await _extracted(content, (KINDS[media_type],), field, workspace_id)
    reading = Reading(_storable(found["text"]), media_type, _storable(found["title"]), tuple(found["pages"]))
    return checked(reading, field=field)


def _storable(text: str) -> str:
    """Text of a font's odd mapping, character for character, so that positions stay."""
    text = text.replace("\x00", " ")
    return text if text.isascii() else "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in text)


async def read_article(markup: str, url: str, *, field: str, workspace_id: UUID | None = None) -> Article:
    """What a web page is about, read apart: few strangers' pages at once, and none for long.

    Raises:
        UnreadableDocument: naming the field, with the reason in words.
    """
    found = await _extracted(markup.encode(errors="replace"), (ARTICLE, url), field, workspace_id)
    return Article(**{name: _storable(text) for name, text in found.items()})


async def _extracted(content: bytes, asked: tuple[str, ...], field: str, workspace_id: UUID | None) -> dict[str, Any]:
    is_article = asked[0] == ARTICLE
    async with (_articles if is_article else _readers).place(workspace_id):
        # Nothing of our environment: a foreign file is read there.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.knowledge.extract", *asked),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            async with asyncio.timeout(ARTICLE_SECONDS if is_article else WALL_SECONDS):
                said, _ = await process.communicate(content)
        except TimeoutError as error:
            raise UnreadableDocument("the file can't be read: it takes too long", field=field) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode != 0 or not said:
        raise UnreadableDocument("the file can't be read: it takes too much time or memory", field=field)
    read = await asyncio.to_thread(json.loads, said)
    if "error" in read:
        raise UnreadableDocument(f"the file can't be read: {read['error']}", field=field)
    return read
