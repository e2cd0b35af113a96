"""Where a research job stands, read from its messages."""

from app.executor.research import Phase, job_of, phase_of
from app.messages import Json, prompt

REQUEST = prompt("What do tides do?")
ANSWER: Json = {"parts": [{"content": "They rise.", "part_kind": "text"}], "kind": "response"}


def asked(phase: Phase) -> Json:
    return prompt("Go on") | {"metadata": phase.metadata()}


def messages(*bodies: Json) -> list[Json]:
    return [{"seq": seq, "run_id": f"run-{seq % 2}", "body": body} for seq, body in enumerate(bodies, start=1)]


def test_a_job_begins_with_a_plan() -> None:
    assert phase_of(job_of(messages(REQUEST))) == Phase()


def test_a_run_that_goes_on_after_another_failed_finds_its_phase() -> None:
    second = Phase(("why?", "when?"), 1)
    told = messages(REQUEST, ANSWER, asked(Phase(("why?", "when?"))), ANSWER, asked(second))
    assert phase_of(job_of(told)) == second


def test_a_new_request_is_a_new_job() -> None:
    told = messages(REQUEST, ANSWER, asked(Phase(("why?",), 1)), ANSWER, prompt("And the moon?"))
    assert job_of(told) == [prompt("And the moon?")]
    assert phase_of(job_of(told)) == Phase()
