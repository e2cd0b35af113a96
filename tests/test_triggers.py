"""What a webhook call is about: paths, filters, correlation, delivery ids."""

from typing import Any

import pytest

from app.triggers import DELIVERY_HEADERS, Call
from app.triggers.payload import NOTHING, correlation_of, passes, receipt_key, value_at

PAYLOAD = {"a": {"b-c": [1, {"d": None}]}, "odd name": True, "0": "zero"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", PAYLOAD),
        ("$.a.b-c[0]", 1),
        ("$.a.b-c[1].d", None),
        ("$['odd name']", True),
        ("$['0']", "zero"),
        ("$.a['b-c'][0]", 1),
        ("$.a.b-c[2]", NOTHING),
        ("$.a.b-c.d", NOTHING),
        ("$.missing.deeper[0]", NOTHING),
        ("$[0]", NOTHING),
    ],
)
def test_paths(path: str, value: Any) -> None:
    found = value_at(path, PAYLOAD)
    assert found is value or found == value


@pytest.mark.parametrize(
    ("equals", "found", "passed"),
    [
        ("opened", "opened", True),
        ("opened", "Opened", False),
        (1, 1, True),
        (1, True, False),
        (True, 1, False),
        (None, None, True),
        ("1", 1, False),
    ],
)
def test_filters(equals: Any, found: Any, passed: bool) -> None:
    assert passes({"path": "$.x", "equals": equals}, {"x": found}) is passed


def test_a_filter_for_null_wants_the_field_to_be_there() -> None:
    assert not passes({"path": "$.x", "equals": None}, {})
    assert passes(None, {})


def test_correlation() -> None:
    assert correlation_of("$.n", {"n": 7}) == "7"
    assert correlation_of("$.n", {"n": "7"}) == "7"
    assert correlation_of("$.n", {"n": {"b": 1, "a": 2}}) == '{"a":2,"b":1}'
    assert correlation_of("$.n", {"n": None}) is None
    assert correlation_of("$.n", {}) is None
    assert correlation_of(None, {"n": 7}) is None
    long = correlation_of("$.n", {"n": "x" * 10_000})
    assert long is not None
    assert len(long) == len("sha256:") + 64


def call(body: bytes = b"{}", **headers: str) -> Call:
    return Call({name.replace("_", "-"): value for name, value in headers.items()}, "", body, {})


@pytest.mark.parametrize("header", DELIVERY_HEADERS)
def test_every_header_that_may_hold_an_id(header: str) -> None:
    assert receipt_key(call(**{header: "1"}), dedup="id") == f"{header}:1"
    assert receipt_key(call(**{header: "x" * 5000}), dedup="id") != f"{header}:{'x' * 5000}"


def test_without_an_id_nothing_makes_calls_the_same() -> None:
    assert receipt_key(call(x_request_id="1"), dedup="id") is None


def test_by_body_the_id_does_not_matter() -> None:
    one, other = call(b"1", webhook_id="a"), call(b"1", webhook_id="b")
    assert receipt_key(one, dedup="body") == receipt_key(other, dedup="body")
    assert receipt_key(one, dedup="body") != receipt_key(call(b"2"), dedup="body")
