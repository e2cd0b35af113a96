"""fetch_url: read a web page as text."""

import asyncio
from typing import Any

import httpx
from bs4 import BeautifulSoup
from markdownify import MarkdownConverter
from pydantic import Field

from app.egress import Response
from app.errors import ToolError
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

TIMEOUT_SECONDS = 15.0
MAX_CHARACTERS = 20_000
MAX_HTML_CHARACTERS = 1_500_000  # parsing costs about a second per million
INVISIBLE = ["script", "style", "noscript", "template", "svg", "iframe", "object", "embed", "head", "title"]
HTML_TYPES = ("text/html", "application/xhtml+xml")
TEXT_TYPES = (
    "application/json",
    "application/xml",
    "application/javascript",
    "application/yaml",
    "application/x-ndjson",
)
TEXT_SUFFIXES = ("+json", "+xml", "+yaml")


class FetchUrl(Arguments):
    """The arguments of `fetch_url`."""

    url: str = Field(min_length=1, max_length=4_000, description="An http or https address.")


async def read(context: ToolContext, arguments: FetchUrl) -> dict[str, Any]:
    """Fetch the page and give what a person would read of it."""
    response = await context.egress.fetch(
        "GET",
        arguments.url,
        headers={"Accept": "text/html, text/plain, application/json, */*;q=0.5"},
        timeout_seconds=TIMEOUT_SECONDS,
        follow_redirects=True,
    )
    title, text = await asyncio.to_thread(readable, response)
    return {"url": response.url, "title": title, "text": shortened(text), "status": response.status}


def readable(response: Response) -> tuple[str, str]:
    """Title and text of an answer.

    Raises:
        ToolError: it is neither a page nor text.
    """
    kind = response.content_type
    if kind in HTML_TYPES or (not kind and response.body.lstrip()[:1] == b"<"):
        return page(response)
    if not kind or kind.startswith("text/") or kind in TEXT_TYPES or kind.endswith(TEXT_SUFFIXES):
        return "", response.text
    raise ToolError(f"fetch_url reads pages and text; {httpx.URL(response.url).host} sent {kind}")


def page(response: Response) -> tuple[str, str]:
    """Title and text of an HTML page, the text as Markdown."""
    soup = BeautifulSoup(_html(response), "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for element in soup.find_all(INVISIBLE):
        element.decompose()
    return title[:300], _squeezed(_markdown(soup))


def _html(response: Response) -> str:
    """The markup in its declared encoding; pages without one say it inside, or are UTF-8."""
    if "charset" in response.headers.get("content-type", "").lower():
        return response.text[:MAX_HTML_CHARACTERS]
    from_page = BeautifulSoup(response.body[:4_096], "html.parser").original_encoding
    return response.body.decode(from_page or "utf-8", "replace")[:MAX_HTML_CHARACTERS]


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


def shortened(text: str) -> str:
    """As much of a text as a model should read at once, with a note when that is not all."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n\n[Cut here: these are the first {MAX_CHARACTERS} of {len(text)} characters.]"


TOOL = Tool(
    name="fetch_url",
    description="Read a web page or text file by its address. Pages come as Markdown, cut at 20,000 characters.",
    parameters=parameters_of(FetchUrl),
    risk=Risk.READ,
    idempotent=True,
    call=validated(FetchUrl, read),
    timeout_seconds=20.0,
)
