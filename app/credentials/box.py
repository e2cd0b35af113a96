"""Secrets at rest: sealed with AES-256-GCM, bound to the very row and field they belong to.

An envelope is `version | key id | wrapped data key | nonce | ciphertext`: each secret has a data key of
its own, wrapped by one of the configured keys. Table, workspace, row and field are authenticated with
it, so that a sealed value copied anywhere else can't be opened.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import ConfigurationError, Unreadable
from app.redaction import MASK, remember
from app.settings import Settings, split_list

PREFIX = "sealed:v1:"
VERSION = 1
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
# Four characters of anything shorter would give too much of it away.
SHORTEST_SHOWN = 12
HOW_TO_SET = (
    "set PARLEY_ENCRYPTION_KEYS to `k1:<key>`, where the key is 32 random bytes in base64 "
    "(for example from `openssl rand -base64 32`)"
)


@dataclass(frozen=True)
class Envelope:
    """The parts of a sealed value."""

    key_id: str
    wrapped: bytes
    nonce: bytes
    ciphertext: bytes

    def text(self) -> str:
        """The envelope as it is stored."""
        name = self.key_id.encode()
        body = bytes([VERSION, len(name)]) + name + self.wrapped + self.nonce + self.ciphertext
        return PREFIX + base64.urlsafe_b64encode(body).decode()

    @classmethod
    def read(cls, sealed: str) -> Self:
        """Take a stored envelope apart.

        Raises:
            Unreadable: when it is none, or cut short.
        """
        body = _decoded(sealed)
        start = 2 + body[1]
        wrapped_end, nonce_end = start + WRAPPED_BYTES, start + WRAPPED_BYTES + NONCE_BYTES
        if body[0] != VERSION or len(body) < nonce_end + TAG_BYTES:
            raise Unreadable("the sealed value is damaged or of an unknown version")
        name = body[2:start].decode("ascii", "replace")
        return cls(name, body[start:wrapped_end], body[wrapped_end:nonce_end], body[nonce_end:])


@dataclass(frozen=True)
class Box:
    """Seals and opens secrets: the first key seals, every key opens."""

    keys: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The box of `PARLEY_ENCRYPTION_KEYS`; without keys it can't seal and says so when asked to.

        Raises:
            ConfigurationError: when the setting is not `id:base64` pairs of 32-byte keys.
        """
        text = settings.parley_encryption_keys
        return cls(_read_keys(text.get_secret_value()) if text else {})

    def seal(self, plaintext: str, *, table: str, workspace: UUID | str, row: UUID | str, field: str) -> str:
        """Seal a secret for one field of one row.

        Raises:
            ConfigurationError: when no key is set.
        """
        key_id = self.sealing_key_id()
        remember(plaintext, workspace)
        bound = _bound(key_id, table, workspace, row, field)
        data_key, wrap_nonce, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES), os.urandom(NONCE_BYTES)
        wrapped = wrap_nonce + AESGCM(self.keys[key_id]).encrypt(wrap_nonce, data_key, bound)
        return Envelope(key_id, wrapped, nonce, AESGCM(data_key).encrypt(nonce, plaintext.encode(), bound)).text()

    def open(self, sealed: str, *, table: str, workspace: UUID | str, row: UUID | str, field: str) -> str:
        """Open what `seal` made for the same field of the same row.

        Raises:
            Unreadable: when it was changed, belongs elsewhere, or its key is not configured.
        """
        envelope = Envelope.read(sealed)
        key = self.keys.get(envelope.key_id)
        if key is None:
            raise Unreadable(f"the key {envelope.key_id!r} is not in PARLEY_ENCRYPTION_KEYS")
        bound = _bound(envelope.key_id, table, workspace, row, field)
        try:
            data_key = AESGCM(key).decrypt(envelope.wrapped[:NONCE_BYTES], envelope.wrapped[NONCE_BYTES:], bound)
            plaintext = AESGCM(data_key).decrypt(envelope.nonce, envelope.ciphertext, bound).decode()
        except InvalidTag:
            raise Unreadable("the sealed value was changed, moved, or sealed with another key of that name") from None
        remember(plaintext, workspace)
        return plaintext

    def sealing_key_id(self) -> str:
        """The id of the key that seals.

        Raises:
            ConfigurationError: when no key is set.
        """
        for key_id in self.keys:
            return key_id
        raise ConfigurationError(
            f"secrets can't be stored without an encryption key: {HOW_TO_SET}", field="PARLEY_ENCRYPTION_KEYS"
        )


def is_sealed(value: str) -> bool:
    """Whether a stored text is a sealed value."""
    return value.startswith(PREFIX)


def mask(secret: str) -> str:
    """What may be shown of a secret: `****` and its last four characters, or nothing of a short one."""
    return MASK + secret[-4:] if len(secret) >= SHORTEST_SHOWN else MASK


def is_mask(value: str) -> bool:
    """Whether a value is what `mask` shows rather than a secret."""
    return value.startswith(MASK) and len(value) in (len(MASK), len(MASK) + 4)


def _bound(key_id: str, table: str, workspace: UUID | str, row: UUID | str, field: str) -> bytes:
    # JSON rather than a separator: no two different places give the same bytes.
    return json.dumps([VERSION, key_id, table, str(workspace), str(row), field]).encode()


def _decoded(sealed: str) -> bytes:
    if not is_sealed(sealed):
        raise Unreadable("the stored value is not sealed")
    try:
        body = base64.b64decode(sealed.removeprefix(PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        body = b""
    if len(body) < 2:
        raise Unreadable("the sealed value is damaged")
    return body


def _read_keys(text: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for entry in split_list(text):
        key_id, _, encoded = entry.partition(":")
        if not KEY_ID.fullmatch(key_id) or key_id in keys:
            raise _wrong_keys("each entry needs an id of its own before a colon")
        keys[key_id] = _read_key(key_id, encoded)
    return keys


def _read_key(key_id: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong_keys(f"the key {key_id!r} is not base64") from None
    if len(key) != KEY_BYTES:
        raise _wrong_keys(f"the key {key_id!r} has {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _wrong_keys(what: str) -> ConfigurationError:
    return ConfigurationError(f"PARLEY_ENCRYPTION_KEYS: {what}; {HOW_TO_SET}", field="PARLEY_ENCRYPTION_KEYS")
