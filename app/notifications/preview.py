"""A message as its receivers see it, before or after anybody gets it: made as a channel makes it, but with no live link.

Who may read deliveries may see what they say. The tokens in their links and addresses are their receivers' alone, to answer, to
decide and to unsubscribe with; `TOKEN` stands in their place.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.notifications.channel import Envelope
from app.notifications.decision_links import PATH as DECISIONS
from app.notifications.email import mail_of
from app.notifications.files import Files
from app.notifications.mutes import PATH as UNSUBSCRIBE
from app.notifications.notice import Notice
from app.notifications.slack import WEBHOOK
from app.notifications.slack_message import render_slack
from app.notifications.webhook import event_of
from app.settings import Settings

TOKEN = "TOKEN"  # noqa: S105 - it stands where one was


@dataclass(frozen=True)
class Preview:
    """One message as each channel shows it."""

    subject: str
    text: str
    html: str
    blocks: list[dict[str, Any]]
    payload: dict[str, Any]


def previewed(
    settings: Settings, delivery_id: UUID, address: str, notice: Notice, files: Files, *, decides: bool
) -> Preview:
    """What would be sent to an address now, who decides its questions or does not."""
    base, local = settings.base_url, (settings.parley_reply_address or "").rpartition("@")
    envelope = Envelope(
        delivery_id,
        address,
        "",
        notice,
        files=files,
        reply_to=f"{local[0]}+{TOKEN}@{local[2]}" if local[0] and notice.can_be_answered else None,
        unsubscribe_url=f"{base}{UNSUBSCRIBE}{TOKEN}" if notice.can_be_muted else None,
        decision_urls=tuple(f"{base}{DECISIONS}{TOKEN}" for _ in notice.asked if decides),
    )
    by_app = settings.slack_bot_token is not None and not address.startswith(WEBHOOK)
    blocks = render_slack(
        notice,
        envelope.linked,
        mute_url=envelope.unsubscribe_url,
        interactive=by_app and settings.slack_signing_secret is not None,
    )
    mail = mail_of(envelope)
    return Preview(mail.subject, mail.text, mail.html, blocks["blocks"], event_of(envelope, thin=False))
