"""web_search: find pages, through whichever provider the operator set."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
from bs4 import BeautifulSoup, Tag
from pydantic import Field, SecretStr

from app.egress import Response
from app.errors import EgressFailed, ToolError
from app.redaction import redact
from app.settings import Settings
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

TAVILY_URL = "https://api.tavily.com/search"
BRAVE_URL = "https://api.search.brave.com/res/v1/web/search"
DUCKDUCKGO_URL = "https://html.duckduckgo.com/html/"
# What a browser says that sends this form; without it the page is refused.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
}
MAX_RESULTS = 8
TIMEOUT_SECONDS = 15.0
MAX_SNIPPET_CHARACTERS = 500
MAX_TITLE_CHARACTERS = 300
MAX_SAID_CHARACTERS = 200
MAX_PAGE_CHARACTERS = 500_000

Hits = list[dict[str, str]]


class WebSearch(Arguments):
    """The arguments of `web_search`."""

    query: str = Field(min_length=1, max_length=400, description="What to look for, as in a search box.")


async def search(context: ToolContext, arguments: WebSearch) -> dict[str, Any]:
    """The first results of the configured provider."""
    provider = context.settings.search_provider
    if provider is None:
        raise ToolError("web_search is not set up: SEARCH_PROVIDER is unset")
    return {"query": arguments.query, "results": await PROVIDERS[provider](context, arguments.query)}


async def searxng(context: ToolContext, query: str) -> Hits:
    """Ask the operator's own SearXNG server, which may be on a private address.

    Its API: https://docs.searxng.org/dev/search_api.html
    """
    base = (context.settings.searxng_url or "").rstrip("/")
    url = str(httpx.URL(f"{base}/search", params={"q": query, "format": "json"}))
    response = await context.egress.fetch("GET", url, timeout_seconds=TIMEOUT_SECONDS, operator_url=True)
    if response.status == 403:
        raise EgressFailed("SearXNG answered 403: its settings.yml must list json under search.formats")
    answer = _answer(response, "SearXNG", "SEARXNG_URL")
    found = results(_listed(answer, "results", "SearXNG"), "content")
    if not found and (silent := answer.get("unresponsive_engines")):
        raise EgressFailed(f"SearXNG found nothing, for its engines failed: {str(silent)[:200]}")
    return found


async def tavily(context: ToolContext, query: str, url: str = TAVILY_URL) -> Hits:
    """Ask Tavily: https://docs.tavily.com/documentation/api-reference/endpoint/search."""
    key = _key(context.settings.tavily_api_key, "TAVILY_API_KEY")
    response = await context.egress.fetch(
        "POST",
        url,
        headers={"Authorization": f"Bearer {key}"},
        json={"query": query, "max_results": MAX_RESULTS},
        timeout_seconds=TIMEOUT_SECONDS,
    )
    answer = _answer(response, "Tavily", "TAVILY_API_KEY", key)
    return results(_listed(answer, "results", "Tavily"), "content")


async def brave(context: ToolContext, query: str, url: str = BRAVE_URL) -> Hits:
    """Ask Brave Search: https://api-dashboard.search.brave.com/app/documentation/web-search."""
    key = _key(context.settings.brave_api_key, "BRAVE_API_KEY")
    asked = {"q": query, "count": str(MAX_RESULTS), "text_decorations": "false"}
    response = await context.egress.fetch(
        "GET",
        str(httpx.URL(url, params=asked)),
        headers={"X-Subscription-Token": key, "Accept": "application/json"},
        timeout_seconds=TIMEOUT_SECONDS,
    )
    answer = _answer(response, "Brave", "BRAVE_API_KEY", key)
    web = answer.get("web", {"results": []})  # Left out when nothing was found.
    return results(_listed(as_object(web), "results", "Brave"), "description")


async def duckduckgo(context: ToolContext, query: str, url: str = DUCKDUCKGO_URL) -> Hits:
    """Ask DuckDuckGo's page for browsers without scripts: it has no interface for machines, and turns some away."""
    response = await context.egress.fetch(
        "POST",
        url,
        headers={"Content-Type": "application/x-www-form-urlencoded", "Referer": DUCKDUCKGO_URL} | BROWSER,
        content=str(httpx.QueryParams({"q": query, "b": "", "kl": ""})),
        timeout_seconds=TIMEOUT_SECONDS,
    )
    if response.status in (202, 403) or b"anomaly" in response.body:
        raise EgressFailed(
            "DuckDuckGo takes this server for a robot just now: try later, or set another SEARCH_PROVIDER"
        )
    _check(response, "DuckDuckGo", "SEARCH_PROVIDER")
    return results(await asyncio.to_thread(_read_page, response.text), "snippet")


def _read_page(page: str) -> list[dict[str, str]]:
    """The results of DuckDuckGo's page, without advertisements.

    Raises:
        EgressFailed: when it is another page.
    """
    soup = BeautifulSoup(page[:MAX_PAGE_CHARACTERS], "html.parser")
    links = [link for link in soup.select(".result:not(.result--ad) a.result__a[href]")]
    if not links and not soup.select_one(".no-results"):
        raise EgressFailed("DuckDuckGo answered with a page that holds no results")
    return [_read_link(link) for link in links]


def _read_link(link: Tag) -> dict[str, str]:
    block = link.find_parent(class_="result")
    snippet = block.select_one(".result__snippet") if block else None
    text = " ".join(snippet.get_text().split()) if snippet else ""
    return {"title": " ".join(link.get_text().split()), "url": _target(str(link["href"])), "snippet": text}


def _target(href: str) -> str:
    """Where a result leads: its own address, or the one inside DuckDuckGo's redirect. Empty for an advertisement."""
    try:
        address = httpx.URL(DUCKDUCKGO_URL).join(href)
    except (httpx.InvalidURL, ValueError):
        return ""
    if not (address.host == "duckduckgo.com" or address.host.endswith(".duckduckgo.com")):
        return str(address)
    return address.params.get("uddg", "")


PROVIDERS: dict[str, Callable[[ToolContext, str], Awaitable[Hits]]] = {
    "searxng": searxng,
    "tavily": tavily,
    "brave": brave,
    "duckduckgo": duckduckgo,
}


def results(items: list[Any], snippet: str) -> Hits:
    """A provider's results as ours: those with a web address, and only as much text as helps."""
    rows = [as_object(item) for item in items]
    return [_result(row, snippet) for row in rows if _is_web(row.get("url"))][:MAX_RESULTS]


def _result(row: dict[str, Any], snippet: str) -> dict[str, str]:
    title, text = str(row.get("title") or row["url"]), str(row.get(snippet) or "")
    return {"title": title[:MAX_TITLE_CHARACTERS], "url": row["url"], "snippet": text[:MAX_SNIPPET_CHARACTERS]}


def _is_web(address: Any) -> bool:
    return isinstance(address, str) and address.startswith(("http://", "https://"))


def as_object(value: Any) -> dict[str, Any]:
    """A JSON value as an object; one without members when it is something else."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _answer(response: Response, provider: str, setting: str, secret: str = "") -> dict[str, Any]:
    """A provider's answer as a JSON object.

    Raises:
        EgressFailed: saying who answered what, and what may help.
    """
    _check(response, provider, setting, secret)
    try:
        answer = response.json()
    except EgressFailed as error:
        raise EgressFailed(f"{provider} did not answer with JSON: {_said(response, secret)}") from error
    if not isinstance(answer, dict):
        raise EgressFailed(f"{provider} answered with JSON that is no object")
    return cast(dict[str, Any], answer)


def _check(response: Response, provider: str, setting: str, secret: str = "") -> None:
    status = response.status
    if status == 200:
        return
    if status in (401, 403):
        raise EgressFailed(f"{provider} answered {status}: check {setting} ({_said(response, secret)})")
    if status == 429:
        seconds = response.retry_after
        when = f"; it asks to wait {seconds:g} s" if seconds is not None else ""
        raise EgressFailed(f"{provider} answered 429: too many searches{when}", retry_after=seconds)
    raise EgressFailed(f"{provider} answered {status}: {_said(response, secret)}")


def _said(response: Response, secret: str) -> str:
    """The beginning of an answer that is no result, in words; a page is named as one."""
    # Blanked before it is cut: half a key is no longer recognised.
    whole: str = redact(response.text, [secret])
    text = " ".join(whole[:MAX_SAID_CHARACTERS].split())
    if not text or text.startswith("<"):
        return f"a page of the type {response.content_type or 'unknown'}" if text else "an empty answer"
    return text


def _listed(answer: dict[str, Any], name: str, provider: str) -> list[Any]:
    found = answer.get(name)
    if not isinstance(found, list):
        raise EgressFailed(f"{provider} answered without a list of {name}")
    return cast(list[Any], found)


def _key(value: SecretStr | None, setting: str) -> str:
    """A provider's key, fit for a header; one that is not would be quoted whole in the client's error."""
    key = value.get_secret_value().strip() if value else ""
    if not key or not key.isascii() or not key.isprintable():
        raise ToolError(f"web_search is not set up: {setting} is unset, or holds characters that no key has")
    return key


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
