"""fetch_url: read a web page, a PDF document or a text by its address."""

from typing import Any
from uuid import UUID

import httpx
from pydantic import Field

from app.egress import Response
from app.errors import ToolError, UnreadableDocument
from app.knowledge import reading
from app.knowledge.html import Article, declared_encoding
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

TIMEOUT_SECONDS = 15.0
MAX_CHARACTERS = 20_000
MAX_HTML_CHARACTERS = 1_000_000  # reading them costs some seconds
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
        headers={"Accept": "text/html, text/plain, application/json, application/pdf;q=0.9, */*;q=0.5"},
        timeout_seconds=TIMEOUT_SECONDS,
        follow_redirects=True,
    )
    article = await readable(response, context.workspace_id)
    return {
        "url": response.url,
        "title": article.title,
        **({"published": article.published} if article.published else {}),
        "text": shortened(article.text),
        "truncated": len(article.text) > MAX_CHARACTERS,
        "status": response.status,
    }


async def readable(response: Response, workspace_id: UUID) -> Article:
    """What an answer says.

    Raises:
        ToolError: it is neither a page, a PDF document nor text, or can't be read.
    """
    kind = response.content_type
    if kind == reading.PDF or (kind in reading.SAYS_NOTHING and response.body.startswith(b"%PDF-")):
        return await _document(response, workspace_id)
    if kind in HTML_TYPES or (not kind and response.body.lstrip()[:1] == b"<"):
        return await _article(response, workspace_id)
    if not kind or kind.startswith("text/") or kind in TEXT_TYPES or kind.endswith(TEXT_SUFFIXES):
        return Article("", response.text, "")
    raise ToolError(f"fetch_url reads pages, PDF documents and text; {httpx.URL(response.url).host} sent {kind}")


async def _article(response: Response, workspace_id: UUID) -> Article:
    try:
        return await reading.read_article(_markup(response), response.url, field="url", workspace_id=workspace_id)
    except UnreadableDocument as error:
        raise ToolError(f"the page of {httpx.URL(response.url).host}: {error.detail}") from error


async def _document(response: Response, workspace_id: UUID) -> Article:
    try:
        document = await reading.read(response.body, reading.PDF, field="url", workspace_id=workspace_id)
    except UnreadableDocument as error:
        raise ToolError(f"the PDF document of {httpx.URL(response.url).host}: {error.detail}") from error
    return Article(document.title, document.text, "")


def _markup(response: Response) -> str:
    """The markup in its declared encoding; pages without one say it inside, or are UTF-8."""
    if "charset" in response.headers.get("content-type", "").lower():
        return response.text[:MAX_HTML_CHARACTERS]
    return response.body.decode(declared_encoding(response.body), "replace")[:MAX_HTML_CHARACTERS]


def shortened(text: str) -> str:
    """As much of a text as a model should read at once, with a note when that is not all."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n\n[Cut here: these are the first {MAX_CHARACTERS} of {len(text)} characters.]"


TOOL = Tool(
    name="fetch_url",
    description=(
        "Read a web page, PDF document or text file by its address. Pages come as Markdown without navigation and notices; "
        "20,000 characters at most."
    ),
    parameters=parameters_of(FetchUrl),
    risk=Risk.READ,
    idempotent=True,
    call=validated(FetchUrl, read),
    timeout_seconds=40.0,  # A long PDF document takes its time.
)
