"""web_search against stand-ins that speak the providers' protocols on loopback."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.errors import EgressFailed, EgressRefused, ToolError
from app.tools import BUILT_IN
from app.tools.web_search import MAX_RESULTS, brave, results, tavily
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
    site.answers["/search"] = as_json({"results": [{"title": "T", "url": "https://t.example/", "content": "x" * 900}]})
    found = await tavily(context, "tea", site.url("/search"))
    assert (found[0]["url"], len(found[0]["snippet"])) == ("https://t.example/", 500)
    assert "authorization: bearer k1" in site.heads[0].lower()
    assert json.loads(site.bodies[0])["query"] == "tea"
    await context.egress.aclose()


async def test_brave_gets_the_key_and_the_query(site: Site) -> None:
    context = Context.of(search_provider="brave", brave_api_key="k2", parley_egress_allow=f"127.0.0.1:{site.port}")
    hit = {"title": "B", "url": "https://b.example/", "description": "about b"}
    site.answers[f"/web?q=tea&count={MAX_RESULTS}"] = as_json({"web": {"results": [hit]}})
    found = await brave(context, "tea", site.url("/web"))
    assert found == [{"title": "B", "url": "https://b.example/", "snippet": "about b"}]
    assert "x-subscription-token: k2" in site.heads[0].lower()
    await context.egress.aclose()


async def test_a_providers_refusal_is_a_named_failure(site: Site) -> None:
    context = Context.of(search_provider="searxng", searxng_url=site.url())
    site.answers["/search?q=tea&format=json"] = as_json({"detail": "no"}, "429 Too Many Requests")
    with pytest.raises(EgressFailed, match="SearXNG answered 429"):
        await CALL(context, {"query": "tea"})
    site.answers["/search?q=tea&format=json"] = answer(b"<html>")
    with pytest.raises(EgressFailed, match="did not answer with JSON"):
        await CALL(context, {"query": "tea"})
    await context.egress.aclose()


async def test_without_a_provider_it_says_so() -> None:
    with pytest.raises(ToolError, match="SEARCH_PROVIDER"):
        await CALL(Context.of(), {"query": "tea"})


@pytest.mark.parametrize("junk", [None, {}, "x", [1, None, {}, {"url": 5}, {"url": "javascript:x"}]])
def test_junk_gives_no_results(junk: Any) -> None:
    assert results(junk, "content") == []


def test_results_are_few() -> None:
    many = [{"url": f"https://x/{n}"} for n in range(50)]
    assert results(many, "content")[0] == {"title": "https://x/0", "url": "https://x/0", "snippet": ""}
    assert len(results(many, "content")) == MAX_RESULTS
