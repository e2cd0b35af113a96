"""Pages as a person would read them: Markdown without what acts or is not seen."""

from bs4 import BeautifulSoup
from markdownify import MarkdownConverter

INVISIBLE = ["script", "style", "noscript", "template", "svg", "iframe", "object", "embed", "head", "title"]
MAX_TITLE = 300


def page_of(markup: str) -> tuple[str, str]:
    """Title and text of an HTML page, the text as Markdown."""
    soup = BeautifulSoup(markup, "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for element in soup.find_all(INVISIBLE):
        element.decompose()
    return title[:MAX_TITLE], _squeezed(_markdown(soup))


def declared_encoding(body: bytes) -> str:
    """The encoding a page names inside; UTF-8 when it names none."""
    return BeautifulSoup(body[:4_096], "html.parser").original_encoding or "utf-8"


def _markdown(soup: BeautifulSoup) -> str:
    try:
        return MarkdownConverter(heading_style="ATX", strip=["img"]).convert_soup(soup)
    except RecursionError:
        return soup.get_text("\n", strip=True)


def _squeezed(text: str) -> str:
    """Without trailing blanks and with at most one empty line in a row."""
    lines: list[str] = []
    for line in (line.rstrip() for line in text.splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()
