"""A notice as Slack blocks."""

import re
from collections.abc import Sequence
from typing import Any

from slack_sdk.models.blocks import ContextBlock, HeaderBlock, MarkdownTextObject, PlainTextObject, SectionBlock

from app.notifications.files import File
from app.notifications.notice import Notice
from app.notifications.text import one_line, plain
from app.notifications.words import answering, body_of, headline, signature, why

# Slack refuses a section text above 3000 and a header above 150.
MAX_SECTION, MAX_HEADER = 2_900, 150
MAX_FILES, MAX_NAME = 8, 40  # Escaped, so many links fit into a section.
IMAGE = re.compile(r"!\[([^\[\]\n]*)\]\([^()\s]*\)")
LINK = re.compile(r"\[([^\[\]\n|]+)\]\((https?://[^()\s|]+)\)")
HEADING = re.compile(r"^#{1,6}[ \t]+([^\n]+)$", re.MULTILINE)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


def render_slack(notice: Notice, files: Sequence[File] = ()) -> dict[str, Any]:
    """The body of an incoming webhook call: blocks, and the one line shown where blocks are not."""
    blocks: list[Any] = [
        HeaderBlock(text=PlainTextObject(text=one_line(headline(notice), MAX_HEADER), emoji=False)),
        *_body(notice),
        *_files(files),
        ContextBlock(elements=[_markdown(_links(notice)), _markdown(escape(_origin(notice)))]),
    ]
    return {
        "text": escape(one_line(headline(notice), MAX_HEADER)),
        "blocks": [block.to_dict() for block in blocks],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def escape(text: str) -> str:
    """Text without Slack's control sequences: no mention, channel or link can be written with it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mrkdwn(text: str, limit: int) -> str:
    """Markdown as Slack's own dialect, escaped and cut to a length that counts after escaping."""
    length = limit
    while len(found := _converted(text, length)) > limit:
        length = min(length - 1, length * limit // len(found))
    return found


def _converted(text: str, length: int) -> str:
    shown = escape(text if len(text) <= length else text[: length - 1].rstrip() + "…")
    shown = LINK.sub(r"<\2|\1>", IMAGE.sub(r"\1", shown))
    return BOLD.sub(r"*\1*", HEADING.sub(r"*\1*", shown))


def _body(notice: Notice) -> list[SectionBlock]:
    text = plain(body_of(notice))
    return [SectionBlock(text=_markdown(mrkdwn(text, MAX_SECTION)))] if text else []


def _files(files: Sequence[File]) -> list[SectionBlock]:
    links = [
        f"<{escape(file.url)}|{escape(one_line(file.name.replace('|', '_'), MAX_NAME))}>" for file in files[:MAX_FILES]
    ]
    return [SectionBlock(text=_markdown(f"Files: {', '.join(links)}"))] if links else []


def _links(notice: Notice) -> str:
    links = [f"<{escape(notice.read_url)}|Read the conversation>", f"<{escape(notice.api_url)}|API>"]
    return " · ".join(links)


def _origin(notice: Notice) -> str:
    return one_line(" · ".join(filter(None, (signature(notice), answering(notice), why(notice)))), 700)


def _markdown(text: str) -> MarkdownTextObject:
    # Verbatim: Slack then looks for no mentions or names in what the model wrote.
    return MarkdownTextObject(text=text, verbatim=True)
