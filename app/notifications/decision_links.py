"""Links in a mail that open the page where a question is decided.

`{base_url}/decisions/{token}`: the token holds approval, workspace, address and the instant it expires at, signed by
`PARLEY_SECRET`. Opening it does nothing: mail scanners open every link. Whether the question is open still is another matter.
"""

import base64
import binascii
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import orjson

from app.settings import Settings

OPEN_SECONDS = 7 * 86_400
PATH = "/decisions/"
MAC_BYTES = 20


@dataclass(frozen=True)
class DecisionLink:
    """What a link stands for: who was written to may decide this question."""

    workspace_id: UUID
    approval_id: UUID
    address: str
    expires_at: int


def decision_url(settings: Settings, *, workspace_id: UUID, approval_id: UUID, address: str) -> str:
    """The link for one question and one address; good for a week."""
    until = int(time.time()) + OPEN_SECONDS
    body = orjson.dumps([workspace_id.hex, approval_id.hex, address.lower(), until])
    return f"{settings.base_url}{PATH}{_text(body + _mac(settings, body))}"


def read_link(settings: Settings, token: str, now: float) -> DecisionLink | None:
    """What a token stands for; None when it is none of ours, was changed, or has expired."""
    try:
        raw = base64.b64decode((token + "=" * (-len(token) % 4)).encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
    # Some other texts would decode to the same bytes: a link has one form.
    if token != _text(raw) or not hmac.compare_digest(mac, _mac(settings, body)):
        return None
    workspace, approval, address, until = cast("tuple[str, str, str, int]", orjson.loads(body))
    return DecisionLink(UUID(workspace), UUID(approval), address, until) if until >= now else None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _mac(settings: Settings, body: bytes) -> bytes:
    return hmac.digest(settings.signing_key(), b"decision link\n" + body, hashlib.sha256)[:MAC_BYTES]
