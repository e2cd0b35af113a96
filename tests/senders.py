"""Senders of webhooks, each in its own way of signing: written from their documents, with nothing of Parley's."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS = {
    "standard": STANDARD_SECRET,
    "github": "It's a Secret to Everybody",
    "stripe": "whsec_test_secret",
    "slack": "8f742231b10e8888abcd99yyyzzz85a5",
    "hmac": "a secret of an HMAC",
    "bearer": "hunter22-hunter22",
    "token": "hunter33-hunter33",
}
# What the tasks say beside verifier and secret.
OPTIONS: dict[str, dict[str, Any]] = {
    "hmac": {"header": "X-Signature", "algorithm": "sha512", "encoding": "base64", "prefix": "v1="}
}
Headers = dict[str, str]


def _hex(secret: str, content: bytes) -> str:
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def standard(body: bytes, secret: str, at: int, id: str = "msg_1") -> Headers:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(made).decode()}"
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signature}


def github(body: bytes, secret: str, at: int, id: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958") -> Headers:
    del at  # GitHub signs no time.
    return {"X-GitHub-Delivery": id, "X-GitHub-Event": "issues", "X-Hub-Signature-256": f"sha256={_hex(secret, body)}"}


def stripe(body: bytes, secret: str, at: int) -> Headers:
    return {"Stripe-Signature": f"t={at},v1={_hex(secret, f'{at}.'.encode() + body)}"}


def slack(body: bytes, secret: str, at: int) -> Headers:
    signature = f"v0={_hex(secret, f'v0:{at}:'.encode() + body)}"
    return {"X-Slack-Request-Timestamp": str(at), "X-Slack-Signature": signature}


def any_hmac(body: bytes, secret: str, at: int) -> Headers:
    del at
    made = hmac.new(secret.encode(), body, hashlib.sha512).digest()
    return {"X-Signature": f"v1={base64.b64encode(made).decode()}", "X-Delivery-Id": "delivery-1"}


def bearer(body: bytes, secret: str, at: int) -> Headers:
    del body, at
    return {"Authorization": f"Bearer {secret}", "X-Delivery-Id": "delivery-1"}


def token(body: bytes, secret: str, at: int) -> Headers:
    del body, at
    return {"X-Parley-Token": secret, "X-Delivery-Id": "delivery-1"}


SIGN: dict[str, Callable[..., Headers]] = {
    "standard": standard,
    "github": github,
    "stripe": stripe,
    "slack": slack,
    "hmac": any_hmac,
    "bearer": bearer,
    "token": token,
}
# Stripe and Slack have their ids in the body.
BODY = b'{"id": "evt_1", "event_id": "Ev1", "type": "opened", "n": 7}'


def config_of(verifier: str) -> dict[str, Any]:
    """The `trigger_config` of a task that hears this sender."""
    return {"verifier": verifier, "secret": SECRETS[verifier], **OPTIONS.get(verifier, {})}


def signed(
    verifier: str, body: bytes = BODY, *, secret: str | None = None, late: float = 0, **more: Any
) -> dict[str, str]:
    """The headers of a call as its sender makes them, so many seconds ago."""
    at = int(time.time() - late)
    return {"Content-Type": "application/json", **SIGN[verifier](body, secret or SECRETS[verifier], at, **more)}
