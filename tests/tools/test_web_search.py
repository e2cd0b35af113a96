"""web_search against stand-ins that speak the providers' protocols on loopback."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.errors import EgressFailed, EgressRefused, ToolError
from app.tools import BUILT_IN
from app.tools.web_search import MAX_RESULTS, brave, duckduckgo, results, tavily
from tests.loopback import Site, answer, serving
from tests.tools.context import Context

CALL = BUILT_IN["web_search"].call


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


def as_json(value: Any, status: str = "200 OK") -> bytes:
    return answer(json.dumps(value).encode(), status, Content_Type="application/json")


async def test_searxng_may_be_private_but_stays_out_of_reach_otherwise(site: Site) -> None:
    context = Context.of(search_provider="searxng", searxng_url=site.url("/sx/"))
    hits = [{"title": "A & B", "url": "https://a.example/", "content": "about a"}, {"title": "bad", "url": "ftp://x"}]
    site.answers["/sx/search?q=caf%C3%A9+%26+tea&format=json"] = as_json({"results": hits})
    assert await CALL(context, {"query": "café & tea"}) == {
        "query": "café & tea",
        "results": [{"title": "A & B", "url": "https://a.example/", "snippet": "about a"}],
    }
    with pytest.raises(EgressRefused):
        await BUILT_IN["fetch_url"].call(context, {"url": site.url()})
    await context.egress.aclose()


async def test_tavily_gets_the_key_and_the_query(site: Site) -> None:
    context = Context.of(search_provider="tavily", tavily_api_key="k1", parley_egress_allow=f"127.0.0.1:{site.port}")
    hit = {"title": "T", "url": "https://t.example/", "content": "x" * 900, "score": 0.9, "raw_content": None}
    site.answers["/search"] = as_json({"query": "tea", "images": [], "results": [hit], "response_time": 1.1})
    found = await tavily(context, "tea", site.url("/search"))
    assert (found[0]["url"], len(found[0]["snippet"])) == ("https://t.example/", 500)
    assert "authorization: bearer k1" in site.heads[0].lower()
    assert json.loads(site.bodies[0]) == {"query": "tea", "max_results": MAX_RESULTS}
    await context.egress.aclose()


async def test_brave_gets_the_key_and_the_query(site: Site) -> None:
    context = Context.of(search_provider="brave", brave_api_key="k2", parley_egress_allow=f"127.0.0.1:{site.port}")
    hit = {"title": "B", "url": "https://b.example/", "description": "about b", "type": "search_result"}
    path = f"/web?q=tea&count={MAX_RESULTS}&text_decorations=false"
    site.answers[path] = as_json({"type": "search", "query": {"original": "tea"}, "web": {"results": [hit]}})
    found = await brave(context, "tea", site.url("/web"))
    assert found == [{"title": "B", "url": "https://b.example/", "snippet": "about b"}]
    assert "x-subscription-token: k2" in site.heads[0].lower()
    site.answers[path] = as_json({"type": "search", "query": {"original": "tea"}})
    assert await brave(context, "tea", site.url("/web")) == []
    await context.egress.aclose()


DUCKS = """<html><body><div id="links" class="results">
<div class="result results_links results_links_deep result--ad"><h2 class="result__title">
  <a class="result__a" href="https://duckduckgo.com/y.js?ad_domain=ad.example">Buy tea</a></h2></div>
<div class="result results_links results_links_deep web-result"><div class="links_main links_deep result__body">
  <h2 class="result__title"><a rel="nofollow" class="result__a"
    href="//duckduckgo.com/l/?uddg=https%3A%2F%2Ftea.example%2Fgreen%3Fa%3D1%26b&amp;rut=abc">Green <b>tea</b></a></h2>
  <a class="result__snippet" href="//duckduckgo.com/l/?uddg=x">All about
    <b>green</b> tea &amp; more.</a></div></div>
<div class="result web-result"><h2><a class="result__a" href="https://plain.example/">Plain</a></h2></div>
<div class="result web-result"><h2><a class="result__a" href="javascript:alert(1)">Script</a></h2></div>
<div class="result web-result"><h2><a class="result__a" href="//duckduckgo.com/l/?uddg=file%3A%2F%2F%2Fetc">File</a></h2></div>
</div></body></html>"""


async def test_duckduckgos_page_is_read(site: Site) -> None:
    context = Context.of(search_provider="duckduckgo", parley_egress_allow=f"127.0.0.1:{site.port}")
    site.answers["/html/"] = answer(DUCKS.encode(), Content_Type="text/html; charset=UTF-8")
    assert await duckduckgo(context, "café & tea", site.url("/html/")) == [
        {"title": "Green tea", "url": "https://tea.example/green?a=1&b", "snippet": "All about green tea & more."},
        {"title": "Plain", "url": "https://plain.example/", "snippet": ""},
    ]
    assert site.bodies[0] == b"q=caf%C3%A9+%26+tea&b=&kl="
    site.answers["/html/"] = answer(b'<div class="no-results">No results.</div>', Content_Type="text/html")
    assert await duckduckgo(context, "tea", site.url("/html/")) == []
    await context.egress.aclose()


@pytest.mark.parametrize(
    ("said", "status", "headers", "expected"),
    [
        (b"<form id=challenge-form class=anomaly-modal>", "202 Accepted", {}, "takes this server for a robot"),
        (b"<div class=anomaly-modal>", "200 OK", {}, "takes this server for a robot"),
        (b"<h1>Home</h1>", "200 OK", {"Content_Type": "text/html"}, "a page that holds no results"),
        (b"", "302 Found", {"Location": "http://169.254.169.254/"}, "DuckDuckGo answered 302: an empty answer"),
        (b"", "503 Service Unavailable", {}, "DuckDuckGo answered 503"),
    ],
)
async def test_duckduckgos_refusals_are_told(
    site: Site, said: bytes, status: str, headers: dict[str, str], expected: str
) -> None:
    context = Context.of(search_provider="duckduckgo", parley_egress_allow=f"127.0.0.1:{site.port}")
    site.answers["/html/"] = answer(said, status, **headers)
    with pytest.raises(EgressFailed, match=expected):
        await duckduckgo(context, "tea", site.url("/html/"))
    assert len(site.heads) == 1
    await context.egress.aclose()


@pytest.mark.parametrize(
    ("said", "status", "headers", "expected"),
    [
        (b'{"detail": "bad key k-secret"}', "401 Unauthorized", {}, r"answered 401: check (TAVILY|BRAVE)_API_KEY"),
        (b'{"detail": {"error": "plan limit"}}', "432 Plan Limit", {}, "answered 432: .*plan limit"),
        (
            b"slow down",
            "429 Too Many Requests",
            {"Retry_After": "7"},
            "answered 429: too many searches; it asks to wait 7 s",
        ),
        (b"slow down", "429 Too Many Requests", {"Retry_After": "tomorrow"}, "answered 429: too many searches$"),
        (b"<html>oops</html>", "500 Oops", {"Content_Type": "text/html"}, "answered 500: a page of the type text/html"),
        (b"", "502 Bad Gateway", {}, "answered 502: an empty answer"),
        (b"", "301 Moved", {"Location": "http://169.254.169.254/"}, "answered 301"),
        (b"<html>login</html>", "200 OK", {"Content_Type": "text/html"}, "did not answer with JSON: a page"),
        (b'{"results": [', "200 OK", {}, "did not answer with JSON"),
        (b"[" * 100_000, "200 OK", {}, "did not answer with JSON"),
        (b"[]", "200 OK", {}, "JSON that is no object"),
        (b'{"results": 5, "web": 5}', "200 OK", {}, "without a list of results"),
        (b'{"results": {}, "web": {}}', "200 OK", {}, "without a list of results"),
    ],
)
@pytest.mark.parametrize("provider", [tavily, brave])
async def test_every_failure_is_named(
    site: Site, provider: Any, said: bytes, status: str, headers: dict[str, str], expected: str
) -> None:
    context = Context.of(
        tavily_api_key="k-secret", brave_api_key="k-secret", parley_egress_allow=f"127.0.0.1:{site.port}"
    )
    paths = ("/search", f"/search?q=tea&count={MAX_RESULTS}&text_decorations=false")
    site.answers |= dict.fromkeys(paths, answer(said, status, **headers))
    with pytest.raises(EgressFailed, match=expected) as caught:
        await provider(context, "tea", site.url("/search"))
    assert "k-secret" not in caught.value.detail
    assert caught.value.retry_after == (7 if "7 s" in expected else None)
    assert len(site.heads) == 1, "a redirect is not followed"
    await context.egress.aclose()


async def test_searxngs_own_failures_are_told(site: Site) -> None:
    context = Context.of(search_provider="searxng", searxng_url=site.url())
    site.answers["/search?q=tea&format=json"] = answer(b"<h1>Forbidden</h1>", "403 Forbidden")
    with pytest.raises(EgressFailed, match=r"must list json under search\.formats"):
        await CALL(context, {"query": "tea"})
    site.answers["/search?q=tea&format=json"] = as_json({"results": [], "unresponsive_engines": [["bing", "timeout"]]})
    with pytest.raises(EgressFailed, match=r"its engines failed: .*bing"):
        await CALL(context, {"query": "tea"})
    site.answers["/search?q=tea&format=json"] = as_json({"results": [], "unresponsive_engines": []})
    assert (await CALL(context, {"query": "tea"}))["results"] == []
    await context.egress.aclose()


async def test_a_provider_that_is_silent_or_away_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tools.web_search.TIMEOUT_SECONDS", 0.2)
    context = Context.of(tavily_api_key="k", parley_egress_allow=f"127.0.0.1:{site.port},127.0.0.1:1")
    with pytest.raises(EgressFailed, match=r"did not answer within 0\.2 s"):
        await tavily(context, "tea", site.url("/slow"))
    with pytest.raises(EgressFailed, match=r"127\.0\.0\.1 failed"):
        await tavily(context, "tea", "http://127.0.0.1:1/search")
    await context.egress.aclose()


async def test_without_a_provider_it_says_so() -> None:
    with pytest.raises(ToolError, match="SEARCH_PROVIDER"):
        await CALL(Context.of(), {"query": "tea"})


@pytest.mark.parametrize("key", ["k\nsecret", "k\x7fsecret", "ksecr€t", "  "])
async def test_a_key_that_is_none_is_not_shown(key: str) -> None:
    with pytest.raises(ToolError, match="TAVILY_API_KEY is unset, or holds") as caught:
        await tavily(Context.of(tavily_api_key=key), "tea", "http://127.0.0.1:1/")
    assert "secr" not in caught.value.detail


def test_rows_that_are_no_results_are_left_out() -> None:
    assert results([1, None, {}, [], {"url": 5}, {"url": "javascript:x"}], "content") == []


def test_results_are_few() -> None:
    many = [{"url": f"https://x/{n}"} for n in range(50)]
    assert results(many, "content")[0] == {"title": "https://x/0", "url": "https://x/0", "snippet": ""}
    assert len(results(many, "content")) == MAX_RESULTS
