"""What a channel is: where a notice may go, and one `send`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from app.credentials import Box
from app.db import Database
from app.egress import Egress
from app.notifications.config import NotificationConfig
from app.notifications.files import File, Files
from app.notifications.notice import Notice
from app.notifications.smtp import Smtp
from app.settings import Settings


@dataclass(frozen=True)
class Means:
    """What channels send with."""

    settings: Settings
    egress: Egress
    box: Box
    database: Database
    smtp: Smtp


@dataclass(frozen=True)
class Address:
    """Where a notice goes, as it may be shown; `problem` says why it can't go there."""

    label: str
    problem: str | None = None


@dataclass(frozen=True)
class Envelope:
    """One notice on its way to one address.

    Attributes:
        reply_to: The mail address an answer goes to.
        unsubscribe_url: Where this address says that it wants no more of these.
        decision_urls: The pages where it decides the notice's questions, in their order.
    """

    delivery_id: UUID
    address: str
    message_id: str
    notice: Notice
    # The task's stored config: a channel takes its sealed address from here when it sends.
    config: Mapping[str, Any] | None = field(default=None, repr=False)
    files: Files | None = None
    reply_to: str | None = None
    unsubscribe_url: str | None = None
    decision_urls: tuple[str, ...] = ()

    @property
    def linked(self) -> tuple[File, ...]:
        """The files to name with the notice, each with its link."""
        return self.files.linked if self.files else ()


@dataclass(frozen=True)
class SendResult:
    """A finished hand-over; `detail` is for people, if there is something to say."""

    detail: str | None = None


class Channel(Protocol):
    """One way to reach people."""

    def __init__(self, means: Means) -> None:
        """Take what is needed to send; connects to nothing yet."""
        ...

    @staticmethod
    def addresses(config: NotificationConfig, *, default_slack: bool) -> list[Address]:
        """Where a config sends to by this channel."""
        ...

    async def send(self, envelope: Envelope) -> SendResult:
        """Hand one notice over.

        Raises:
            DeliveryFailed: it may work later.
            DeliveryRefused: it never will.
        """
        ...
