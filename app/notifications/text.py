"""Text for messages: one line for headers, plain text, sanitised HTML."""

import re
from functools import cache, lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

# Controls, and characters that reorder what a reader sees.
INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
TAGS = frozenset(
    [
        "a",
        "b",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "li",
        "ol",
        "p",
        "pre",
        "s",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)


def one_line(text: str, limit: int) -> str:
    """Text fit for a header or title: one line, nothing invisible, cut with an ellipsis."""
    return cut(" ".join(INVISIBLE.sub(" ", text).split()), limit)


def plain(text: str) -> str:
    """Text without control and reordering characters; line breaks stay."""
    return INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, the last an ellipsis where something was left out."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def cut_note(left_out: int) -> str:
    """The line below something of which so many characters are left out; none where it is whole."""
    return f"\n… cut: {left_out} characters more" if left_out else ""


@lru_cache(16)  # A text goes to up to twenty receivers, one right after the other.
def safe_html(markdown: str) -> str:
    """Markdown as HTML that can be put into a mail: no scripts, styles, forms, raw HTML or images."""
    html = str(_markdown().render(plain(markdown)))
    return nh3.clean(
        html,
        tags=set(TAGS),
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    # A remote image tells its server who opened the mail; its words are enough.
    markdown.add_render_rule("image", _words_of_image)
    return markdown


def _words_of_image(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    words = self.renderInlineAsText(tokens[index].children or [], options, env)
    return f"[image: {nh3.clean_text(words)}]" if words else "[image]"
