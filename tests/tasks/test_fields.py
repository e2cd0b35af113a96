"""What a task may say, and what a refusal names."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import InvalidRequest, NotAvailable, ParleyError
from app.tasks import TaskBody, TaskPatch

DELEGATION = {"task_type": "delegation", "prompt": "Do it."}
SCHEDULED = {"task_type": "scheduled", "prompt": "Do it.", "schedule_expression": "0 9 * * *"}
TRIGGERED = {"task_type": "triggered", "prompt": "Do it."}


def refusal(values: dict[str, Any]) -> tuple[str, str]:
    """The field and the code (pydantic's own for shapes) of what is refused."""
    with pytest.raises((ParleyError, ValidationError)) as caught:
        TaskBody.model_validate(values)
    error = caught.value
    if isinstance(error, ParleyError):
        return error.field or "", error.code
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["type"]


@pytest.mark.parametrize(
    ("base", "values", "field"),
    [
        (DELEGATION, {"task_type": "weekly"}, "task_type"),
        (DELEGATION, {"prompt": ""}, "prompt"),
        (DELEGATION, {"prompt": " \n"}, "prompt"),
        (DELEGATION, {"prompt": "x" * 50_001}, "prompt"),
        (DELEGATION, {"prompt": 5}, "prompt"),
        (DELEGATION, {"nonsense": 1}, "nonsense"),
        (DELEGATION, {"title": "x" * 201}, "title"),
        (DELEGATION, {"context_data": [1]}, "context_data"),
        (DELEGATION, {"context_data": {"a": "x" * 200_000}}, "context_data"),
        (DELEGATION, {"input": ["x" * 200_000]}, "input"),
        (DELEGATION, {"priority": "high"}, "priority"),
        (DELEGATION, {"priority": True}, "priority"),
        (DELEGATION, {"priority": 1001}, "priority"),
        (DELEGATION, {"timeout_seconds": 0}, "timeout_seconds"),
        (DELEGATION, {"timeout_seconds": float("nan")}, "timeout_seconds"),
        (DELEGATION, {"queue_timeout_seconds": -1}, "queue_timeout_seconds"),
        (DELEGATION, {"retry": {"max_attempts": 0}}, "retry.max_attempts"),
        (DELEGATION, {"retry": {"max_attempts": 21}}, "retry.max_attempts"),
        (DELEGATION, {"retry": {"tries": 2}}, "retry.tries"),
        (DELEGATION, {"conversation": "old"}, "conversation"),
        (DELEGATION, {"run_at": "tomorrow"}, "run_at"),
        (DELEGATION, {"run_at": "2030-01-01T00:00:00"}, "run_at"),
        (DELEGATION, {"run_at": 1_900_000_000}, "run_at"),
        (DELEGATION, {"run_at": "9999-01-01T00:00:00Z"}, "run_at"),
        (DELEGATION, {"deadline": "0001-01-01T00:00:00+14:00"}, "deadline"),
        (DELEGATION, {"notification_config": {"channels": ["pigeon"]}}, "notification_config.channels.0"),
        (DELEGATION, {"notification_config": {"channels": ["email"]}}, "notification_config.email_address"),
        (DELEGATION, {"schedule_expression": "0 9 * * *"}, "schedule_expression"),
        (DELEGATION, {"interval_seconds": 60}, "interval_seconds"),
        (DELEGATION, {"timezone": "Europe/Berlin"}, "timezone"),
        (DELEGATION, {"trigger_config": {}}, "trigger_config"),
        (DELEGATION, {"auto_pause_after": 3}, "auto_pause_after"),
        (SCHEDULED, {"schedule_expression": None}, "schedule_expression"),
        (SCHEDULED, {"schedule_expression": "0 9 * *"}, "schedule_expression"),
        (SCHEDULED, {"schedule_expression": "0 0 31 2 *"}, "schedule_expression"),
        (SCHEDULED, {"schedule_expression": "61 * * * *"}, "schedule_expression"),
        (SCHEDULED, {"interval_seconds": 60}, "interval_seconds"),
        (SCHEDULED, {"run_at": "2030-01-01T00:00:00Z"}, "run_at"),
        (SCHEDULED, {"schedule_expression": None, "interval_seconds": 9}, "interval_seconds"),
        (SCHEDULED, {"timezone": "Mars/Olympus"}, "timezone"),
        (SCHEDULED, {"overlap": "never"}, "overlap"),
        (SCHEDULED, {"catch_up": "some"}, "catch_up"),
        (SCHEDULED, {"catch_up": "none", "overlap": "queue"}, "catch_up"),
        (SCHEDULED, {"catch_up_window_seconds": -1}, "catch_up_window_seconds"),
        (SCHEDULED, {"jitter_seconds": -1}, "jitter_seconds"),
        (SCHEDULED, {"auto_pause_after": 0}, "auto_pause_after"),
        (SCHEDULED, {"prompt": "{{ fire_time"}, "prompt"),
        (SCHEDULED, {"trigger_config": {}}, "trigger_config"),
        (TRIGGERED, {"run_at": "2030-01-01T00:00:00Z"}, "run_at"),
        (TRIGGERED, {"trigger_config": {"verifier": "magic"}}, "trigger_config.verifier"),
        (TRIGGERED, {"trigger_config": {"verifier": "none", "secret": "abcdef"}}, "trigger_config.secret"),
        (TRIGGERED, {"trigger_config": {"secret": "abc"}}, "trigger_config.secret"),
        (TRIGGERED, {"trigger_config": {"secret": "not ascii ü"}}, "trigger_config.secret"),
        (TRIGGERED, {"trigger_config": {"header": "X-Token"}}, "trigger_config.header"),
        (TRIGGERED, {"trigger_config": {"verifier": "token", "header": "X Token"}}, "trigger_config.header"),
        (TRIGGERED, {"trigger_config": {"dedup": "never"}}, "trigger_config.dedup"),
        (TRIGGERED, {"trigger_config": {"filter": {"path": "action", "equals": 1}}}, "trigger_config.filter.path"),
        (TRIGGERED, {"trigger_config": {"filter": {"path": "$.action"}}}, "trigger_config.filter.equals"),
        (TRIGGERED, {"trigger_config": {"correlation": "$..x"}}, "trigger_config.correlation"),
        (TRIGGERED, {"trigger_config": {"trusted": "yes"}}, "trigger_config.trusted"),
        (TRIGGERED, {"trigger_config": {"color": 1}}, "trigger_config.color"),
    ],
)
def test_a_refusal_names_the_field(base: dict[str, Any], values: dict[str, Any], field: str) -> None:
    assert refusal(base | values)[0] == field


@pytest.mark.parametrize("name", ["budget"])
def test_later_fields_are_refused_by_name_unless_null(name: str) -> None:
    assert refusal(DELEGATION | {name: [1]}) == (name, "not_available")
    TaskBody.model_validate(DELEGATION | {name: None})


def test_instants_become_utc() -> None:
    body = TaskBody.model_validate(DELEGATION | {"run_at": "2030-01-01T02:00:00+02:00"})
    assert body.run_at is not None
    assert body.run_at.isoformat() == "2030-01-01T00:00:00+00:00"


def test_a_webhook_needs_no_config() -> None:
    assert TaskBody.model_validate(TRIGGERED).trigger_config is not None


def test_a_null_is_the_default() -> None:
    nulls = dict.fromkeys(("title", "run_at", "schedule_expression", "trigger_config", "retry", "notification_config"))
    assert TaskBody.model_validate(DELEGATION | nulls).title is None


def test_only_scheduled_prompts_are_templates() -> None:
    TaskBody.model_validate(DELEGATION | {"prompt": "Explain {{ in Jinja."})


# --- changes -------------------------------------------------------------------------------------------


def test_a_new_rule_replaces_the_old_one() -> None:
    merged = TaskPatch.model_validate({"interval_seconds": 60}).merged(SCHEDULED)
    assert (merged.schedule_expression, merged.interval_seconds) == (None, 60)


def test_null_brings_the_default_back() -> None:
    merged = TaskPatch.model_validate({"timezone": None}).merged(SCHEDULED | {"timezone": "Europe/Berlin"})
    assert merged.timezone == "UTC"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schedule_expression": None}, "schedule_expression"),
        ({"prompt": None}, "prompt"),
        ({"timezone": "Nowhere"}, "timezone"),
        ({"trigger_config": {}}, "trigger_config"),
        ({"interval_seconds": 1}, "interval_seconds"),
    ],
)
def test_a_change_is_checked_like_a_new_task(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        TaskPatch.model_validate(changes).merged(SCHEDULED)
    assert caught.value.field == field


def test_a_task_keeps_its_type() -> None:
    with pytest.raises(InvalidRequest) as caught:
        TaskPatch.model_validate({"task_type": "research"})
    assert caught.value.field == "task_type"


def test_later_fields_are_refused_in_changes_too() -> None:
    with pytest.raises(NotAvailable):
        TaskPatch.model_validate({"budget": {"cost_usd": 1}})
