"""A notice as Slack blocks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slack_sdk.models.blocks import (
    ActionsBlock,
    ButtonElement,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from app.notifications.files import File
from app.notifications.notice import Notice
from app.notifications.text import one_line, plain
from app.notifications.words import answering, body_of, headline, signature, why

# Slack refuses a section text above 3000 and a header above 150.
MAX_SECTION, MAX_HEADER = 2_900, 150
MAX_FILES, MAX_NAME = 8, 40  # Escaped, so many links fit into a section.
MAX_BUTTON = 60  # Slack takes 75.
MAX_QUESTIONS = 20  # Of the 50 blocks that a message may have.
# A yes or no can be a button; other questions need words.
BY_BUTTON = frozenset({"tool", "budget"})
BY_WORDS = {"question": "Answer in this thread.", "": "Decide by the link above."}
IMAGE = re.compile(r"!\[([^\[\]\n]*)\]\([^()\s]*\)")
LINK = re.compile(r"\[([^\[\]\n|]+)\]\((https?://[^()\s|]+)\)")
HEADING = re.compile(r"^#{1,6}[ \t]+([^\n]+)$", re.MULTILINE)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


@dataclass(frozen=True)
class Decided:
    """What became of a question: approved, denied, expired or cancelled."""

    id: str
    state: str
    by: str | None = None
    reason: str | None = None


def render_slack(
    notice: Notice, files: Sequence[File] = (), *, decided: Sequence[Decided] = (), buttons: bool = False
) -> dict[str, Any]:
    """A message's body: blocks, and the one line shown where blocks are not.

    Args:
        notice: What is told.
        files: Shown as links.
        decided: The questions that are decided by now.
        buttons: Whether questions get buttons; only an app can have them.
    """
    blocks: list[Any] = [
        HeaderBlock(text=PlainTextObject(text=one_line(headline(notice), MAX_HEADER), emoji=False)),
        *_body(notice),
        *_files(files),
        *(_questions(notice, decided) if buttons else []),
        ContextBlock(elements=[_markdown(_links(notice)), _markdown(escape(_origin(notice)))]),
    ]
    return {
        "text": escape(one_line(headline(notice), MAX_HEADER)),
        "blocks": [block.to_dict() for block in blocks],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _questions(notice: Notice, decided: Sequence[Decided]) -> list[ActionsBlock | ContextBlock]:
    """Each question with its buttons, or with what was decided; no more than Slack shows in one message."""
    known = {each.id: each for each in decided}
    return [
        _outcome(question, known[question["id"]]) if question["id"] in known else _buttons(question)
        for question in notice.asked[:MAX_QUESTIONS]
    ]


def _buttons(question: Mapping[str, Any]) -> ActionsBlock | ContextBlock:
    if question["kind"] not in BY_BUTTON:
        return ContextBlock(elements=[_markdown(BY_WORDS.get(question["kind"], BY_WORDS[""]))])
    return ActionsBlock(
        block_id=f"approval:{question['id']}",
        elements=[
            ButtonElement(
                text=PlainTextObject(text=one_line(f"{word} {question['tool'] or ''}", MAX_BUTTON), emoji=False),
                action_id=f"{action}:{question['id']}",
                value=str(question["id"]),
                style=style,
            )
            for action, word, style in (("approve", "Approve", "primary"), ("deny", "Deny", "danger"))
        ],
    )


def _outcome(question: Mapping[str, Any], decided: Decided) -> ContextBlock:
    what = escape(one_line(question["tool"] or question["kind"], MAX_NAME))
    by = f" by {escape(one_line(decided.by, MAX_NAME))}" if decided.by else ""
    why = f": {escape(one_line(decided.reason, 200))}" if decided.reason else ""
    return ContextBlock(elements=[_markdown(f"*{decided.state.capitalize()}*{by} ({what}){why}")])


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
