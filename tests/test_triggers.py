"""What a webhook call is about: paths, filters, correlation, delivery ids, and how much of it a model reads."""

from typing import Any

import pytest

from app.paths import steps_of, values_at
from app.triggers import DELIVERY_HEADERS, Call
from app.triggers.payload import MOST_CHARACTERS, challenge_of, correlation_of, passes, receipt_key, told

PAYLOAD = {"a": {"b-c": [1, {"d": None}]}, "odd name": True, "0": "zero", "é": {"": 5}, "l": [{"n": 1}, {}, {"n": 2}]}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("$", [PAYLOAD]),
        ("$.a.b-c[0]", [1]),
        ("$.a.b-c[1].d", [None]),
        ("$['odd name']", [True]),
        ('$["odd name"]', [True]),
        ("$['0']", ["zero"]),
        ("$.a['b-c'][0]", [1]),
        ("$.a.b-c[-1].d", [None]),
        ("$.é['']", [5]),
        ("$['\\u00e9']['']", [5]),
        ("$.l[*].n", [1, 2]),
        ("$.a.*[0]", [1]),
        ("$.a.b-c[2]", []),
        ("$.a.b-c[-3]", []),
        ("$.a.b-c.d", []),
        ("$.missing.deeper[0]", []),
        ("$[0]", []),
        ("$['0'][0]", []),
    ],
)
def test_paths(path: str, values: list[Any]) -> None:
    assert values_at(path, PAYLOAD) == values


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "a",
            "$.",
            "a.b",
            "$[",
            "$['a",
            "$.a ",
            "$.#",
            "$.~a",
            "$[01]",
            "$[99999999999999999999]",
            "^.a",
            "$|$.a",
        ),
        *("$..a", "$.a..b", "$[?@.a]", "$[?match(@.a, '(x+)+y')]", "$[0, 1]", "$[0:1]", "$[*, *]"),
    ],
)
def test_what_is_no_path_or_could_take_its_time_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"must be|may hold"):
        steps_of(path)


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


def test_a_filter_is_content_with_one_of_many() -> None:
    wanted = {"path": "$.labels[*].name", "equals": "bug"}
    assert passes(wanted, {"labels": [{"name": "ui"}, {"name": "bug"}]})
    assert not passes(wanted, {"labels": [{"name": "ui"}]})
    assert not passes(wanted, {"labels": []})


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
    return Call({name.replace("_", "-"): value for name, value in headers.items()}, "", body)


def key(call: Call, payload: Any = None, verifier: str | None = None, dedup: str = "id") -> str | None:
    return receipt_key(call, payload, {"verifier": verifier, "dedup": dedup})


@pytest.mark.parametrize("verifier", [None, "none", "token", "bearer", "hmac", "of-an-extension"])
@pytest.mark.parametrize("header", DELIVERY_HEADERS)
def test_every_header_that_may_hold_an_id(header: str, verifier: str | None) -> None:
    assert key(call(**{header: "1"}), verifier=verifier) == f"{header}:1"
    assert key(call(**{header: "x" * 5000}), verifier=verifier) != f"{header}:{'x' * 5000}"


def test_without_an_id_nothing_makes_calls_the_same() -> None:
    assert key(call(x_request_id="1")) is None


def test_senders_of_known_ways_have_their_ids_in_one_place() -> None:
    anywhere = dict.fromkeys(DELIVERY_HEADERS, "1")
    assert key(call(**anywhere), {"id": "evt_1", "event_id": "Ev1"}, "stripe") == "id:evt_1"
    assert key(call(**anywhere), {"id": "evt_1", "event_id": "Ev1"}, "slack") == "event_id:Ev1"
    assert key(call(**anywhere), {}, "github") == "x-github-delivery:1"
    assert key(call(**anywhere), {}, "standard") == "webhook-id:1"
    for verifier in ("stripe", "slack"):
        assert [key(call(**anywhere), payload, verifier) for payload in ({}, [], None, {"id": 7, "event_id": ""})] == [
            None
        ] * 4


def test_a_captured_call_is_no_other_one_under_other_headers() -> None:
    assert key(call(webhook_id="msg_1"), {}, "standard") == key(call(svix_id="msg_1"), {}, "standard")


def test_by_body_the_id_does_not_matter() -> None:
    one, other = call(b"1", webhook_id="a"), call(b"1", webhook_id="b")
    assert key(one, dedup="body") == key(other, dedup="body")
    assert key(one, dedup="body") != key(call(b"2"), dedup="body")


def test_only_slacks_challenge_is_answered() -> None:
    asked = {"type": "url_verification", "challenge": "abc"}
    assert challenge_of({"verifier": "slack"}, asked) == "abc"
    assert challenge_of({"verifier": "none"}, asked) is None
    for other in ({**asked, "type": "event_callback"}, {**asked, "challenge": 7}, [], None):
        assert challenge_of({"verifier": "slack"}, other) is None


def test_of_a_long_payload_the_model_reads_the_beginning() -> None:
    short, long = {"text": "x" * 1000}, {"text": "x" * MOST_CHARACTERS}
    assert told(short) is short
    said = told(long)
    assert said["beginning"].startswith('{"text":"xxx')
    assert len(said["beginning"]) == MOST_CHARACTERS
    assert said["characters"] == MOST_CHARACTERS + len('{"text":""}')
