"""Pages as a person would read them: Markdown without what acts or is not seen."""

import re
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urljoin

from bs4 import BeautifulSoup, Tag
from markdownify import MarkdownConverter

INVISIBLE = ["script", "style", "noscript", "template", "svg", "iframe", "object", "embed", "head", "title"]
MAX_TITLE = 300

# What stands round an article: by element, by role, and by the words that sites use in classes and ids.
AROUND = (
    "nav, footer, aside, dialog, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], "
    "[role=complementary], [role=search], [role=dialog], [role=alertdialog], [role=menu], body > header, body > * > header"
)
NOISE = re.compile(
    r"(^|[-_ ])(cookies?|consent|gdpr|newsletter|subscribe|breadcrumbs?|sidebar|share|sharing|social|related|recommended|"
    r"advert\w*|ads?|promo\w*|popup|modal|banner|skip|menu|navbar|nav|navigation|footer|comments|disqus)($|[-_ ])",
    re.IGNORECASE,
)
MAX_NOISE = 100  # Elements looked at; a page made to have more is read with them.
MOST = 0.4  # What holds more of the page's text is no noise, whatever it is called.
ENOUGH = 200  # Characters with which a text is one.
LINKS_OF_A_LIST = 0.7
PUBLISHED = (
    ("meta[property='article:published_time']", "content"),
    ("meta[itemprop=datePublished]", "content"),
    ("meta[name=date], meta[name=pubdate], meta[name='dc.date'], meta[name='DC.date.issued']", "content"),
    ("time[itemprop=datePublished], time[pubdate], article time[datetime], main time[datetime]", "datetime"),
)
LD_PUBLISHED = re.compile(r'"datePublished"\s*:\s*"([^"]{4,40})"')
ISO_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?)?)?")


@dataclass(frozen=True)
class Article:
    """What a page is about.

    Attributes:
        title: What it calls itself.
        text: As Markdown, without what stands round it; links lead to whole addresses.
        published: When, in ISO form, where the page says so; else empty.
    """

    title: str
    text: str
    published: str


def page_of(markup: str) -> tuple[str, str]:
    """Title and text of an HTML page, the text as Markdown."""
    soup = BeautifulSoup(markup, "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for element in soup.find_all(INVISIBLE):
        element.decompose()
    return title[:MAX_TITLE], _squeezed(_markdown(soup))


def article_of(markup: str, url: str) -> Article:
    """What a page is about, without navigation, notices and the like.

    Args:
        markup: HTML.
        url: Where it came from, for the links in it.
    """
    soup = BeautifulSoup(markup, "html.parser")
    published = _published(soup)
    heading = soup.title or soup.h1
    title = " ".join(heading.get_text().split())[:MAX_TITLE] if heading else ""
    for element in soup.find_all(INVISIBLE):
        element.decompose()
    for link in soup.find_all("a", href=True):
        _lead(link, url)
    total = len(soup.get_text(strip=True))
    _clear(soup)
    text = _squeezed(_markdown(_root(soup)))
    if len(text) < min(ENOUGH, total // 4):  # A page that has almost nothing but notices is about those.
        text = page_of(markup)[1]
    return Article(title, text, published)


def declared_encoding(body: bytes) -> str:
    """The encoding a page names inside; UTF-8 when it names none."""
    return BeautifulSoup(body[:4_096], "html.parser").original_encoding or "utf-8"


def _published(soup: BeautifulSoup) -> str:
    for selector, attribute in PUBLISHED:
        for element in soup.select(selector, limit=3):
            if found := ISO_DATE.match(str(element.get(attribute, "")).strip()):
                return found[0]
    for script in soup.find_all("script", type="application/ld+json", limit=5):
        noted = LD_PUBLISHED.search(script.get_text())
        if noted and (found := ISO_DATE.match(noted[1])):
            return found[0]
    return ""


def _lead(link: Tag, url: str) -> None:
    """Make a link's address whole; one that leads nowhere else is text."""
    try:
        target = urljoin(url, str(link["href"]).strip())
    except ValueError:
        target = ""
    if target.startswith(("http://", "https://")) and target.partition("#")[0] != url.partition("#")[0]:
        link["href"] = target
    else:
        link.unwrap()


def _clear(soup: BeautifulSoup) -> None:
    """Take away what stands round the article."""
    for element in soup.select(AROUND):
        if not element.decomposed:
            element.decompose()
    total = len(soup.get_text())
    for element in list(islice(soup.find_all(_is_noise), MAX_NOISE)):
        if not element.decomposed and len(element.get_text()) <= total * MOST:
            element.decompose()
    linked = sum(len(text) for link in soup.find_all("a") for text in link.find_all(string=True, recursive=False))
    if total - linked < ENOUGH:  # A page of links: they are what it is about.
        return
    for leaf in soup.find_all(["ul", "ol"]):
        if leaf.find(["ul", "ol"]) is None and _is_menu(leaf):
            leaf.decompose()


def _is_noise(element: Tag) -> bool:
    if element.name in ("html", "body", "main", "article"):
        return False
    names = [*element.get_attribute_list("class"), *element.get_attribute_list("id")]
    return any(NOISE.search(str(name)) for name in names if name)


def _is_menu(leaf: Tag) -> bool:
    """Whether a list is hardly more than links."""
    links = leaf.find_all("a")
    text = len("".join(leaf.get_text().split()))
    return len(links) > 2 and sum(len("".join(link.get_text().split())) for link in links) > text * LINKS_OF_A_LIST


def _root(soup: BeautifulSoup) -> Tag:
    """The element that holds the article, where the page marks one."""
    total = len(soup.get_text())
    for name in ("main, [role=main]", "article"):
        found = soup.select(name, limit=50)
        sizes = [len(element.get_text()) for element in found]
        if found and max(sizes) >= max(ENOUGH, total // 4):
            return found[sizes.index(max(sizes))]
    return soup


def _markdown(soup: Tag) -> str:
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
