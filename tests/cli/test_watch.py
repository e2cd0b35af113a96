from typing import Any

import pytest

from app.cli.watch import LiveText, phrase
from app.client import Event


def delta(text: str, offset: int, *, fence: int = 1, part: int = 0) -> Event:
    return Event("text.delta", {"seq": 2, "part": part, "fence": fence, "offset": offset, "delta": text})


def completed(text: str) -> Event:
    return Event("message.completed", {"message_seq": 2, "role": "assistant", "text": text}, "5")


def said(*events: Event) -> str:
    live = LiveText()
    return "".join(live.take(event) for event in events)


def test_deltas_are_printed_once() -> None:
    assert said(delta("Hel", 0), delta("lo", 3), completed("Hello")) == "Hello"


def test_without_deltas_the_message_is_printed() -> None:
    assert said(completed("Hello"), completed("again")) == "Helloagain"


def test_a_snapshot_adds_what_is_missing() -> None:
    snapshot = Event("text.snapshot", {"seq": 2, "part": 0, "fence": 1, "offset": 0, "text": "Hello, you"})
    assert said(delta("Hel", 0), snapshot, delta("!", 10), completed("Hello, you!")) == "Hello, you!"


def test_a_delta_that_does_not_fit_waits_for_the_message() -> None:
    assert said(delta("Hel", 0), delta("gap", 9), completed("Hello")) == "Hello"


def test_a_higher_fence_says_it_anew_and_a_lower_one_is_ignored() -> None:
    assert said(delta("Hel", 0), delta("Good", 0, fence=2), delta("lo", 3), completed("Good day")) == "Hel\nGood day"


def test_what_was_said_before_a_recovery_is_dropped() -> None:
    recovered = Event("run.recovered", {"seq": 4}, "4")
    assert said(delta("Hel", 0), recovered, completed("Hello")) == "Hel\nHello"


def test_parts_are_paragraphs() -> None:
    assert said(delta("One", 0), delta("Two", 0, part=2), completed("One\n\nTwo")) == "One\n\nTwo"


def test_thinking_is_not_the_answer() -> None:
    thinking = Event("text.snapshot", {"seq": 2, "part": 0, "fence": 1, "text": "hm", "kind": "thinking"})
    assert said(thinking, completed("Hello")) == "Hello"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("run.queued", {}, "queued"),
        ("tool.started", {"tool": "calculator"}, "calling calculator"),
        ("run.progress", {"text": "reading", "done": 2, "total": 5}, "reading (2 of 5)"),
        ("run.progress", {"text": "reading", "done": None, "total": None}, "reading"),
        ("run.failed", {"error": {"code": "model_failed", "message": "no", "retryable": False}},
         "failed: no (model_failed)"),
        ("usage", {}, None),
    ],
)  # fmt: skip
def test_progress_in_words(name: str, data: dict[str, Any], expected: str | None) -> None:
    assert phrase(Event(name, data)) == expected
