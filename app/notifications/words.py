"""The words of a notice, the same on every channel."""

from app.notifications.config import EventName
from app.notifications.notice import MAX_TEXT, Notice

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
    happened = HEADLINES[notice.rule] if notice.rule else notice.event
    return f"{happened}: {notice.title or 'untitled'}"


def body_of(notice: Notice) -> str:
    """The Markdown to show: the outcome, and the error where there is one."""
    text = notice.text
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT].rstrip()}…\n\n(The rest is in the conversation.)"
    return "\n\n".join(part for part in (notice.error, text) if part)


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
    if notice.rule == "waiting":
        return ""
    return f"To answer, send a message: POST {notice.answer_url}"


def why(notice: Notice) -> str:
    """Why this message came, and how to stop its like."""
    if notice.mute_url is None:
        return "You get this because notifications are on for this conversation."
    return (
        f"You get this because the task's notification_config names you for {notice.rule or notice.event}. "
        f"To stop it, disable the task: POST {notice.mute_url}"
    )
