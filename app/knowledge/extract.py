"""The program that reads PDF and HTML: a process of its own, which can be ended whatever a file does to its reader.

    python -m app.knowledge.extract KIND [URL] < FILE

It prints `{"text", "title", "pages"}`, of an article `{"text", "title", "published"}`, or `{"error"}` in words for whoever
sent the file.
"""

import contextlib
import json
import logging
import resource
import sys
from dataclasses import asdict
from io import BytesIO
from typing import Any

from pypdf import PdfReader
from pypdf.errors import DependencyError, PyPdfError

from app.knowledge.html import MAX_TITLE, article_of, declared_encoding, page_of

PDF, HTML, ARTICLE = "pdf", "html", "article"
CPU_SECONDS = {PDF: 30, HTML: 30, ARTICLE: 8}  # Somebody waits for an article.
MEMORY_BYTES = 1_500_000_000
MAX_PAGES = 3_000
MAX_CHARACTERS = 10_000_000
MAX_MARKUP = 6_000_000  # Parsing costs about a second per million characters.
GAP = "\n\n"


class Unfit(Exception):
    """Why a file is not read."""


def main(kind: str, url: str = "") -> None:
    """Read a file from the standard input and print what it says."""
    logging.disable()  # pypdf warns of every flaw it works round.
    _limit(resource.RLIMIT_CPU, CPU_SECONDS[kind])
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    print(json.dumps(extract(kind, sys.stdin.buffer.read(), url)))  # noqa: T201 - the answer


def extract(kind: str, content: bytes, url: str = "") -> dict[str, Any]:
    """What a file says, or the error in words."""
    try:
        if kind == ARTICLE:
            return asdict(article_of(content.decode(), url))
        return pdf(content) if kind == PDF else html(content)
    except Unfit as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "it takes too much memory to read"}
    except (PyPdfError, DependencyError) as error:
        return {"error": f"it is broken: {error}"[:300]}
    except Exception as error:  # noqa: BLE001 - a parser meets anything in a foreign file
        return {"error": f"it is broken ({type(error).__name__})"}


def pdf(content: bytes) -> dict[str, Any]:
    """The text of a PDF with the place where each page begins.

    Raises:
        Unfit: it is encrypted, too long, or holds no text.
    """
    reader = PdfReader(BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unfit("it is encrypted: send it without its password")
    if len(reader.pages) > MAX_PAGES:
        raise Unfit(f"it has more than {MAX_PAGES} pages")
    text, pages = _joined(page.extract_text() for page in reader.pages)
    if not text.strip():
        raise Unfit("it holds no text: pictures of pages are not read")
    title = reader.metadata.title if reader.metadata else None
    return {"text": text, "title": str(title or "")[:MAX_TITLE], "pages": pages}


def _joined(texts: Any) -> tuple[str, list[int]]:
    parts, pages, length = list[str](), list[int](), 0
    for text in texts:
        pages.append(length)
        parts.append(text.strip())
        length += len(parts[-1]) + len(GAP)
        if length > MAX_CHARACTERS:
            raise Unfit(f"its text has more than {MAX_CHARACTERS} characters")
    return GAP.join(parts), pages


def html(content: bytes) -> dict[str, Any]:
    """The text of a page as Markdown.

    Raises:
        Unfit: it is too long or holds no text.
    """
    markup = content.decode(declared_encoding(content), "replace")
    if len(markup) > MAX_MARKUP:
        raise Unfit(f"its markup has more than {MAX_MARKUP} characters")
    title, text = page_of(markup)
    if not text:
        raise Unfit("it holds no text")
    return {"text": text, "title": title, "pages": []}


def _limit(what: int, most: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # Not every system has every limit; the caller's clock stays.
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
