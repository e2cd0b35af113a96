"""Verifiers of inbound webhook calls: the signatures of Parley's own, and those that extensions add.

A signature is an HMAC of the raw body by its sender's scheme. Ours is computed and compared as text in constant time;
nothing of the sender's is decoded, so no encoding of it can be odd. Every part of a scheme is computed before any is judged.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import ConfigurationError

# Handed the headers (names in lower case), the raw body and the secrets that are good now; says whether to take the call.
Verifier = Callable[[Mapping[str, str], bytes, Sequence[str]], bool]

# How old or how far ahead a signed instant may be; Standard Webhooks, Stripe and Slack all name five minutes.
WINDOW_SECONDS = 300
STANDARD_PREFIX = "whsec_"
SECRET_FIELD = "trigger_config.secret"  # noqa: S105 - the name of the field that secrets are sealed for
SHORTEST_KEY = 16
UNIX_TIME = re.compile(r"[0-9]{1,11}", re.ASCII)


@dataclass(frozen=True)
class Signed:
    """A call whose signature is looked at.

    Attributes:
        headers: Names in lower case; a header that came twice holds both values with a comma between.
        body: As it came.
        now: Seconds since 1970.
        options: What the scheme `hmac` is told: header, algorithm, encoding, prefix.
    """

    headers: Mapping[str, str]
    body: bytes
    now: float
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


Scheme = Callable[[Signed, str], bool]


def standard(call: Signed, secret: str) -> bool:
    """Standard Webhooks 1.0: `v1` signatures, any of several; also under the older names that begin with `svix-`."""
    family = "webhook" if "webhook-id" in call.headers else "svix"
    instant = call.headers.get(f"{family}-timestamp", "")
    signed = f"{call.headers.get(f'{family}-id', '')}.{instant}."
    wanted = base64.b64encode(_mac(standard_key(secret), signed, call.body))
    given = [each.partition(",") for each in call.headers.get(f"{family}-signature", "").split(" ")]
    return _among(wanted, (value for version, _, value in given if version == "v1")) & _fresh(instant, call.now)


def github(call: Signed, secret: str) -> bool:
    """GitHub: `X-Hub-Signature-256: sha256=<hex>` of the body."""
    wanted = b"sha256=" + _mac(secret.encode(), "", call.body).hex().encode()
    return _among(wanted, [call.headers.get("x-hub-signature-256", "")])


def stripe(call: Signed, secret: str) -> bool:
    """Stripe: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]` of `<seconds>.<body>`."""
    parts = [part.partition("=") for part in call.headers.get("stripe-signature", "").split(",")]
    instants = [value for name, _, value in parts if name.strip() == "t"]
    instant = instants[0] if len(instants) == 1 else ""
    wanted = _mac(secret.encode(), f"{instant}.", call.body).hex().encode()
    return _among(wanted, (value for name, _, value in parts if name == "v1")) & _fresh(instant, call.now)


def slack(call: Signed, secret: str) -> bool:
    """Slack: `X-Slack-Signature: v0=<hex>` of `v0:<seconds>:<body>`."""
    instant = call.headers.get("x-slack-request-timestamp", "")
    wanted = b"v0=" + _mac(secret.encode(), f"v0:{instant}:", call.body).hex().encode()
    return _among(wanted, [call.headers.get("x-slack-signature", "")]) & _fresh(instant, call.now)


def any_hmac(call: Signed, secret: str) -> bool:
    """An HMAC of the body in a header, as the options say."""
    options = call.options
    mac = hmac.digest(secret.encode(), call.body, options["algorithm"])
    given, prefix = call.headers.get(options["header"].lower(), ""), options["prefix"]
    value = given.removeprefix(prefix) if given.startswith(prefix) else ""
    if options["encoding"] == "hex":
        return _among(mac.hex().encode(), [value.lower()])
    return _among(base64.b64encode(mac), [value])


SCHEMES: dict[str, Scheme] = {
    "standard": standard,
    "github": github,
    "stripe": stripe,
    "slack": slack,
    "hmac": any_hmac,
}
OWN = (*SCHEMES, "bearer", "token", "none")
VERIFIERS: dict[str, Verifier] = {}


def standard_key(secret: str) -> bytes:
    """The key in a secret of Standard Webhooks: `whsec_` and base64, or the base64 alone.

    Raises:
        ValueError: when it is not one.
    """
    try:
        key = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("must be whsec_ and base64") from error
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"must hold {SHORTEST_KEY} bytes or more after whsec_, in base64")
    return key


def add_verifier(name: str, verifier: Verifier) -> None:
    """Offer a verifier of an extension to every webhook task.

    Raises:
        ConfigurationError: when there is another of that name.
    """
    if name in OWN or VERIFIERS.setdefault(name, verifier) is not verifier:
        raise ConfigurationError(f"there is a verifier called {name} already")


def _mac(key: bytes, before: str, body: bytes) -> bytes:
    return hmac.digest(key, before.encode() + body, "sha256")


def _among(wanted: bytes, given: Iterable[str]) -> bool:
    # A list, not a generator: every value is compared, so that time does not tell which one it was.
    return any([hmac.compare_digest(wanted, each.encode()) for each in given])


def _fresh(instant: str, now: float) -> bool:
    return UNIX_TIME.fullmatch(instant) is not None and abs(now - int(instant)) <= WINDOW_SECONDS
