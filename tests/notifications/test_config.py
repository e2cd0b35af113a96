"""What a notification_config may say, and what is kept and shown of it."""

import base64
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from app.credentials import Box
from app.errors import ConfigurationError, InvalidRequest, Unreadable
from app.notifications.config import NotificationConfig, callback_secrets, shown, slack_url
from app.settings import Settings

SLACK = "https://hooks.slack.com/services/YOUR/WEBHOOK"
WORKSPACE, TASK = UUID(int=1), UUID(int=2)
BOX = Box.from_settings(Settings.of(parley_encryption_keys=f"k:{base64.b64encode(bytes(32)).decode()}"))


def config(**values: Any) -> NotificationConfig:
    return NotificationConfig.model_validate(values)


def check(given: NotificationConfig, *, default_slack: bool = False, allow: str = "", bot: bool = False) -> None:
    values = {"slack_webhook_url": SLACK.lower().replace("your", "t")} if default_slack else {}
    token = {"slack_bot_token": "xoxb-1"} if bot else {}
    given.check(Settings.of(parley_egress_allow=allow, **values, **token))


def test_the_examples_of_the_contract_are_right() -> None:
    mail = config(channels=["email"], email_address="user@example.com")
    slack = config(channels=["slack"], slack_webhook_url=SLACK)
    check(mail)
    check(slack)
    assert mail.on == slack.on == ["completed", "failed", "waiting"]


def test_channels_follow_from_the_addresses_when_left_out() -> None:
    assert config(email_address="a@b.c", slack_webhook_url=SLACK).channels == ["email", "slack"]
    assert config().channels == []
    assert config(channels=[], email_address="a@b.c").channels == []


CALLBACK = {"channels": ["webhook"], "callback_url": "https://example.com/hook"}
SIGNING = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OLDER = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba98").decode()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"channels": ["webhook"]}, "callback_url"),
        ({"slack_webhook_url": SLACK, "slack_channel": "#ops"}, "slack_channel"),
        ({"channels": ["slack"], "slack_channel": "#ops"}, "slack_channel"),
        ({"slack_channel": "<!channel>"}, "slack_channel"),
        ({"slack_channel": "#a\r\nb"}, "slack_channel"),
        ({**CALLBACK, "callback_url": "http://example.com/hook"}, "callback_url"),
        ({**CALLBACK, "callback_url": "https://127.0.0.1/hook"}, "callback_url"),
        ({**CALLBACK, "callback_url": "https://10.0.0.1/hook"}, "callback_url"),
        ({**CALLBACK, "callback_url": "https://user:secret@example.com/"}, "callback_url"),
        ({**CALLBACK, "callback_url": "https://example.com/a\r\nX: y"}, "callback_url"),
        ({**CALLBACK, "callback_url": "https://example.com:22/"}, "callback_url"),
        ({**CALLBACK, "callback_url": "ftp://example.com/"}, "callback_url"),
        ({**CALLBACK, "callback_url": "https://[::1"}, "callback_url"),
        ({**CALLBACK, "callback_url": ""}, "callback_url"),
        ({**CALLBACK, "callback_secret": "whsec_c2hvcnQ="}, "callback_secret"),
        ({**CALLBACK, "callback_secret": "not base64 at all"}, "callback_secret"),
    ],
)
def test_what_can_not_be_sent_to_is_refused_by_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(config(**values))
    assert caught.value.field == f"notification_config.{field}"


def test_a_bot_and_a_callback_are_taken_where_the_server_allows_them() -> None:
    check(config(slack_channel="#ops"), bot=True)
    check(config(**CALLBACK, callback_secret=[SIGNING, OLDER]))
    check(config(**{**CALLBACK, "callback_url": "http://127.0.0.1:9999/hook"}), allow="127.0.0.1:9999")
    assert config(slack_channel="C012345", callback_url="https://example.com").channels == ["slack", "webhook"]


def test_callback_secrets_are_sealed_and_rotated_by_sending_the_mask_of_the_old_one_back() -> None:
    stored = config(**CALLBACK, callback_secret=SIGNING).stored(BOX, workspace=WORKSPACE, task=TASK)
    assert SIGNING not in str(stored)
    kept = config(**shown(stored))
    assert kept.model_dump()["callback_secret"] == "****" + SIGNING[-4:]
    both = config(**CALLBACK, callback_secret=[OLDER, "****" + SIGNING[-4:]])
    again = both.stored(BOX, workspace=WORKSPACE, task=TASK, previous=stored)
    assert callback_secrets(again, BOX, workspace=WORKSPACE, task=TASK) == [OLDER, SIGNING]
    with pytest.raises(InvalidRequest, match="a mask"):
        config(**CALLBACK, callback_secret="****abcd").stored(BOX, workspace=WORKSPACE, task=TASK, previous=stored)
    with pytest.raises(ValidationError):
        config(**CALLBACK, callback_secret=[SIGNING, OLDER, SIGNING])


@pytest.mark.parametrize(
    "values",
    [
        {"channels": ["sms"]},
        {"channels": "email"},
        {"email": "a@b.c"},
        {"on": ["finished"]},
        {"email_address": 7},
        {"email_address": [f"u{n}@example.com" for n in range(21)]},
        {"slack_webhook_url": "https://hooks.slack.com/services/" + "x" * 500},
    ],
)
def test_wrong_shapes_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**values)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "user",
        "@example.com",
        "user@",
        "a@b@c",
        "user@example.com\r\nBcc: all@example.com",
        "user@example.com\n",
        "user@exa mple.com",
        "User <user@example.com>",
        "a@example.com, b@example.com",
        "user@-example.com",
        "user@example..com",
        ".user@example.com",
        "usér@example.com",
        "user@example.com\x00",
        "x" * 65 + "@example.com",
        "u@" + "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 63,
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="not an e-mail address"):
        config(channels=["email"], email_address=["ok@example.com", address])


@pytest.mark.parametrize("address", ["user@example.com", "first.last+tag@sub.example.co", "root@localhost", "o'h@x.io"])
def test_addresses_are_kept_as_they_were_sent(address: str) -> None:
    assert config(email_address=address).model_dump(mode="json")["email_address"] == address


def test_the_same_address_twice_is_one() -> None:
    assert len(config(email_address=["a@b.c", "A@B.C", "d@e.f"]).email_address or []) == 2


def test_each_channel_needs_where_to_send() -> None:
    with pytest.raises(InvalidRequest) as caught:
        config(channels=["email"])
    assert caught.value.field == "notification_config.email_address"
    slack = config(channels=["slack"])
    check(slack, default_slack=True)
    with pytest.raises(InvalidRequest) as caught:
        check(slack)
    assert caught.value.field == "notification_config.slack_webhook_url"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.slack.com/services/T/B/x",
        "https://hooks.slack.com.evil.com/services/T/B/x",
        "https://hooks.slack.com@evil.com/services/T/B/x",
        "https://user@hooks.slack.com/services/T/B/x",
        "https://hooks.slack.com:8443/services/T/B/x",
        "https://hooks.slack.com/api/T/B/x",
        "https://example.com/services/T",
        "http://127.0.0.1:8080/hook",
        "ftp://127.0.0.1:9999/",
        "https://[::1/",
        "https://hooks.slack.com/services/a b",
        "https://hooks.slack.com/services/a\r\nX: y",
        "javascript:alert(1)",
        "",
    ],
)
def test_a_url_that_is_not_slacks_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(config(channels=["slack"], slack_webhook_url=url), allow="127.0.0.1:9999")
    assert caught.value.field == "notification_config.slack_webhook_url"


@pytest.mark.parametrize("allow", ["127.0.0.1:9999", "localhost:9999", "127.0.0.0/8"])
def test_the_operator_may_let_other_hosts_through(allow: str) -> None:
    check(config(channels=["slack"], slack_webhook_url="http://127.0.0.1:9999/hook"), allow=allow)


def test_a_slack_url_is_stored_sealed_and_shown_masked() -> None:
    given = config(channels=["slack"], slack_webhook_url=SLACK, on=["failed"])
    stored = given.stored(BOX, workspace=WORKSPACE, task=TASK)
    assert "hooks" not in str(stored)
    assert shown(stored) == {"channels": ["slack"], "slack_webhook_url": "****HOOK", "on": ["failed"]}
    assert slack_url(stored, BOX, workspace=WORKSPACE, task=TASK) == SLACK
    with pytest.raises(Unreadable):
        slack_url(stored, BOX, workspace=WORKSPACE, task=UUID(int=3))
    back = NotificationConfig.from_stored(stored)
    assert back
    assert (back.channels, back.slack_webhook_url) == (["slack"], "****HOOK")
    assert NotificationConfig.from_stored(None) is None


def test_the_mask_sent_back_changes_nothing() -> None:
    stored = config(slack_webhook_url=SLACK).stored(BOX, workspace=WORKSPACE, task=TASK)
    again = config(slack_webhook_url="****HOOK", on=["failed"])
    check(again)
    patched = again.stored(BOX, workspace=WORKSPACE, task=TASK, previous=stored)
    assert patched["slack_webhook_url"] == stored["slack_webhook_url"]
    assert patched["on"] == ["failed"]


@pytest.mark.parametrize("previous", [None, {}, {"slack_webhook_url": {"sealed": "x", "mask": "****ABCD"}}])
def test_a_mask_of_nothing_stored_is_refused(previous: Any) -> None:
    with pytest.raises(InvalidRequest, match="send the whole value"):
        config(slack_webhook_url="****HOOK").stored(BOX, workspace=WORKSPACE, task=TASK, previous=previous)


def test_without_a_key_a_secret_is_not_stored_but_an_address_is() -> None:
    empty = Box.from_settings(Settings.of())
    assert config(email_address="a@b.c").stored(empty, workspace=WORKSPACE, task=TASK)
    with pytest.raises(ConfigurationError):
        config(slack_webhook_url=SLACK).stored(empty, workspace=WORKSPACE, task=TASK)
