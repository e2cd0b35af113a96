"""The address an answer to a mail goes to: `parley+<token>@example.org`, made from `PARLEY_REPLY_ADDRESS`.

Each conversation has one per recipient. The token says by itself nothing and can't be guessed: 130 bits of an HMAC under
`PARLEY_SECRET` over the row's id. The row keeps its SHA-256 alone, so that who reads the database can't answer.

* `reply_address(...)` gives the address for the next mail, and keeps it open for `OPEN_DAYS` from then.
* `token_of(...)` reads the token from an address that a mail came in for.
* `find_reply(...)` finds the conversation and the recipient of a token; None when it is unknown, expired or revoked.
* `revoke_replies(...)` closes the addresses of a conversation, or one recipient's, for good; they disappear with it, too.

The token proves that somebody had the mail, not who writes: the sender must be checked as well.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from app.db import Connection, Database
from app.models import new_id
from app.settings import Settings

TOKEN_CHARACTERS = 26  # 130 bits; with the part before the + at most 57 of the 64 that a local part may have.
OPEN_DAYS = 90

ISSUE = """
insert into reply_addresses (id, workspace_id, conversation_id, address, token_sha256, expires_at)
values ($1, $2, $3, $4, $5, now() + make_interval(days => $6))
on conflict (conversation_id, address) do update set expires_at = excluded.expires_at
returning id, revoked_at
"""
FIND = """
select id, workspace_id, conversation_id, address from reply_addresses
where token_sha256 = $1 and expires_at > now() and revoked_at is null
"""
REVOKE = """
update reply_addresses set revoked_at = now()
where workspace_id = $1 and conversation_id = $2 and ($3::text is null or address = lower($3)) and revoked_at is null
"""


@dataclass(frozen=True)
class ReplyTo:
    """What a token stands for: the conversation, and the recipient whom the mail went to."""

    id: UUID
    workspace_id: UUID
    conversation_id: UUID
    address: str


async def reply_address(
    database: Database, settings: Settings, *, workspace_id: UUID, conversation_id: UUID, recipient: str
) -> str | None:
    """Where `recipient` answers the conversation; None without `PARLEY_REPLY_ADDRESS`, or when that was revoked."""
    if settings.parley_reply_address is None:
        return None
    fresh = new_id()
    hashed = _sha256(_token(settings, fresh))
    row = await database.fetchrow(ISSUE, fresh, workspace_id, conversation_id, recipient.lower(), hashed, OPEN_DAYS)
    if row is None or row["revoked_at"]:
        return None
    local, _, domain = settings.parley_reply_address.rpartition("@")
    return f"{local}+{_token(settings, row['id'])}@{domain}"


def token_of(settings: Settings, address: str) -> str | None:
    """The token of one of our reply addresses, however its letters were changed on the way; None for any other."""
    local, _, domain = (settings.parley_reply_address or "").lower().rpartition("@")
    before, _, after = address.strip().lower().rpartition("@")
    start, plus, token = before.rpartition("+")
    ours = bool(local) and (start, after) == (local, domain) and plus
    return token if ours and len(token) == TOKEN_CHARACTERS and token.isascii() and token.isalnum() else None


async def find_reply(database: Database, token: str) -> ReplyTo | None:
    """Whose answer a mail with this token is; None when the token is unknown, expired or revoked."""
    row = await database.fetchrow(FIND, _sha256(token))
    return ReplyTo(**dict(row)) if row else None


async def revoke_replies(
    connection: Connection, workspace_id: UUID, conversation_id: UUID, *, recipient: str | None = None
) -> None:
    """Take no more answers by mail from whom a conversation has written to, or from one of them, now or later."""
    await connection.execute(REVOKE, workspace_id, conversation_id, recipient)


def _token(settings: Settings, row_id: UUID) -> str:
    digest = hmac.digest(settings.signing_key(), f"reply address\n{row_id}".encode(), hashlib.sha256)
    return base64.b32encode(digest).decode().lower()[:TOKEN_CHARACTERS]


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
