"""Sealed secrets: opened only where they belong, never after a change, and by old keys after a rotation."""

import base64
import os
from typing import Any
from uuid import uuid4

import pytest

from app.credentials import PREFIX, Box, is_mask, is_sealed, mask
from app.errors import ConfigurationError, Unreadable
from app.settings import Settings

PLACE: dict[str, Any] = {"table": "tasks", "workspace": uuid4(), "row": uuid4(), "field": "slack_webhook_url"}
OTHERS = {"table": "credentials", "workspace": uuid4(), "row": uuid4(), "field": "secret"}
SECRET = "https://hooks.slack.com/services/T0/B0/çécret"


def key(name: str) -> str:
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


def box(*keys: str) -> Box:
    return Box.from_settings(Settings.of(parley_encryption_keys=",".join(keys)))


def test_what_is_sealed_is_opened_again_and_never_the_same_twice() -> None:
    one = box(key("k1"))
    first, second = one.seal(SECRET, **PLACE), one.seal(SECRET, **PLACE)
    assert first != second
    assert is_sealed(first)
    assert not is_sealed(SECRET)
    assert one.open(first, **PLACE) == one.open(second, **PLACE) == SECRET
    assert "hooks" not in first


def test_ids_and_their_texts_are_the_same_place() -> None:
    one = box(key("k1"))
    sealed = one.seal(SECRET, **PLACE)
    assert one.open(sealed, **{name: str(value) for name, value in PLACE.items()}) == SECRET


@pytest.mark.parametrize("part", OTHERS)
def test_a_value_moved_elsewhere_stays_closed(part: str) -> None:
    one = box(key("k1"))
    with pytest.raises(Unreadable):
        one.open(one.seal(SECRET, **PLACE), **PLACE | {part: OTHERS[part]})


def test_parts_that_join_to_the_same_text_are_different_places() -> None:
    one = box(key("k1"))
    sealed = one.seal(SECRET, table="a", workspace="b|c", row="d", field="e")
    with pytest.raises(Unreadable):
        one.open(sealed, table="a|b", workspace="c", row="d", field="e")


def test_any_flipped_bit_is_noticed() -> None:
    one = box(key("k1"))
    body = base64.urlsafe_b64decode(one.seal("x", **PLACE).removeprefix(PREFIX))
    for at in range(len(body)):
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        with pytest.raises(Unreadable):
            one.open(PREFIX + base64.urlsafe_b64encode(changed).decode(), **PLACE)


def test_any_truncation_is_noticed() -> None:
    one = box(key("k1"))
    body = base64.urlsafe_b64decode(one.seal(SECRET, **PLACE).removeprefix(PREFIX))
    for length in range(len(body)):
        with pytest.raises(Unreadable):
            one.open(PREFIX + base64.urlsafe_b64encode(body[:length]).decode(), **PLACE)


@pytest.mark.parametrize("text", ["", "plain", PREFIX, PREFIX + "!!!", PREFIX + "çç", "sealed:v2:AAAA"])
def test_what_was_never_sealed_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        box(key("k1")).open(text, **PLACE)


def test_a_rotation_seals_with_the_first_key_and_opens_with_all() -> None:
    old, new = key("k1"), key("k2")
    before = box(old).seal(SECRET, **PLACE)
    both = box(new, old)
    after = both.seal(SECRET, **PLACE)
    assert both.open(before, **PLACE) == both.open(after, **PLACE) == SECRET
    assert box(new).open(after, **PLACE) == SECRET
    with pytest.raises(Unreadable, match="'k1' is not in PARLEY_ENCRYPTION_KEYS"):
        box(new).open(before, **PLACE)


def test_another_key_of_the_same_name_does_not_open() -> None:
    with pytest.raises(Unreadable):
        box(key("k1")).open(box(key("k1")).seal(SECRET, **PLACE), **PLACE)


def test_without_keys_sealing_says_what_to_do() -> None:
    empty = Box.from_settings(Settings.of())
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32") as caught:
        empty.seal(SECRET, **PLACE)
    assert caught.value.field == "PARLEY_ENCRYPTION_KEYS"
    with pytest.raises(Unreadable):
        empty.open(box(key("k1")).seal(SECRET, **PLACE), **PLACE)


@pytest.mark.parametrize(
    "text", ["nonsense", "k1", "k1:", "k1:AAAA", "k1:%%%", ":" + "A" * 44, "k 1:" + "A" * 43 + "="]
)
def test_a_wrong_setting_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        box(text)
    assert caught.value.field == "PARLEY_ENCRYPTION_KEYS"
    assert "%%%" not in caught.value.detail


def test_the_same_key_id_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        box(key("k1"), key("k1"))


def test_url_safe_base64_is_read_too() -> None:
    raw = b"\xff\xfe" * 16
    assert box("k:" + base64.urlsafe_b64encode(raw).decode()).keys == {"k": raw}


def test_keys_are_not_shown() -> None:
    assert "keys" not in repr(box(key("k1")))


def test_a_mask_shows_the_last_four_of_a_long_secret_only() -> None:
    assert mask("https://hooks.slack.com/services/T/B/abcdWXYZ") == "****WXYZ"
    assert mask("short") == mask("") == "****"
    assert is_mask("****WXYZ")
    assert is_mask("****")
    assert not is_mask("https://example.com")
    assert not is_mask("****WXYZ-and-more")
