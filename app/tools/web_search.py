"""web_search: find pages, through whichever provider the operator set."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
from pydantic import Field, SecretStr

from app.egress import Response
from app.errors import EgressFailed, ToolError
from app.settings import Settings
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

TAVILY_URL = "https://api.tavily.com/search"
BRAVE_URL = "https://api.search.brave.com/res/v1/web/search"
MAX_RESULTS = 8
TIMEOUT_SECONDS = 15.0
MAX_SNIPPET_CHARACTERS = 500

Found = list[dict[str, str]]


class WebSearch(Arguments):
    """The arguments of `web_search`."""

    query: str = Field(min_length=1, max_length=400, description="What to look for, as in a search box.")


async def search(context: ToolContext, arguments: WebSearch) -> dict[str, Any]:
    """The first results of the configured provider."""
    provider = context.settings.search_provider
    if provider is None:
        raise ToolError("web_search is not set up: SEARCH_PROVIDER is unset")
    return {"query": arguments.query, "results": await PROVIDERS[provider](context, arguments.query)}


async def searxng(context: ToolContext, query: str) -> Found:
    """Ask the operator's own SearXNG server, which may be on a private address."""
    base = (context.settings.searxng_url or "").rstrip("/")
    url = str(httpx.URL(f"{base}/search", params={"q": query, "format": "json"}))
    response = await context.egress.fetch("GET", url, timeout_seconds=TIMEOUT_SECONDS, operator_url=True)
    return results(_answer(response, "SearXNG").get("results"), "content")


async def tavily(context: ToolContext, query: str, url: str = TAVILY_URL) -> Found:
    """Ask Tavily."""
    response = await context.egress.fetch(
        "POST",
        url,
        headers={"Authorization": f"Bearer {_secret(context.settings.tavily_api_key)}"},
        json={"query": query, "max_results": MAX_RESULTS},
        timeout_seconds=TIMEOUT_SECONDS,
    )
    return results(_answer(response, "Tavily").get("results"), "content")


async def brave(context: ToolContext, query: str, url: str = BRAVE_URL) -> Found:
    """Ask Brave Search."""
    response = await context.egress.fetch(
        "GET",
        str(httpx.URL(url, params={"q": query, "count": str(MAX_RESULTS)})),
        headers={"X-Subscription-Token": _secret(context.settings.brave_api_key), "Accept": "application/json"},
        timeout_seconds=TIMEOUT_SECONDS,
    )
    web = as_object(_answer(response, "Brave").get("web"))
    return results(web.get("results"), "description")


async def duckduckgo(context: ToolContext, query: str) -> Found:
    """Ask DuckDuckGo through its scraping client, in a thread."""
    del context
    return results(await asyncio.to_thread(_duckduckgo, query), "body", "href")


def _duckduckgo(query: str) -> list[dict[str, str]]:
    from ddgs.ddgs import DDGS  # a native HTTP client that few installations need
    from ddgs.exceptions import DDGSException

    try:
        return DDGS(timeout=int(TIMEOUT_SECONDS)).text(query, max_results=MAX_RESULTS, backend="duckduckgo")
    except DDGSException as error:
        raise EgressFailed(f"DuckDuckGo did not answer: {error}") from error


PROVIDERS: dict[str, Callable[[ToolContext, str], Awaitable[Found]]] = {
    "searxng": searxng,
    "tavily": tavily,
    "brave": brave,
    "duckduckgo": duckduckgo,
}


def results(items: Any, snippet: str, url: str = "url") -> Found:
    """A provider's results as ours: those with a web address, and only as much text as helps."""
    rows = [as_object(item) for item in cast(list[Any], items)] if isinstance(items, list) else []
    return [_result(row, snippet, url) for row in rows if _is_web(row.get(url))][:MAX_RESULTS]


def _result(row: dict[str, Any], snippet: str, url: str) -> dict[str, str]:
    text = str(row.get(snippet) or "")[:MAX_SNIPPET_CHARACTERS]
    return {"title": str(row.get("title") or row[url]), "url": row[url], "snippet": text}


def _is_web(address: Any) -> bool:
    return isinstance(address, str) and address.startswith(("http://", "https://"))


def as_object(value: Any) -> dict[str, Any]:
    """A JSON value as an object; one without members when it is something else."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _answer(response: Response, provider: str) -> dict[str, Any]:
    if response.status != 200:
        raise EgressFailed(f"{provider} answered {response.status}: {response.text[:200]}")
    return as_object(response.json())


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""


def available(settings: Settings) -> bool:
    """Whether a provider is set and has what it needs."""
    needed = {
        "searxng": settings.searxng_url,
        "tavily": settings.tavily_api_key,
        "brave": settings.brave_api_key,
        "duckduckgo": True,
    }
    return settings.search_provider is not None and bool(needed[settings.search_provider])


TOOL = Tool(
    name="web_search",
    description="Search the web. Gives titles, addresses and snippets; read a page with fetch_url.",
    parameters=parameters_of(WebSearch),
    risk=Risk.READ,
    idempotent=True,
    call=validated(WebSearch, search),
    timeout_seconds=20.0,
    available=available,
)
