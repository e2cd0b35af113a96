"""Credentials: secrets at rest, and what they put on a request at the moment of a call.

`box` seals and opens, `kinds` says what each kind consists of, `rows` keeps them, `access` uses them, `rotation` moves
what is sealed to another key.
"""

from app.credentials.access import Access, Credentials
from app.credentials.box import PREFIX, Box, Envelope, is_mask, is_sealed, mask
from app.credentials.kinds import CredentialKind
from app.redaction import MASK, redact

__all__ = [
    "MASK",
    "PREFIX",
    "Access",
    "Box",
    "CredentialKind",
    "Credentials",
    "Envelope",
    "is_mask",
    "is_sealed",
    "mask",
    "redact",
]
