"""The usual fires of a batch, in one statement: they leave what the steps would have left, and share no fault."""

import json
import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.db import SYSTEM_PRINCIPAL, Row
from app.tasks import fire
from app.tasks.begin import begin_usual
from tests.tasks.tasks import Desk

TABLES = {
    "conversations": "select * from conversations where task_id = $1 order by id",
    "heads": "select h.* from heads h join conversations c on c.id = h.conversation_id where c.task_id = $1",
    "runs": "select * from runs where task_id = $1 order by id",
    "inputs": "select i.* from inputs i join runs r on r.id = i.run_id where r.task_id = $1 order by i.id",
    "events": "select e.* from events e join runs r on r.id = e.run_id where r.task_id = $1 order by e.conversation_id, e.seq",
    "fires": "select * from fires where task_id = $1 order by id",
}
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
# To the hour: both are fired in the same one.
TIMES = re.compile(r"(\d{4}-\d\d-\d\d)[T ]\d\d:\d\d:\d\d(\.\d+)?")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with data": {"context_data": {"shop": 7}, "prompt": "Report {{ context.shop }} at {{ timezone }}."},
    "by the calendar": {"schedule_expression": "0 9 1 1 *", "interval_seconds": None, "timezone": "Asia/Kathmandu"},
    "beside its last run": {"overlap": "allow"},
    "told its last report": {"prompt": "Before: {{ last.result }} {{ last.outcome }}"},
    "with limits": {
        "priority": 3,
        "timeout_seconds": 60,
        "queue_timeout_seconds": 600,
        "retry": {"max_attempts": 2},
        "concurrency": {"key": "shop", "limit": 2},
        "title": "Prices",
    },
}


async def left_by(desk: Desk, task_id: UUID) -> dict[str, Any]:
    """All that a task's fires have left, but for ids and instants."""
    found = {name: await desk.database.fetch(query, task_id) for name, query in TABLES.items()}
    return {name: [_shape(row) for row in rows] for name, rows in found.items()}


def _shape(row: Row) -> dict[str, Any]:
    return {name: _blurred(value) for name, value in dict(row).items() if name != "ran_seconds"}


def _blurred(value: Any) -> str:
    text = str(value.isoformat() if isinstance(value, datetime) else json.dumps(value, default=str, sort_keys=True))
    return TIMES.sub("<time>", IDS.sub("<id>", text))


async def begun_before(desk: Desk, kind: str, task_id: UUID) -> None:
    """What the kind needs to have happened."""
    if kind in ("beside its last run", "told its last report"):
        await desk.fire()
        await desk.database.execute(
            "update tasks set next_fire_at = now() - interval '2 seconds' where id = $1", task_id
        )
    if kind == "told its last report":
        (run,) = await desk.runs(task_id)
        await desk.end(run, "All was well.")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pinned", ["published", "older"])
async def test_together_they_leave_what_the_steps_leave(
    desk: Desk, kind: str, pinned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[dict[str, Any]] = []
    for together in (True, False):
        task_id = await desk.schedule(due=2, **KINDS[kind])
        await begun_before(desk, kind, task_id)
        if pinned == "older":
            await desk.database.execute("update agents set published_version = published_version + 1")
        used: list[int] = []

        async def begin(connection: Any, due: list[Row], *, together: bool = together, used: list[int] = used) -> Any:
            begun = await begin_usual(connection, due) if together else {}
            used.append(len(begun))
            return begun

        with monkeypatch.context() as patched:
            patched.setattr(fire, "begin_usual", begin)
            looked = await desk.fire()
        if pinned == "older":
            await desk.database.execute("update agents set published_version = published_version - 1")
        assert used == [int(together)]
        (accepted,) = looked.accepted
        told = [accepted.ready, accepted.waits, [(event.seq, event.type) for event in accepted.events]]
        is_over = (await desk.task(task_id))["next_fire_at"] > accepted.events[0].at
        left.append(await left_by(desk, task_id) | {"accepted": told, "next": is_over})
        await desk.database.execute("update tasks set enabled = false")
    assert left[0] == left[1]


async def test_what_is_usual_is_fired_together_and_the_rest_as_ever(desk: Desk) -> None:
    usual = [await desk.schedule(due=2) for _ in range(3)]
    missed = await desk.schedule(due=3605)
    again = await desk.schedule(due=2)
    await desk.database.execute(
        "insert into fires (id, workspace_id, task_id, kind, due_at, count, outcome)"
        " select gen_random_uuid(), workspace_id, id, 'schedule', next_fire_at, 1, 'skipped' from tasks where id = $1",
        again,
    )
    broken = await desk.schedule(due=2, prompt="{{ fire_time + 1 }}")
    await desk.fire()
    for task_id in usual:
        assert await desk.outcomes(task_id) == ["run"]
    assert await desk.outcomes(missed) == ["missed", "run"]
    assert await desk.outcomes(again) == ["skipped"]
    assert await desk.runs(again) == []
    assert not (await desk.task(broken))["enabled"]
    assert (await desk.fire()).tasks == 0


async def test_a_fault_of_one_leaves_nothing_of_it_and_all_of_the_others(desk: Desk) -> None:
    bad, *good = [await desk.schedule(due=2, title=title) for title in ("bad", "good", "good")]
    await desk.database.execute("alter table conversations add constraint fault check (title <> 'bad')")
    try:
        fired = await desk.fire()
    finally:
        await desk.database.execute("alter table conversations drop constraint fault")
    assert fired.failed == {bad}
    assert len(fired.accepted) == 2
    assert await desk.outcomes(bad) == []
    for task_id in good:
        assert await desk.outcomes(task_id) == ["run"]
        assert len(await desk.runs(task_id)) == 1


async def test_jitter_delays_the_run_and_nobody_is_woken_for_it(desk: Desk) -> None:
    task_id = await desk.schedule(due=1, jitter_seconds=600)
    looked = await desk.fire()
    (run,) = await desk.runs(task_id)
    assert timedelta(0) < run["run_at"] - run["created_at"] <= timedelta(seconds=600)
    assert [accepted.ready for accepted in looked.accepted] == [False]
    assert run["principal_id"] == SYSTEM_PRINCIPAL
