"""A notice as Slack blocks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from app.notifications.files import File
from app.notifications.notice import Notice
from app.notifications.text import cut_note, one_line, plain
from app.notifications.words import MAX_LINE, answering, body_of, headline, signature, when, why

# Slack refuses a section text above 3000 and a header above 150.
MAX_SECTION, MAX_HEADER = 2_900, 150
MAX_NOTE = 50  # How much is cut, and the end of a block of code.
MAX_FILES, MAX_NAME = 8, 40  # Escaped, so many links fit into a section.
MAX_BUTTON = 60  # Slack takes 75.
MAX_QUESTIONS = 20  # Each takes two of the 50 blocks that a message may have.
MAX_TOGETHER = 12_000  # Of all blocks: Slack refuses more (msg_blocks_too_long), and does not say how much that is.
# The buttons of a question, by its kind: what they decide, their words and their looks. Others are answered in words.
BUTTONS = {
    "tool": (("approve", "Approve {}", "primary"), ("deny", "Deny {}", "danger")),
    "effect": (("happened", "It happened", None), ("repeat", "Run it again", "primary"), ("fail", "Fail", "danger")),
}
# These let a call run: nobody may press them without having seen all of its arguments.
RUNNING = frozenset({"approve", "repeat"})
CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
IMAGE = re.compile(r"!\[([^\[\]\n]*)\]\([^()\s]*\)")
LINK = re.compile(r"\[([^\[\]\n|]+)\]\((https?://[^()\s|]+)\)")
HEADING = re.compile(r"^#{1,6}[ \t]+([^\n]+)$", re.MULTILINE)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
IN_THREAD = "To answer, write in this thread."


@dataclass(frozen=True)
class Decided:
    """What became of a question: approved, denied, expired or cancelled."""

    id: str
    state: str
    by: str | None = None
    reason: str | None = None


def render_slack(
    notice: Notice,
    files: Sequence[File] = (),
    *,
    decided: Sequence[Decided] = (),
    mute_url: str | None = None,
    interactive: bool = False,
) -> dict[str, Any]:
    """A message's body: blocks, and the one line shown where blocks are not.

    Args:
        notice: What is told.
        files: Shown as links.
        decided: The questions that are decided by now.
        mute_url: Where its receivers unsubscribe.
        interactive: Whether clicks on buttons and words in the thread reach this server; only those of an app can.
    """
    blocks: list[Any] = [
        HeaderBlock(text=PlainTextObject(text=one_line(headline(notice), MAX_HEADER), emoji=False)),
        *(_questions(notice, decided, interactive) if notice.asked else _body(notice)),
        *_files(files),
        ContextBlock(elements=[_markdown(_links(notice, mute_url)), _markdown(escape(_origin(notice, interactive)))]),
    ]
    return {
        "text": escape(one_line(headline(notice), MAX_HEADER)),
        "blocks": [block.to_dict() for block in blocks],
        "unfurl_links": False,
        "unfurl_media": False,
    }


# --- questions ----------------------------------------------------------------------------------------


def _questions(notice: Notice, decided: Sequence[Decided], interactive: bool) -> list[Block]:
    """Each question with what it asks and, below, its buttons, how it is decided otherwise, or what was decided."""
    known = {each.id: each for each in decided}
    shown = notice.asked[:MAX_QUESTIONS]
    room = min(MAX_SECTION, MAX_TOGETHER // len(shown))
    # Words in the thread are the answer to the first that is open still.
    in_words = next((each for each in notice.asked if each["kind"] == "question" and each["id"] not in known), None)
    blocks: list[Block] = []
    for asked in shown:
        text, whole = _asked(asked, room)
        if asked["id"] in known:
            below = _outcome(asked, known[asked["id"]])
        elif interactive and asked["kind"] in BUTTONS:
            below = _buttons(asked, whole)
            text += "" if whole else f"\n{_by_api(asked)}"
        else:
            below = _context(IN_THREAD if interactive and asked is in_words else _by_api(asked))
        blocks += [SectionBlock(text=_markdown(text)), below]
    if len(notice.asked) > len(shown):
        others = len(notice.asked) - len(shown)
        blocks.append(_context(f"{others} more questions: <{escape(notice.api_url)}|see the run>"))
    return blocks


def _asked(asked: Mapping[str, Any], room: int) -> tuple[str, bool]:
    """What a question asks, and whether all of the arguments that it is about can be read in it."""
    if asked["kind"] == "question":
        return mrkdwn(plain(asked["question"]), room), True
    start = f"*{asked['question']}* {escape(one_line(asked['tool'], MAX_NAME))}\n```"
    # Three would end the block; in JSON they stand within a text, where an escape says the same.
    arguments = asked["arguments"].replace("```", "\\u0060" * 3)
    kept = _prefix(arguments, room - len(start) - len(_by_api(asked)) - MAX_NOTE)
    left_out = asked["left_out"] + len(arguments) - len(kept)
    return f"{start}{escape(kept)}```{cut_note(left_out)}", not left_out


def _prefix(text: str, limit: int) -> str:
    """As much of a text as is no longer than this when it is escaped."""
    length = 0
    for place, character in enumerate(text):
        length += len(escape(character))
        if length > limit:
            return text[:place]
    return text


def _buttons(asked: Mapping[str, Any], whole: bool) -> ActionsBlock:
    """The buttons of a question; none that lets a call run whose arguments are not shown whole."""
    offered = [each for each in BUTTONS[asked["kind"]] if whole or each[0] not in RUNNING]
    elements = [
        ButtonElement(
            text=PlainTextObject(text=one_line(words.format(asked["tool"]), MAX_BUTTON), emoji=False),
            action_id=f"{action}:{asked['id']}",
            value=str(asked["id"]),
            style=style,
        )
        for action, words, style in offered
    ]
    return ActionsBlock(block_id=f"approval:{asked['id']}", elements=elements)


def _by_api(asked: Mapping[str, Any]) -> str:
    url: str = asked["url"]
    return f"<{escape(url.removesuffix('/decision'))}|See all of it>. To decide: POST {escape(url)} with {escape(asked['answer'])}"


def _outcome(asked: Mapping[str, Any], decided: Decided) -> ContextBlock:
    what = escape(one_line(asked["tool"] or asked["kind"], MAX_NAME))
    by = f" by {escape(one_line(decided.by, MAX_NAME))}" if decided.by else ""
    why = f": {escape(one_line(decided.reason, 200))}" if decided.reason else ""
    return _context(f"*{decided.state.capitalize()}*{by} ({what}){why}")


# --- text ---------------------------------------------------------------------------------------------


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
    parts = CODE.split(shown)
    parts[::2] = map(_marked_up, parts[::2])  # Code is shown as it is.
    return "".join(parts)


def _marked_up(text: str) -> str:
    shown = LINK.sub(r"<\2|\1>", IMAGE.sub(_words_of_image, text))
    return BOLD.sub(r"*\1*", HEADING.sub(r"*\1*", shown))


def _words_of_image(found: re.Match[str]) -> str:
    return f"[image: {found[1]}]" if found[1] else "[image]"


def _body(notice: Notice) -> list[Block]:
    if notice.digest:
        return _lines(notice)
    text = plain(body_of(notice))
    return [SectionBlock(text=_markdown(mrkdwn(text, MAX_SECTION)))] if text else []


def _lines(notice: Notice) -> list[Block]:
    """The messages of a digest, as many as there is room for."""
    sections, shown = [""], 0
    for entry in notice.digest:
        said = f": {escape(one_line(entry['text'], MAX_LINE))}" if entry["text"] else ""
        line = f"• {when(entry)} <{escape(entry['url'])}|{escape(one_line(entry['title'], MAX_LINE))}>{said}\n"
        if sum(map(len, sections)) + len(line) > MAX_TOGETHER:
            break
        if len(sections[-1]) + len(line) > MAX_SECTION:
            sections.append("")
        sections[-1] += line
        shown += 1
    others = len(notice.digest) - shown
    more = [_context(f"{others} more: <{escape(notice.api_url)}|see the task>")] if others else []
    return [*(SectionBlock(text=_markdown(section)) for section in sections), *more]


def _files(files: Sequence[File]) -> list[Block]:
    links = [
        f"<{escape(file.url)}|{escape(one_line(file.name.replace('|', '_'), MAX_NAME))}>" for file in files[:MAX_FILES]
    ]
    return [SectionBlock(text=_markdown(f"Files: {', '.join(links)}"))] if links else []


def _links(notice: Notice, mute_url: str | None) -> str:
    links = {"Read the conversation": notice.read_url, "API": notice.api_url, "Unsubscribe": mute_url}
    return " · ".join(f"<{escape(url)}|{words}>" for words, url in links.items() if url)


def _origin(notice: Notice, interactive: bool) -> str:
    how = IN_THREAD if interactive and answering(notice) else answering(notice)
    return one_line(" · ".join(filter(None, (signature(notice), how, why(notice)))), 700)


def _context(text: str) -> ContextBlock:
    return ContextBlock(elements=[_markdown(text)])


def _markdown(text: str) -> MarkdownTextObject:
    # Verbatim: Slack then looks for no mentions or names in what the model wrote.
    return MarkdownTextObject(text=text, verbatim=True)
