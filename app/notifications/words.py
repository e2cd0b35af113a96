"""The words of a notice, the same on every channel."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from textwrap import indent
from typing import Any

from app.notifications.config import EventName
from app.notifications.notice import MAX_TEXT, Notice
from app.notifications.text import cut_note, one_line

Line = Callable[[Mapping[str, Any]], str]
MARKUP = re.compile(r"[\\`*_{}\[\]()<>#!|~]")
MAX_LINE = 160

HEADLINES: dict[EventName, str] = {
    "started": "Started",
    "progress": "Progress",
    "waiting": "Waiting for you",
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "recovered": "Recovered",
    "budget": "Budget reached",
}


def headline(notice: Notice) -> str:
    """What happened to what, in one line."""
    if notice.rule is None:
        return notice.title or notice.event
    happened = "Recovered" if notice.recovered else HEADLINES[notice.rule]
    return f"{happened}: {notice.title or 'untitled'}"


def in_markdown(entry: Mapping[str, Any]) -> str:
    """One message of a digest as a line of Markdown; the link in it is ours."""
    said = f": {_literal(entry['text'])}" if entry["text"] else ""
    return f"- {when(entry)} [{_literal(entry['title'])}]({entry['url']}){said}"


def in_plain(entry: Mapping[str, Any]) -> str:
    """The same where nothing is markup."""
    said = f": {one_line(entry['text'], MAX_LINE)}" if entry["text"] else ""
    return f"- {when(entry)} {one_line(entry['title'], MAX_LINE)}{said}\n  {entry['url']}"


def body_of(notice: Notice, line: Line = in_markdown) -> str:
    """The Markdown to show: the outcome, and the error where there is one; of a digest its lines."""
    text = notice.text or "\n".join(map(line, notice.digest))
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT].rstrip()}…\n\n(The rest is in the conversation.)"
    return "\n\n".join(part for part in (notice.error, text) if part)


def question_of(asked: Mapping[str, Any]) -> str:
    """A question that a run waits for, as Markdown, with the call that it is about."""
    if asked["kind"] == "question":
        return asked["question"]
    # Indented, it is a block of code whatever it holds.
    arguments = indent(asked["arguments"] + cut_note(asked["left_out"]), "    ")
    return f"{asked['question']}\n\n`{asked['tool']}` with\n\n{arguments}"


def elsewhere(asked: Mapping[str, Any]) -> str:
    """What somebody hears of a question about a call who may not decide it."""
    return f"A call of `{asked['tool']}` waits for approval by somebody else."


def when(entry: Mapping[str, Any]) -> str:
    """When the message of a digest came up."""
    return f"{datetime.fromisoformat(entry['at']):%Y-%m-%d %H:%M} UTC"


def _literal(text: str) -> str:
    return MARKUP.sub(r"\\\g<0>", one_line(text, MAX_LINE))


def signature(notice: Notice) -> str:
    """Who speaks; the offline model is never taken for a real one."""
    if not notice.agent:
        return ""
    by = f"By agent {notice.agent}"
    if notice.by_demo:
        return f"{by}, with the offline demo model: this is not a real model's answer."
    return f"{by}, with {notice.model}." if notice.model else f"{by}."


def answering(notice: Notice) -> str:
    """How to go on with the conversation; a question that waits says itself how it is decided."""
    if notice.rule == "waiting" or notice.answer_url is None:
        return ""
    return f"To answer, send a message: POST {notice.answer_url}"


def why(notice: Notice) -> str:
    """Why this message came, and how to stop its like."""
    if notice.event.startswith("alert."):
        return "You get this because you are named for alerts in the server's settings."
    if notice.thread is not None:
        return "You get this because you answered in this conversation."
    if notice.event == "test":
        return "You get this because somebody tried out this address."
    if notice.rule is None:
        return "You get these together because many came at once; digest_after in the task's notification_config says how many."
    if notice.mute_url is None:
        return "You get this because notifications are on for this conversation."
    return (
        f"You get this because the task's notification_config names you for {notice.rule or notice.event}. "
        f"To stop it, disable the task: POST {notice.mute_url}"
    )
