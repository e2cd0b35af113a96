"""Which rows an event makes."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.notifications import NotificationConfig, plan
from app.notifications.notice import MAX_TEXT, Notice
from tests.notifications.conftest import make_notice


def config(**values: Any) -> NotificationConfig:
    return NotificationConfig.model_validate(values)


BOTH = config(channels=["email", "slack"], email_address=["a@example.com", "b@example.com"])


def test_each_address_of_each_channel_has_a_row() -> None:
    planned = plan(make_notice(), BOTH, default_slack=True)
    assert [(each.channel, each.address, each.state) for each in planned] == [
        ("email", "a@example.com", "pending"),
        ("email", "b@example.com", "pending"),
        ("slack", "slack:default", "pending"),
    ]
    assert {each.event for each in planned} == {"run.completed"}
    assert len({each.message_id for each in planned}) == len({each.dedup_key for each in planned}) == 3


def test_planning_again_gives_the_same_rows() -> None:
    assert plan(make_notice(), BOTH, default_slack=True) == plan(make_notice(), BOTH, default_slack=True)


def test_another_event_has_another_message_id() -> None:
    first, second = (plan(make_notice(event_seq=seq), BOTH, default_slack=True)[0] for seq in (7, 8))
    assert first.message_id != second.message_id
    assert first.message_id.endswith("@parley.example.com>")


def test_nobody_is_told_without_a_config_or_of_an_event_that_is_never_told() -> None:
    assert plan(make_notice(), None, default_slack=True) == []
    assert plan(make_notice(), config(), default_slack=True) == []
    assert plan(make_notice(event="tool.started"), BOTH, default_slack=True) == []


@pytest.mark.parametrize("event", ["run.started", "run.progress", "run.recovered"])
def test_steps_that_were_not_asked_for_leave_no_row(event: str) -> None:
    assert plan(make_notice(event=event), BOTH, default_slack=True) == []
    asked = config(email_address="a@b.c", on=["started", "progress", "recovered"])
    assert [each.state for each in plan(make_notice(event=event), asked, default_slack=True)] == ["pending"]


def test_an_outcome_that_was_not_asked_for_is_recorded_with_the_reason() -> None:
    (only,) = plan(make_notice(), config(email_address="a@b.c", on=["failed"]), default_slack=True)
    assert (only.state, only.reason) == ("suppressed", "the task's notifications leave out completed")


def test_a_missing_slack_url_is_recorded_with_the_reason() -> None:
    states = {each.channel: each.state for each in plan(make_notice(), BOTH, default_slack=False)}
    assert states == {"email": "pending", "slack": "suppressed"}


def test_nothing_changed_is_kept_quiet_with_the_reason() -> None:
    planned = plan(make_notice(quiet="no change"), BOTH, default_slack=True)
    assert {(each.state, each.reason) for each in planned} == {("suppressed", "no change")}


def test_a_slack_url_is_shown_by_its_mask_only() -> None:
    (only,) = plan(make_notice(), config(channels=["slack"], slack_webhook_url="****WXYZ"), default_slack=False)
    assert only.address == "slack:****WXYZ"


def test_a_notice_comes_back_from_its_row() -> None:
    notice = make_notice(finished_at=datetime(2026, 11, 20, 9, tzinfo=UTC), error="odd")
    row = {name: getattr(notice, name) for name in ("event", "workspace_id", "conversation_id", "run_id", "task_id")}
    assert Notice.of_row(row | {"payload": notice.payload()}) == notice
    assert Notice.of_row(row | {"payload": notice.payload() | {"from_the_future": 1}}) == notice


def test_a_long_text_is_capped_in_the_row() -> None:
    notice = replace(make_notice(), text="x" * 1_000_000, title="t" * 5_000)
    assert len(str(notice.payload())) < MAX_TEXT + 2_000


def test_a_channel_that_is_gone_is_recorded_with_the_reason() -> None:
    stored = {"channels": ["pager", "email"], "email_address": "a@b.c", "on": ["completed"]}
    planned = plan(make_notice(), NotificationConfig.from_stored(stored), default_slack=True)
    assert [(each.channel, each.state, each.reason) for each in planned] == [
        ("pager", "suppressed", "this version has no channel 'pager'"),
        ("email", "pending", None),
    ]
