"""Which deliveries an event makes. Pure: `settle` inserts the rows in the transaction that ends the run."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from app.notifications.channel import Address
from app.notifications.config import NotificationConfig
from app.notifications.notice import OUTCOMES, Notice
from app.notifications.registry import addresses

# Message ids are derived from what a delivery is for, so that they are the same however often it is planned.
MESSAGE_IDS = UUID("6f3b1c8e-2a5d-4c57-9d0e-7b1f4f7a5c21")


@dataclass(frozen=True)
class PlannedDelivery:
    """One row of the outbox, before it has an id."""

    channel: str
    address: str
    event: str
    event_seq: int | None
    state: Literal["pending", "suppressed"]
    reason: str | None
    message_id: str
    dedup_key: str
    fingerprint: str
    payload: dict[str, Any]


def plan(notice: Notice, config: NotificationConfig | None, *, default_slack: bool) -> list[PlannedDelivery]:
    """The deliveries of a notice.

    What a config asks for but does not get, and an outcome it leaves out, has a suppressed row with
    the reason; events of a run in progress that it leaves out have none.

    Args:
        notice: What happened.
        config: The task's rules; None notifies nobody.
        default_slack: Whether the server has a Slack webhook of its own.
    """
    if config is None or notice.rule is None or not _concerns(notice, config):
        return []
    silence = _silence(notice, config)
    return [
        _delivery(notice, channel, address, silence)
        for channel in config.channels
        for address in addresses(channel, config, default_slack=default_slack)
    ]


def _asked_for(notice: Notice, config: NotificationConfig) -> bool:
    """Whether the config names the event; a success after failures may be asked for as `recovered`, too."""
    return notice.rule in config.on or (notice.recovered and "recovered" in config.on)


def _concerns(notice: Notice, config: NotificationConfig) -> bool:
    return _asked_for(notice, config) or notice.rule in OUTCOMES


def _silence(notice: Notice, config: NotificationConfig) -> str | None:
    if not _asked_for(notice, config):
        return f"the task's notifications leave out {notice.rule}"
    return None if notice.recovered else notice.quiet  # That it works again is news, whatever it found.


def _delivery(notice: Notice, channel: str, address: Address, silence: str | None) -> PlannedDelivery:
    reason = silence or address.problem
    key = _dedup_key(notice, channel, address.label)
    return PlannedDelivery(
        channel=channel,
        address=address.label,
        event=notice.event,
        event_seq=notice.event_seq,
        state="suppressed" if reason else "pending",
        reason=reason,
        message_id=message_id(key, notice.base_url),
        dedup_key=key,
        fingerprint=notice.fingerprint,
        payload=notice.payload(),
    )


def _dedup_key(notice: Notice, channel: str, address: str) -> str:
    short = sha256(address.lower().encode()).hexdigest()[:16]
    # A run that loses its process again and again is told of once.
    which = (
        f"{notice.run_id}:recovered" if notice.rule == "recovered" else f"{notice.conversation_id}:{notice.event_seq}"
    )
    return f"{which}:{channel}:{short}"


def message_id(key: str, base_url: str) -> str:
    """The stable `<uuid@host>` of a delivery."""
    return f"<{uuid5(MESSAGE_IDS, key)}@{urlsplit(base_url).hostname or 'localhost'}>"
