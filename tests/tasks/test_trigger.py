"""What a `trigger_config` may say, and how its secrets are kept."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from app.db import DEFAULT_WORKSPACE
from app.errors import Conflict, InvalidRequest, ParleyError
from app.models import new_id
from app.settings import Settings
from app.tasks import TriggerConfig, webhook
from app.verifiers import standard_key

TASK = new_id()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = {"workspace": DEFAULT_WORKSPACE, "task": TASK}
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def settings() -> Settings:
    return Settings.of(parley_encryption_keys=f"k1:{'A' * 43}=", parley_secret="a secret for tests")


def refused(config: dict[str, Any]) -> str:
    """The field of a config that is refused."""
    with pytest.raises((ParleyError, ValidationError)) as caught:
        TriggerConfig.model_validate(config)
    error = caught.value
    if isinstance(error, ParleyError):
        return (error.field or "").removeprefix("trigger_config.")
    return ".".join(str(part) for part in error.errors()[0]["loc"])


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"verifier": "standard", "secret": KEY},
        {"verifier": "standard", "secret": KEY.removeprefix("whsec_")},
        {"verifier": "github", "secret": "It's a Secret to Everybody"},
        {"verifier": "stripe"},
        {"verifier": "slack", "secret": "8f742231b10e8888abcd99yyyzzz85a5"},
        {"verifier": "hmac", "header": "X-Signature", "algorithm": "sha512", "encoding": "base64", "prefix": "v1="},
        {"verifier": "token", "header": "X-Gitlab-Token"},
        {"verifier": "bearer"},
        {"verifier": "none", "algorithm": "sha256", "encoding": "hex", "prefix": ""},
        {
            "filter": {"path": "$.labels[*].name", "equals": None},
            "correlation": "$['a b'][-1]",
            "runs_per_minute": 1000,
        },
    ],
)
def test_what_is_taken(config: dict[str, Any]) -> None:
    TriggerConfig.model_validate(config)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"verifier": "md5"}, "verifier"),
        ({"verifier": ["github"]}, "verifier"),
        ({"verifier": "standard", "secret": "whsec_not/base64!"}, "secret"),
        ({"verifier": "standard", "secret": "whsec_c2hvcnQ="}, "secret"),
        ({"verifier": "token", "secret": "with spaces"}, "secret"),
        ({"verifier": "github", "secret": "ümlaut"}, "secret"),
        ({"verifier": "none", "secret": "needless"}, "secret"),
        ({"secret": "abc"}, "secret"),
        ({"verifier": "hmac"}, "header"),
        ({"verifier": "hmac", "header": "X Signature"}, "header"),
        ({"verifier": "github", "header": "X-Signature"}, "header"),
        ({"verifier": "hmac", "header": "X", "algorithm": "md5"}, "algorithm"),
        ({"verifier": "hmac", "header": "X", "encoding": "base32"}, "encoding"),
        ({"verifier": "hmac", "header": "X", "prefix": "v1\n"}, "prefix"),
        ({"verifier": "github", "algorithm": "sha1"}, "algorithm"),
        ({"verifier": "token", "encoding": "base64"}, "encoding"),
        ({"verifier": "token", "prefix": "x"}, "prefix"),
        ({"filter": {"path": "$..action", "equals": 1}}, "filter.path"),
        ({"filter": {"path": "action", "equals": 1}}, "filter.path"),
        ({"filter": {"path": "$.a"}}, "filter.equals"),
        ({"filter": {"path": "$.a", "equals": [1]}}, "filter.equals.str"),
        ({"correlation": "$[?@.a]"}, "correlation"),
        ({"correlation": f"$.{'a' * 300}"}, "correlation"),
        ({"runs_per_minute": 0}, "runs_per_minute"),
        ({"runs_per_minute": 1001}, "runs_per_minute"),
        ({"runs_per_minute": "60"}, "runs_per_minute"),
        ({"trusted": "yes"}, "trusted"),
        ({"dedup": "header"}, "dedup"),
        ({"window": 300}, "window"),
    ],
)
def test_what_is_refused_names_its_field(config: dict[str, Any], field: str) -> None:
    assert refused(config) == field


def stored(
    settings: Settings, config: dict[str, Any], previous: dict[str, Any] | None = None
) -> tuple[Any, str | None]:
    return webhook.stored(TriggerConfig.model_validate(config), settings, **PLACE, previous=previous)


@pytest.mark.parametrize("verifier", ["standard", "github", "stripe", "slack", "bearer", "token"])
def test_a_secret_is_made_in_its_verifiers_form_and_never_kept_in_clear(settings: Settings, verifier: str) -> None:
    kept, secret = stored(settings, {"verifier": verifier})
    assert secret is not None
    assert len(secret) >= 32
    assert secret not in str(kept)
    assert webhook.shown(kept)["secret"] == f"****{secret[-4:]}"
    assert webhook.shown(kept, secret)["secret"] == secret
    if verifier == "standard":
        assert len(standard_key(secret)) == webhook.SECRET_BYTES


def test_a_secret_of_another_form_does_not_become_one_of_standard_webhooks(settings: Settings) -> None:
    token, _ = stored(settings, {"verifier": "token"})
    changed, secret = stored(settings, {"verifier": "standard"}, token)
    assert secret is not None
    assert secret.startswith("whsec_")
    assert len(changed["secrets"]) == 1
    again, fresh = stored(settings, {"verifier": "standard", "dedup": "body"}, changed)
    assert (fresh, again["secrets"]) == (None, changed["secrets"])


def rotated(settings: Settings, config: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
    return webhook.rotated(config, settings, **PLACE, now=NOW, **more)


def test_a_rotation_keeps_two_secrets_until_the_overlap_ends(settings: Settings) -> None:
    first, _ = stored(settings, {"verifier": "standard", "secret": KEY})
    second, secret = rotated(settings, first, overlap_seconds=60)
    assert standard_key(secret)
    assert [each["until"] for each in second["secrets"]] == [None, (NOW + timedelta(seconds=60)).isoformat()]
    third, _ = rotated(settings, second, overlap_seconds=60, secret=KEY)
    assert [each["mask"] for each in third["secrets"]] == ["****LaSw", f"****{secret[-4:]}"]
    assert len(rotated(settings, third, overlap_seconds=0)[0]["secrets"]) == 1


def test_a_rotation_refuses_what_its_verifier_could_not_use(settings: Settings) -> None:
    standard, _ = stored(settings, {"verifier": "standard", "secret": KEY})
    token, _ = stored(settings, {"verifier": "token"})
    for config, secret in ((standard, "chosen-by-the-sender"), (token, "with spaces"), (token, "****LaSw")):
        with pytest.raises(InvalidRequest) as caught:
            rotated(settings, config, overlap_seconds=0, secret=secret)
        assert caught.value.field == "secret"
    none, _ = stored(settings, {"verifier": "none"})
    with pytest.raises(Conflict):
        rotated(settings, none, overlap_seconds=0)
