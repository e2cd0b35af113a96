"""fetch_url against real pages on loopback."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.errors import EgressRefused, ToolError
from app.knowledge import html, reading
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
    for part in ("# Tea", "Is **good**.", "* green", "| 1 | 2 |"):
        assert part in found["text"]
    for part in ("steal", "more()", "color", "no script", "hidden", "tracker", "coffee", "Home"):
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
    found = await fetch(context, site.url())
    text = found["text"]
    assert found["truncated"] is True
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


ARTICLE = "The harbour was closed on Monday after a storm had damaged two cranes. Nobody was hurt. " * 6
MENU = "".join(f'<li><a href="/topic/{n}">Topic {n}</a></li>' for n in range(20))
SEMANTIC = f"""<html><head><title>Harbour closed</title><meta property="article:published_time" content="2026-03-04T05:06:00Z">
</head><body class="has-sidebar"><header><a href="/">The Paper</a></header><nav><ul>{MENU}</ul></nav>
<div id="cookie-banner">We value your privacy. <button>Accept all</button></div>
<main><div class="breadcrumbs"><a href="/a">News</a> / <a href="/b">North</a></div>
<article><header><h1>Harbour closed</h1></header><p>{ARTICLE}</p><p>See <a href="../more?x=1#y">the report</a> and
<a href="#top">the top</a>, <a href="javascript:x()">a script</a>.</p></article>
<div class="share-buttons"><a href="https://social.example">Share this</a></div></main>
<aside>Weather: rain</aside><section class="related-articles"><a href="/1">You may also like</a></section>
<footer>Imprint, terms</footer></body></html>"""
SOUP = f"""<html><head><title>Harbour</title><script type="application/ld+json">{{"@type": "NewsArticle",
"datePublished": "2026-03-04"}}</script></head><body><div class="wrap"><div class="top"><ul class="x">{MENU}</ul></div>
<div class="c1"><h1>Harbour closed</h1><div>{ARTICLE}</div><ul><li>Two cranes are damaged, says the office</li>
<li><a href="/oslo">Ferries</a> go to Lübeck instead, until further notice</li></ul></div>
<div class="site-footer">Imprint, terms</div></div></body></html>"""
LINKS = f'<html><body><h1>All topics</h1><ul>{MENU}</ul><div class="menu">Accept all</div></body></html>'


@pytest.mark.parametrize("markup", [SEMANTIC, SOUP], ids=["semantic", "divs"])
async def test_an_article_comes_without_what_stands_round_it(site: Site, context: Context, markup: str) -> None:
    site.answers["/news/today"] = answer(markup.encode(), Content_Type="text/html; charset=utf-8")
    found = await fetch(context, site.url("/news/today"))
    assert found["published"].startswith("2026-03-04")
    assert found["text"].startswith("# Harbour closed")
    assert ARTICLE.strip() in found["text"]
    for part in ("Topic 3", "privacy", "Accept", "News", "Share", "Weather", "also like", "Imprint", "javascript"):
        assert part not in found["text"], part
    assert found["truncated"] is False


async def test_links_of_an_article_are_whole(site: Site, context: Context) -> None:
    site.answers["/news/today"] = answer(SEMANTIC.encode(), Content_Type="text/html; charset=utf-8")
    text = (await fetch(context, site.url("/news/today")))["text"]
    assert f"[the report]({site.url('/more?x=1#y')})" in text
    assert "the top, a script" in text


async def test_a_page_of_links_keeps_them(site: Site, context: Context) -> None:
    site.answers["/"] = answer(LINKS.encode(), Content_Type="text/html")
    found = await fetch(context, site.url())
    assert f"[Topic 19]({site.url('/topic/19')})" in found["text"]
    assert "published" not in found


async def test_a_page_made_to_take_long_is_given_up(
    site: Site, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read by a process that is ended; nothing of it is parsed in this one."""
    monkeypatch.setattr(reading, "ARTICLE_SECONDS", 0.5)
    for parser in ("article_of", "page_of"):
        monkeypatch.setattr(html, parser, lambda *_: pytest.fail("parsed here"))
    site.answers["/"] = answer(b"<p class=ad>x" * 70_000, Content_Type="text/html")
    with pytest.raises(ToolError, match=r"the page of 127\.0\.0\.1: the file can't be read: it takes too long"):
        await fetch(context, site.url())


async def test_a_pdf_document_is_read(site: Site, context: Context) -> None:
    site.answers["/a.pdf"] = answer(pdf("Tea is good."), Content_Type="application/pdf")
    site.answers["/b"] = answer(pdf("Tea is good."))
    for path in ("/a.pdf", "/b"):
        assert "Tea is good." in (await fetch(context, site.url(path)))["text"]
    site.answers["/c"] = answer(b"%PDF-1.7 broken", Content_Type="application/pdf")
    with pytest.raises(ToolError, match=r"the PDF document of 127\.0\.0\.1: the file can't be read"):
        await fetch(context, site.url("/c"))


def pdf(text: str) -> bytes:
    """A document of one page with one line."""
    content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length " + str(len(content)).encode() + b" >>\nstream\n" + content + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    made, places = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(bodies, 1):
        places.append(len(made))
        made += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    end = f"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n{len(made)}\n%%EOF".encode()
    return made + b"xref\n0 6\n0000000000 65535 f \n" + table + end


async def test_files_that_are_no_text_are_refused(site: Site, context: Context) -> None:
    site.answers["/"] = answer(b"\x89PNG", Content_Type="image/png")
    with pytest.raises(ToolError, match="sent image/png"):
        await fetch(context, site.url())


async def test_hostile_markup_ends(site: Site, context: Context) -> None:
    site.answers["/deep"] = answer(b"<div>" * 20_000 + b"deep", Content_Type="text/html")
    site.answers["/menus"] = answer(b"<div class=menu><ul><a href=x>" * 3_000 + b"deep", Content_Type="text/html")
    site.answers["/junk"] = answer(bytes(range(256)) * 40, Content_Type="text/html")
    assert "deep" in (await fetch(context, site.url("/deep")))["text"]
    assert "deep" in (await fetch(context, site.url("/menus")))["text"]
    assert (await fetch(context, site.url("/junk")))["status"] == 200


@pytest.mark.parametrize("url", ["http://localhost/", "file:///etc/passwd", "notaurl", "http://10.0.0.1/"])
async def test_refused_addresses_are_named(context: Context, url: str) -> None:
    with pytest.raises(EgressRefused, match="egress: refused"):
        await fetch(context, url)
