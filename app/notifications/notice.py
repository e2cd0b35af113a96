"""A notice: what happened, with everything a message about it needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any, Self
from uuid import UUID

from app.notifications.config import EventName

# The conversation's events that can be told to people, by the name a config knows them under.
RULES: dict[str, EventName] = {
    "run.started": "started",
    "run.progress": "progress",
    "run.waiting": "waiting",
    "run.completed": "completed",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
    "run.recovered": "recovered",
    "budget.reached": "budget",
}
# How a run ended, or that it needs somebody: what a config leaves out here is recorded as suppressed.
OUTCOMES: frozenset[EventName] = frozenset({"waiting", "completed", "failed", "cancelled"})
# Of the messages that ask a run's questions: that one of them is decided. It changes them, and tells nothing of its own.
DECISION = "approval.decided"
# That an answer was not taken.
REFUSED = "answer.refused"
NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+", re.ASCII)
# The conversation keeps the whole text; a message needs no more than this.
MAX_TEXT, MAX_TITLE, MAX_ERROR = 20_000, 300, 2_000


@dataclass(frozen=True)
class Notice:
    """What is told to people: one event of a run, or - without a conversation - a digest or an alert.

    Attributes:
        quiet: Why nobody is to be told of this one.
        recovered: A task's first success after failures.
        digest: What a digest tells of: `event, conversation_id, run_id, seq, delivery_id, title, text, url, at` of each.
        asked: The questions of a run that waits: `id, kind, tool, question, arguments, left_out, url, answer` of each.
            Where a channel does not show `arguments` whole - so many characters are `left_out` here, and it may have room
            for fewer - nothing there may approve them. `answer` is what is posted to `url` to decide.
        thread: What somebody wrote that this answers: `in_reply_to`, a mail's Message-ID or a Slack message's number, and a
            mail's `subject`. It is sent whatever the rules say.
    """

    event: str
    workspace_id: UUID
    conversation_id: UUID | None
    run_id: UUID | None
    event_seq: int | None
    title: str
    base_url: str
    task_id: UUID | None = None
    text: str = ""
    error: str | None = None
    agent: str = ""
    model: str = ""
    finished_at: datetime | None = None
    quiet: str | None = None
    recovered: bool = False
    digest: tuple[dict[str, Any], ...] = ()
    asked: tuple[dict[str, Any], ...] = ()
    thread: dict[str, Any] | None = None

    @property
    def rule(self) -> EventName | None:
        """The event's name in a config; None for one that is never told."""
        return RULES.get(self.event)

    @property
    def by_demo(self) -> bool:
        """Whether the offline demo model speaks here."""
        return self.model.partition(":")[0] == "demo"

    @property
    def read_url(self) -> str:
        """Where a browser shows the whole conversation."""
        if self.conversation_id is None:
            return self.api_url
        return f"{self._base}/conversations/{self.conversation_id}/export?format=markdown"

    @property
    def answer_url(self) -> str | None:
        """Where a message goes on with the conversation."""
        return f"{self._base}/conversations/{self.conversation_id}/messages" if self.conversation_id else None

    @property
    def api_url(self) -> str:
        """The run in the API, else its task or the list of what was sent."""
        if self.run_id:
            return f"{self._base}/runs/{self.run_id}"
        return f"{self._base}/tasks/{self.task_id}" if self.task_id else f"{self._base}/deliveries"

    @property
    def mute_url(self) -> str | None:
        """Where the task is disabled, if a task is behind this."""
        return f"{self._base}/tasks/{self.task_id}/disable" if self.task_id else None

    @property
    def can_be_muted(self) -> bool:
        """Whether its receiver may unsubscribe from its like."""
        return self.task_id is not None or self.conversation_id is not None

    @property
    def can_be_answered(self) -> bool:
        """Whether a mail with it gets an address to answer to: one that says an answer was refused gets none, it would be theirs."""
        return self.conversation_id is not None and self.event != REFUSED

    @property
    def fingerprint(self) -> str:
        """The same for two notices that say the same: numbers and ids in an error don't count, but that it works again does."""
        said = NUMBERS.sub("#", self.error) if self.error else self.text
        happened = "recovered" if self.recovered else self.rule or self.event
        return sha256("\n".join((happened, " ".join(said.split()))).encode()).hexdigest()[:32]

    @property
    def _base(self) -> str:
        return self.base_url.rstrip("/")

    def payload(self) -> dict[str, Any]:
        """The notice as a delivery row keeps it: size-capped, plain JSON."""
        return {
            "event_seq": self.event_seq,
            "title": self.title[:MAX_TITLE],
            "base_url": self.base_url,
            "text": self.text[: MAX_TEXT + 1],
            "error": self.error[:MAX_ERROR] if self.error else None,
            "agent": self.agent,
            "model": self.model,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "recovered": self.recovered,
            "digest": list(self.digest),
            "asked": list(self.asked),
            "thread": self.thread,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        """The notice of a delivery row: `event, workspace_id, conversation_id, run_id, task_id, payload`."""
        # Rows of a newer version, written while servers are being replaced, may hold more.
        known = {field.name for field in fields(cls)}
        kept = {name: value for name, value in row["payload"].items() if name in known}
        ids = {name: row[name] for name in ("event", "workspace_id", "conversation_id", "run_id", "task_id")}
        at = kept.pop("finished_at", None)
        kept |= {name: tuple(kept.get(name) or ()) for name in ("digest", "asked")}
        return cls(**kept, **ids, finished_at=datetime.fromisoformat(at) if at else None)
