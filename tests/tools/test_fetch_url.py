"""fetch_url against real pages on loopback."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.errors import EgressRefused, ToolError
from app.tools import BUILT_IN
from tests.loopback import Site, answer, serving
from tests.tools.context import Context

PAGE = """<!doctype html><html><head><title> Tea
 &amp; coffee </title><style>p {color: red}</style><script>steal()</script></head>
<body><nav><a href="/home">Home</a></nav><h1>Tea</h1><p>Is <b>good</b>.</p><script>more()</script>
<ul><li>green</li><li>black</li></ul><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
<noscript>no script</noscript><img src="http://tracker/x.png"><template>hidden</template></body></html>"""


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


@pytest.fixture
async def context(site: Site) -> AsyncIterator[Context]:
    context = Context.of(parley_egress_allow=f"127.0.0.1:{site.port}")
    yield context
    await context.egress.aclose()


async def fetch(context: Context, url: str) -> dict[str, Any]:
    return await BUILT_IN["fetch_url"].call(context, {"url": url})


async def test_a_page_becomes_markdown(site: Site, context: Context) -> None:
    site.answers["/"] = answer(PAGE.encode(), Content_Type="text/html; charset=utf-8")
    found = await fetch(context, site.url())
    assert (found["url"], found["title"], found["status"]) == (site.url(), "Tea & coffee", 200)
    for part in ("# Tea", "Is **good**.", "* green", "| 1 | 2 |", "[Home](/home)"):
        assert part in found["text"]
    for part in ("steal", "more()", "color", "no script", "hidden", "tracker", "coffee"):
        assert part not in found["text"]


async def test_text_and_json_come_as_they_are(site: Site, context: Context) -> None:
    site.answers["/a"] = answer("<b>grün</b>".encode("latin-1"), Content_Type="text/plain; charset=latin-1")
    site.answers["/b"] = answer(b'{"a": [1, 2]}', Content_Type="application/json")
    site.answers["/c"] = answer(b"plain")
    texts = [(await fetch(context, site.url(path)))["text"] for path in ("/a", "/b", "/c")]
    assert texts == ["<b>grün</b>", '{"a": [1, 2]}', "plain"]


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=iso-8859-1"])
async def test_pages_say_their_encoding_in_header_or_markup(site: Site, context: Context, kind: str) -> None:
    markup = '<meta charset="iso-8859-1"><title>grün</title><p>süß'.encode("latin-1")
    site.answers["/"] = answer(markup, Content_Type=kind)
    found = await fetch(context, site.url())
    assert (found["title"], found["text"]) == ("grün", "süß")


async def test_a_long_text_is_cut_with_a_note(site: Site, context: Context) -> None:
    site.answers["/"] = answer(b"x" * 50_000, Content_Type="text/plain")
    text = (await fetch(context, site.url()))["text"]
    assert text.startswith("x" * 20_000 + "\n\n[Cut here")
    assert "first 20000 of 50000 characters" in text


async def test_errors_of_the_site_are_told(site: Site, context: Context) -> None:
    found = await fetch(context, site.url("/missing"))
    assert (found["status"], found["text"]) == (404, "not here")


async def test_redirects_are_followed_and_checked(site: Site, context: Context) -> None:
    site.answers["/"] = answer(b"", "302 Found", Location="/there")
    site.answers["/there"] = answer(b"arrived", Content_Type="text/plain")
    assert (await fetch(context, site.url()))["url"] == site.url("/there")
    site.answers["/"] = answer(b"", "302 Found", Location="http://169.254.169.254/latest")
    with pytest.raises(EgressRefused, match="egress: refused 169"):
        await fetch(context, site.url())


async def test_files_that_are_no_text_are_refused(site: Site, context: Context) -> None:
    site.answers["/"] = answer(b"%PDF", Content_Type="application/pdf")
    with pytest.raises(ToolError, match="sent application/pdf"):
        await fetch(context, site.url())


async def test_hostile_markup_ends(site: Site, context: Context) -> None:
    site.answers["/deep"] = answer(b"<div>" * 20_000 + b"deep", Content_Type="text/html")
    site.answers["/junk"] = answer(bytes(range(256)) * 40, Content_Type="text/html")
    assert "deep" in (await fetch(context, site.url("/deep")))["text"]
    assert (await fetch(context, site.url("/junk")))["status"] == 200


@pytest.mark.parametrize("url", ["http://localhost/", "file:///etc/passwd", "notaurl", "http://10.0.0.1/"])
async def test_refused_addresses_are_named(context: Context, url: str) -> None:
    with pytest.raises(EgressRefused, match="egress: refused"):
        await fetch(context, url)
