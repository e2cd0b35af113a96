"""Mutes: an address that wants no more messages of a task, or of a conversation, says so by one link (RFC 8058).

The link names a delivery and is signed; it works for as long as the delivery is kept. Opening it does nothing.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from app.db import Database
from app.models import new_id
from app.settings import Settings

PATH = "/unsubscribe/"
SIGNATURE_BYTES = 16

FIND = """
select d.workspace_id, d.channel, d.address, d.task_id, case when d.task_id is null then d.conversation_id end
    as conversation_id, coalesce(t.title, c.title) as title,
    exists (select from mutes m where m.workspace_id = d.workspace_id and m.channel = d.channel
        and m.address = lower(d.address) and (m.task_id = d.task_id
        or (d.task_id is null and m.conversation_id = d.conversation_id))) as muted
from deliveries d left join tasks t on t.id = d.task_id left join conversations c on c.id = d.conversation_id
where d.id = $1 and (d.task_id is not null or d.conversation_id is not null)
"""
ADD = """
insert into mutes (id, workspace_id, channel, address, task_id, conversation_id)
values ($1, $2, $3, lower($4), $5, $6) on conflict do nothing
"""
TAKE_BACK = """
delete from mutes where workspace_id = $1 and channel = $2 and address = lower($3)
    and (task_id = $4 or conversation_id = $5)
"""


@dataclass(frozen=True)
class Subscription:
    """What a link is about: an address, and the task or conversation it hears of."""

    workspace_id: UUID
    channel: str
    address: str
    task_id: UUID | None
    conversation_id: UUID | None
    title: str
    muted: bool


def unsubscribe_url(settings: Settings, delivery_id: UUID) -> str:
    """The link of a delivery."""
    token = base64.urlsafe_b64encode(delivery_id.bytes + _sign(settings, delivery_id)).decode().rstrip("=")
    return f"{settings.base_url}{PATH}{token}"


def delivery_of(settings: Settings, token: str) -> UUID | None:
    """The delivery that a link names; None for a link that we did not make."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 16 + SIGNATURE_BYTES:
        return None
    delivery_id = UUID(bytes=raw[:16])
    return delivery_id if hmac.compare_digest(raw[16:], _sign(settings, delivery_id)) else None


async def find(database: Database, settings: Settings, token: str) -> Subscription | None:
    """What a link is about; None when it is not ours, or when its delivery is gone."""
    delivery_id = delivery_of(settings, token)
    row = await database.fetchrow(FIND, delivery_id) if delivery_id else None
    return Subscription(**dict(row)) if row else None


async def mute(database: Database, of: Subscription) -> None:
    """Send no more of it to that address; doing so again changes nothing."""
    await database.execute(ADD, new_id(), of.workspace_id, of.channel, of.address, of.task_id, of.conversation_id)


async def unmute(database: Database, of: Subscription) -> None:
    """Send to that address again."""
    await database.execute(TAKE_BACK, of.workspace_id, of.channel, of.address, of.task_id, of.conversation_id)


def _sign(settings: Settings, delivery_id: UUID) -> bytes:
    return hmac.digest(settings.signing_key(), f"unsubscribe\n{delivery_id}".encode(), hashlib.sha256)[:SIGNATURE_BYTES]
