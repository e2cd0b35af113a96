import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import ModelMessagesTypeAdapter

from app.executor.converse import history_of
from app.executor.recorder import body_of
from app.messages import (
    arguments_of,
    clean_result,
    clean_text,
    clean_value,
    parts_of,
    prompt,
    reworded,
    role_of,
    text_of,
)

FIXTURES = Path(__file__).parent / "fixtures"
# One file per format that was ever written; none may be changed, conversations of that time are full of them.
STORED: list[dict[str, Any]] = json.loads((FIXTURES / "messages_v1.json").read_text())


@pytest.mark.parametrize("number", range(len(STORED)))
def test_messages_of_format_1_stay_readable(number: int) -> None:
    stored = STORED[number]
    body = stored["body"]
    (message,) = history_of([body])
    again = body_of(message)
    assert (role_of(body), text_of(body), parts_of(body)) == (stored["role"], stored["text"], stored["parts"])
    assert (text_of(again), parts_of(again)) == (stored["text"], stored["parts"])
    assert history_of([again]) == [message]


def test_a_whole_history_of_format_1_is_read_at_once() -> None:
    assert len(history_of([stored["body"] for stored in STORED])) == len(STORED)


def test_a_prompt_is_read_as_the_library_writes_it() -> None:
    (message,) = history_of([prompt("Hi", tag="app_state", value={"a": "<b>"}, description="Data.")])
    dumped = ModelMessagesTypeAdapter.dump_python([message], mode="json")[0]
    structured, said = dumped["parts"][0]["content"]
    assert said == "Hi"
    assert structured["content"] == 'Data.\n<app_state>{"a":"\\u003cb\\u003e"}</app_state>'


def test_another_text_keeps_the_data() -> None:
    said = {"role": "user", "text": "one", "message": prompt("one", tag="t", value=1)}
    again = reworded(said, "two")
    assert text_of(again["message"]) == again["text"] == "two"
    assert parts_of(again["message"])[0] == parts_of(said["message"])[0]
    plain = reworded({"role": "user", "text": "one", "message": prompt("one")}, "two")
    assert plain["message"] == prompt("two")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_anything_becomes_storable(value: Any) -> None:
    for clean in (clean_value(value), clean_result(value)):
        text = json.dumps(clean, allow_nan=False)
        assert "\\u0000" not in text
        json.dumps(clean, ensure_ascii=False).encode()
        assert clean_value(clean) == clean


@given(st.text(st.characters(), max_size=50))
def test_text_is_cleaned_once_and_for_all(text: str) -> None:
    clean = clean_text(text)
    assert clean_text(clean) == clean
    clean.encode()
    assert "\x00" not in clean


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('{"n": 1}', {"n": 1}),
        ({"n": 1}, {"n": 1}),
        ("", {}),
        (None, {}),
        ("null", "null"),
        ("[]", "[]"),
        ('""', '""'),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_that_are_no_object_stay_as_they_came(sent: object, kept: object) -> None:
    assert arguments_of(sent) == kept
