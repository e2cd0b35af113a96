"""Who may call a task's webhook. An unknown task and a wrong secret cost the same work and get the same answer."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from app.credentials import Box
from app.db import Row
from app.identity import Principal
from app.settings import Settings
from app.verifiers import SCHEMES, SECRET_FIELD, VERIFIERS, Signed, github

log = structlog.stdlib.get_logger(__name__)

TOKEN_HEADER = "X-Parley-Token"  # noqa: S105 - a header's name
SCOPE = "tasks:write"
# A rotation leaves two secrets good; as many are tried when there are fewer, so that time does not count them.
MOST_SECRETS = 2
DECOY = "c3RhbmRzIGluIGZvciBhIHNlY3JldA=="
UNKNOWN: Mapping[str, Any] = {"verifier": None, "secrets": []}


@dataclass(frozen=True)
class Call:
    """One inbound call.

    Attributes:
        headers: Names in lower case; a header that came twice holds both values with a comma between.
        token: `?token=` of the URL.
        body: The raw body.
        principal: Whose API key came with it, if one did.
    """

    headers: Mapping[str, str]
    token: str
    body: bytes
    principal: Principal | None = field(default=None)


def admits(task: Row | None, call: Call, settings: Settings) -> bool:
    """Whether the call may start the task.

    Args:
        task: The task's row, or None when there is none.
        call: The call.
        settings: Whether authentication is on, and the keys that open secrets.

    Raises:
        Unreadable: when the stored secret can't be opened.
    """
    config: Mapping[str, Any] = task["trigger_config"] if task else UNKNOWN
    secrets = _secrets(task, config, settings) if task else []
    now = task["now"] if task else datetime.now(UTC)
    # Both are asked, whichever counts: an unknown task, too, costs the hashing of the body.
    signed, matched = _is_signed(config, call, secrets, now), _matches(_presented(config, call), secrets)
    if task is None:
        return False
    return _trusts(config, call, secrets, settings, signed=signed, matched=matched) or _holds_key(
        call.principal, task["workspace_id"]
    )


def _trusts(
    config: Mapping[str, Any], call: Call, secrets: list[str], settings: Settings, *, signed: bool, matched: bool
) -> bool:
    match config["verifier"]:
        case "none":
            return True
        case None:
            return matched or not settings.auth_on
        case "bearer" | "token":
            return matched
        case name if name in SCHEMES:
            return signed
        case name:
            return _says(name, call, secrets)


def _is_signed(config: Mapping[str, Any], call: Call, secrets: list[str], now: datetime) -> bool:
    scheme = SCHEMES.get(config["verifier"], github)
    signed = Signed(call.headers, call.body, now.timestamp(), config)
    tried = (*secrets, *[DECOY] * MOST_SECRETS)[:MOST_SECRETS]
    hits = [scheme(signed, secret) for secret in tried]
    return any(hits[: len(secrets)])


def _says(name: str, call: Call, secrets: list[str]) -> bool:
    """What an extension's verifier says; one that is gone or breaks says no."""
    verifier = VERIFIERS.get(name)
    if verifier is None:
        log.error("verifier.missing", verifier=name)
        return False
    try:
        return verifier(call.headers, call.body, secrets) is True
    except Exception as error:
        log.error("verifier.broke", verifier=name, exc_info=error)
        return False


def _presented(config: Mapping[str, Any], call: Call) -> str:
    if config["verifier"] == "bearer":
        scheme, _, secret = call.headers.get("authorization", "").partition(" ")
        return secret.strip() if scheme.lower() == "bearer" else ""
    header: str = config.get("header") or TOKEN_HEADER
    return call.headers.get(header.lower()) or call.token


def _secrets(task: Row, config: Mapping[str, Any], settings: Settings) -> list[str]:
    """The current secret and, within the overlap of a rotation, the one before."""
    box = Box.from_settings(settings)
    now: datetime = task["now"]
    good = [each for each in config["secrets"] if each["until"] is None or now < datetime.fromisoformat(each["until"])]
    place = {"table": "tasks", "workspace": task["workspace_id"], "row": task["id"], "field": SECRET_FIELD}
    return [box.open(each["sealed"], **place) for each in good]


def _matches(presented: str, secrets: list[str]) -> bool:
    # Digests have one length, and every secret is compared, so that time tells nothing about them.
    given = _digest(presented)
    hits = [hmac.compare_digest(given, _digest(secret)) for secret in (*secrets, TOKEN_HEADER)]
    return any(hits[:-1])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _holds_key(principal: Principal | None, workspace_id: UUID) -> bool:
    return principal is not None and principal.workspace_id == workspace_id and principal.may(SCOPE)
