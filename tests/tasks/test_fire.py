"""Firing: one fire per task and due instant, whatever races; what was missed is accounted for."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app import tasks
from app.conversations import Turn, reply
from app.db import DEFAULT_WORKSPACE, Database
from app.models import new_id
from app.settings import Settings
from app.tasks import TaskPatch
from tests.tasks.tasks import Desk


async def test_a_due_instant_starts_one_run(desk: Desk) -> None:
    task_id = await desk.schedule(due=1)
    fired = await desk.fire()
    (run,) = await desk.runs(task_id)
    (fire,) = await desk.fires(task_id)
    assert [accepted.run_id for accepted in fired.accepted] == [run["id"]] == [fire["run_id"]]
    assert fired.accepted[0].ready
    assert (fire["kind"], fire["outcome"], fire["count"]) == ("schedule", "run", 1)
    assert (run["fire_id"], run["state"], run["agent_version"]) == (fire["id"], "queued", 1)


async def test_an_interval_keeps_its_phase(desk: Desk) -> None:
    task_id = await desk.schedule(due=5, interval_seconds=60)
    due = (await desk.task(task_id))["next_fire_at"]
    await desk.fire()
    assert (await desk.task(task_id))["next_fire_at"] == due + timedelta(seconds=60)


async def test_nothing_fires_before_its_time_or_twice(desk: Desk) -> None:
    await desk.create()
    task_id = await desk.schedule(due=1)
    await desk.fire()
    assert (await desk.fire()).tasks == 0
    assert await desk.outcomes(task_id) == ["run"]


async def test_an_instant_is_accounted_for_once_even_when_it_comes_due_again(desk: Desk) -> None:
    task_id = await desk.schedule(due=1)
    (started,) = (await desk.fire()).accepted
    (run,) = await desk.runs(task_id)
    await desk.end(run)
    await desk.database.execute("update tasks set next_fire_at = (select min(due_at) from fires)")
    assert (await desk.fire()).accepted == []
    assert [fire["run_id"] for fire in await desk.fires(task_id)] == [started.run_id]


async def test_any_number_of_schedulers_fire_an_instant_once(desk: Desk) -> None:
    ids = [await desk.schedule(due=1) for _ in range(30)]
    ids += [await desk.schedule(due=1, conversation="same") for _ in range(5)]
    ids += [await desk.schedule(due=1, overlap="interrupt") for _ in range(5)]
    looks = await desk.fire_at_once(6)
    assert sum(len(look.accepted) for look in looks) == len(ids)
    for task_id in ids:
        assert await desk.outcomes(task_id) == ["run"]
        assert len(await desk.runs(task_id)) == 1


async def test_a_scheduler_that_dies_between_fire_and_advance_leaves_nothing(desk: Desk, settings: Settings) -> None:
    task_id = await desk.schedule(due=1)
    dying = await Database.open(settings, name="dying")
    await desk.database.execute(
        "create function stall() returns trigger language plpgsql as $$ begin perform pg_sleep(30); return new; end $$;"
        "create trigger stall before update on tasks for each row execute function stall()"
    )
    try:
        look = asyncio.create_task(tasks.fire_due(dying, settings))
        await _until_stalled(desk)
        await desk.database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dying'"
        )
        with pytest.raises(Exception, match="not available"):
            await look
    finally:
        await desk.database.execute("drop trigger stall on tasks; drop function stall()")
        await dying.close()
    assert await desk.outcomes(task_id) == []
    await desk.fire()
    assert await desk.outcomes(task_id) == ["run"]
    assert len(await desk.runs(task_id)) == 1


async def _until_stalled(desk: Desk) -> None:
    async with asyncio.timeout(10):
        while not await desk.database.fetchval(
            "select exists (select from pg_stat_activity where wait_event = 'PgSleep')"
        ):
            await asyncio.sleep(0.01)


async def test_a_broken_schedule_is_paused_and_stops_nobody(desk: Desk) -> None:
    zone = await desk.schedule(due=3, schedule_expression="0 9 * * *", interval_seconds=None)
    cron = await desk.schedule(due=2, schedule_expression="0 9 * * *", interval_seconds=None)
    template = await desk.schedule(due=2, prompt="{{ fire_time + 1 }}")
    good = await desk.schedule(due=1)
    await desk.database.execute("update tasks set timezone = 'Mars/Olympus' where id = $1", zone)
    await desk.database.execute("update tasks set schedule_expression = '99 * * * *' where id = $1", cron)
    await desk.fire()
    assert await desk.outcomes(good) == ["run"]
    for task_id, word in ((zone, "Mars/Olympus"), (cron, "minute"), (template, "prompt")):
        row = await desk.task(task_id)
        assert not row["enabled"]
        assert word in row["paused_reason"]
        assert await desk.outcomes(task_id) == []


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("timezone = 'Mars/Olympus'", "Mars/Olympus"),
        ("timezone = 'Mars/Olympus', interval_seconds = null, run_at = next_fire_at", "Mars/Olympus"),
        ("schedule_expression = '99 * * * *', interval_seconds = null", "minute"),
        ("prompt = '{{ fire_time + 1 }}'", "prompt"),
    ],
)
async def test_a_pause_by_the_scheduler_is_told_of_once(desk: Desk, row: str, word: str) -> None:
    desk.settings = desk.settings.model_copy(update={"parley_alert_email": "admin@example.com"})
    task_id = await desk.schedule(due=3, title="Prices")
    await desk.database.execute(f"update tasks set {row}")
    for _ in range(2):
        assert (await desk.fire()).failed == set()
        await desk.database.execute("update tasks set enabled = true")
    (told,) = await desk.database.fetch("select event, payload from deliveries")
    assert told["event"] == "alert.task_paused"
    assert told["payload"]["title"] == "Alert: the task Prices was paused"
    assert word in told["payload"]["text"]
    assert str(task_id) in told["payload"]["text"]


async def test_a_fault_that_is_not_the_tasks_leaves_it_due_and_stops_nobody(desk: Desk) -> None:
    bad, good = await desk.schedule(due=2, title="bad"), await desk.schedule(due=1)
    await desk.database.execute("alter table conversations add constraint fault check (title <> 'bad')")
    try:
        fired = await desk.fire()
    finally:
        await desk.database.execute("alter table conversations drop constraint fault")
    assert fired.failed == {bad}
    assert await desk.outcomes(good) == ["run"]
    assert (await desk.task(bad))["enabled"]
    assert (await desk.fire(without=list(fired.failed))).tasks == 0
    await desk.fire()
    assert await desk.outcomes(bad) == ["run"]


# --- catching up ---------------------------------------------------------------------------------------


async def test_latest_makes_up_for_the_last_missed_instant(desk: Desk) -> None:
    task_id = await desk.schedule(due=3605, interval_seconds=600)
    first = (await desk.task(task_id))["next_fire_at"]
    await desk.fire()
    missed, run = await desk.fires(task_id)
    assert (missed["outcome"], missed["count"]) == ("missed", 6)
    assert (missed["due_at"], missed["due_until"]) == (first, first + timedelta(seconds=3000))
    assert (run["outcome"], run["due_at"]) == ("run", first + timedelta(seconds=3600))


async def test_what_is_older_than_the_window_is_missed(desk: Desk) -> None:
    task_id = await desk.schedule(due=3300, interval_seconds=3600, catch_up_window_seconds=1800)
    await desk.fire()
    (missed,) = await desk.fires(task_id)
    assert missed["outcome"] == "missed"
    assert "1800 seconds" in missed["reason"]
    assert (await desk.task(task_id))["next_fire_at"] > (await desk.task(task_id))["now"]


async def test_none_makes_up_for_nothing_but_is_not_late_by_seconds(desk: Desk) -> None:
    late = await desk.schedule(due=300, interval_seconds=600, catch_up="none")
    on_time = await desk.schedule(due=5, interval_seconds=600, catch_up="none")
    await desk.fire()
    assert await desk.outcomes(late) == ["missed"]
    assert await desk.outcomes(on_time) == ["run"]


@pytest.mark.parametrize("catch_up", [{"catch_up": "none"}, {"catch_up_window_seconds": 0}])
async def test_a_fire_that_is_late_because_schedulers_are_busy_is_not_lost(
    desk: Desk, catch_up: dict[str, Any]
) -> None:
    alive = "insert into workers (id, kind, host, pid, slots, running, started_at, seen_at)"
    since = " values ('s', $1, 'here', 1, 0, 0, now() - $2::interval, now() - $3::interval)"
    hour = timedelta(hours=1)
    for kind, started, seen, outcome in (
        ("scheduler", hour, timedelta(seconds=5), "run"),
        ("worker", hour, timedelta(seconds=5), "missed"),
        ("scheduler", hour, timedelta(minutes=4), "missed"),
        ("scheduler", timedelta(minutes=1), timedelta(seconds=5), "missed"),
    ):
        await desk.database.execute(f"delete from workers; {alive} values ('x', 'worker', 'h', 1, 0, 0, now(), now())")
        await desk.database.execute(alive + since, kind, started, seen)
        task_id = await desk.schedule(due=200, interval_seconds=600, **catch_up)
        await desk.fire()
        assert await desk.outcomes(task_id) == [outcome]


async def test_a_start_that_was_switched_off_when_it_came_due_is_late_whoever_was_watching(desk: Desk) -> None:
    await desk.database.execute(
        "insert into workers (id, kind, host, pid, slots, running, started_at)"
        " values ('s', 'scheduler', 'here', 1, 0, 0, now() - interval '1 hour')"
    )
    once = {"interval_seconds": None, "run_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    for catch_up, outcome in (("none", "missed"), ("latest", "run")):
        task_id = await desk.schedule(due=200, catch_up=catch_up, **once)
        await desk.database.execute("update tasks set run_at = next_fire_at where id = $1", task_id)
        async with desk.database.engine_tx() as connection:
            await tasks.disable(connection, DEFAULT_WORKSPACE, task_id)
            await tasks.enable(connection, DEFAULT_WORKSPACE, task_id)
        await desk.fire()
        assert await desk.outcomes(task_id) == [outcome]


async def test_what_was_left_out_has_a_reason_that_is_true(desk: Desk) -> None:
    none = await desk.schedule(due=200, catch_up="none")
    old = await desk.schedule(due=300, interval_seconds=600, catch_up_window_seconds=100)
    waiting = await desk.schedule(due=2, overlap="queue")
    await desk.fire()
    await desk.database.execute("update tasks set next_fire_at = now() - interval '30 min' where id = $1", waiting)
    (run,) = await desk.runs(waiting)
    await desk.end(run)
    await desk.fire()
    reasons = [
        next(fire["reason"] for fire in await desk.fires(task_id) if fire["outcome"] == "missed")
        for task_id in (none, old, waiting)
    ]
    assert reasons == [
        "not looked at within 60 seconds, and catch_up is none",
        "not started within the 100 seconds of catch_up_window_seconds",
        f"the run {run['id']} had not ended; of the instants that wait only the latest is started",
    ]


async def test_all_starts_each_missed_instant_one_after_the_other(desk: Desk) -> None:
    task_id = await desk.schedule(due=1870, interval_seconds=600, catch_up="all")
    for started in range(1, 5):
        await desk.fire()
        assert (await desk.fire()).tasks == 0
        runs = await desk.runs(task_id)
        assert len(runs) == started
        await desk.end(runs[-1])
    assert await desk.outcomes(task_id) == ["run"] * 4
    assert (await desk.fire()).tasks == 0


async def test_all_with_overlap_allowed_starts_them_at_once(desk: Desk) -> None:
    task_id = await desk.schedule(due=6005, interval_seconds=60, catch_up="all", overlap="allow")
    while (await desk.fire()).tasks:
        pass
    assert await desk.outcomes(task_id) == ["run"] * 101
    assert len({fire["due_at"] for fire in await desk.fires(task_id)}) == 101


async def test_a_month_of_minutes_is_one_row(desk: Desk) -> None:
    task_id = await desk.schedule(due=30 * 86_400, schedule_expression="* * * * *", interval_seconds=None)
    await desk.fire()
    missed, _ = await desk.fires(task_id)
    assert 43_190 <= missed["count"] <= 43_201


# --- overlap -------------------------------------------------------------------------------------------


async def _again(desk: Desk, task_id: object) -> None:
    await desk.database.execute("update tasks set next_fire_at = now() - interval '1 second' where id = $1", task_id)


async def test_skip_names_the_run_that_is_in_the_way(desk: Desk) -> None:
    task_id = await desk.schedule(due=2)
    await desk.fire()
    await _again(desk, task_id)
    await desk.fire()
    ran, skipped = await desk.fires(task_id)
    assert skipped["outcome"] == "skipped"
    assert str(ran["run_id"]) in skipped["reason"]
    await desk.end((await desk.runs(task_id))[0])
    await _again(desk, task_id)
    await desk.fire()
    assert await desk.outcomes(task_id) == ["run", "skipped", "run"]


async def test_instants_skipped_for_one_reason_are_one_row(desk: Desk) -> None:
    task_id = await desk.schedule(due=2)
    await desk.fire()
    (run,) = await desk.runs(task_id)
    for _ in range(3):
        await _again(desk, task_id)
        await desk.fire()
        last = (await desk.task(task_id))["next_fire_at"]
    _, skipped = await desk.fires(task_id)
    assert (skipped["outcome"], skipped["count"]) == ("skipped", 3)
    assert skipped["due_at"] < skipped["due_until"] < last
    await desk.end(run)
    for _ in range(3):
        await _again(desk, task_id)
        await desk.fire()
    assert await desk.outcomes(task_id) == ["run", "skipped", "run", "skipped"]
    assert [fire["count"] for fire in await desk.fires(task_id)] == [1, 3, 1, 2]


async def test_instants_skipped_for_another_reason_are_another_row(desk: Desk) -> None:
    task_id = await desk.schedule(due=2)
    await desk.fire()
    await _again(desk, task_id)
    await desk.fire()
    await _again(desk, task_id)
    async with desk.database.engine_tx() as connection:
        await tasks.disable(connection, DEFAULT_WORKSPACE, task_id)
        await tasks.enable(connection, DEFAULT_WORKSPACE, task_id)
    _, skipped, passed = await desk.fires(task_id)
    assert (skipped["count"], passed["count"], passed["reason"]) == (1, 1, "the task was disabled")


async def test_an_instant_within_a_skipped_stretch_is_accounted_for_already(desk: Desk) -> None:
    task_id = await desk.schedule(due=2)
    await desk.fire()
    for _ in range(3):
        await _again(desk, task_id)
        await desk.fire()
    (run,) = await desk.runs(task_id)
    await desk.end(run)
    await desk.database.execute("update tasks set next_fire_at = (select max(due_until) from fires)")
    assert (await desk.fire()).accepted == []
    assert await desk.outcomes(task_id) == ["run", "skipped"]


async def test_allow_starts_beside_it(desk: Desk) -> None:
    task_id = await desk.schedule(due=2, overlap="allow")
    await desk.fire()
    await _again(desk, task_id)
    await desk.fire()
    assert [run["state"] for run in await desk.runs(task_id)] == ["queued", "queued"]


async def test_queue_waits_for_the_end(desk: Desk) -> None:
    task_id = await desk.schedule(due=2, overlap="queue")
    await desk.fire()
    await _again(desk, task_id)
    assert (await desk.fire()).tasks == 0
    await desk.end((await desk.runs(task_id))[0], fails=True)
    await desk.fire()
    assert await desk.outcomes(task_id) == ["run", "run"]


@pytest.mark.parametrize("conversation", ["new", "same"])
async def test_interrupt_cancels_the_run_before(desk: Desk, conversation: str) -> None:
    task_id = await desk.schedule(due=2, overlap="interrupt", conversation=conversation)
    await desk.fire()
    await _again(desk, task_id)
    fired = await desk.fire()
    first, second = await desk.runs(task_id)
    assert (first["state"], second["state"]) == ("cancelled", "queued")
    assert second["ready"]
    assert (first["conversation_id"] == second["conversation_id"]) == (conversation == "same")
    assert "run.cancelled" in {event.type for accepted in fired.accepted for event in accepted.events}


async def test_a_task_whose_one_conversation_was_deleted_goes_on_in_another(desk: Desk) -> None:
    task_id = await desk.schedule(due=2, conversation="same")
    first = (await desk.task(task_id))["conversation_id"]
    await desk.database.execute("delete from conversations")
    looks = await desk.fire_at_once(3)
    assert sum(len(look.accepted) for look in looks) == 1
    row = await desk.task(task_id)
    (run,) = await desk.runs(task_id)
    assert (row["enabled"], row["paused_reason"]) == (True, None)
    assert row["conversation_id"] == run["conversation_id"] != first
    (fire,) = await desk.fires(task_id)
    assert fire["conversation_id"] == run["conversation_id"]
    await desk.end(run)
    await desk.database.execute("delete from conversations")
    async with desk.database.engine_tx() as connection:
        by_hand = await tasks.execute(connection, desk.settings, DEFAULT_WORKSPACE, task_id)
    assert by_hand.conversation_id == (await desk.task(task_id))["conversation_id"] != run["conversation_id"]


async def test_a_conversation_that_is_deleted_right_now_pauses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await desk.schedule(due=2, conversation="same")
    await desk.database.execute("delete from conversations")

    async def deleted_once_more(*_: object) -> None:
        """As if the one that was begun had gone at once."""

    with monkeypatch.context() as gone:
        gone.setattr("app.tasks.fire.own_conversation", deleted_once_more)
        assert (await desk.fire()).tasks == 0
    await desk.fire()
    assert await desk.outcomes(task_id) == ["run"]


async def test_interrupt_leaves_the_answers_to_people_alone(desk: Desk) -> None:
    """Only the task's own run before is cancelled; what people asked in the same conversation is answered."""
    task_id = await desk.schedule(due=2, overlap="interrupt", conversation="same")
    await desk.fire()
    conversation_id = (await desk.task(task_id))["conversation_id"]
    async with desk.database.engine_tx() as connection:
        asked = await reply(connection, desk.settings, DEFAULT_WORKSPACE, conversation_id, Turn("And yesterday?"))
    await _again(desk, task_id)
    await desk.fire()
    states = await desk.database.fetch("select id, state, ready from runs order by number")
    assert [row["state"] for row in states] == ["cancelled", "queued", "queued"]
    assert (states[1]["id"], states[1]["ready"]) == (asked.run_id, True)


async def test_interrupt_asks_a_running_run_to_stop(desk: Desk) -> None:
    task_id = await desk.schedule(due=2, overlap="interrupt")
    await desk.fire()
    (run,) = await desk.runs(task_id)
    await desk.database.execute(
        "update runs set state = 'running', owner = 'test', lease_until = now() + interval '1 minute' where id = $1",
        run["id"],
    )
    await _again(desk, task_id)
    fired = await desk.fire()
    assert run["id"] in {accepted.cancelling for accepted in fired.accepted}
    assert (await desk.runs(task_id))[0]["cancel_requested_at"] is not None


async def test_firing_and_settling_do_not_lock_each_other(desk: Desk) -> None:
    """Ends that count failures in the task's row race with fires that interrupt the very same runs."""
    ids = [await desk.schedule(due=1, overlap="interrupt", conversation=each) for each in ("new", "same") * 3]
    for _ in range(4):
        await desk.fire_at_once(2)
        runs = [run for task_id in ids for run in await desk.runs(task_id) if run["state"] == "queued"]
        for task_id in ids:
            await _again(desk, task_id)
        await asyncio.gather(*(desk.end(run, fails=True) for run in runs if run["ready"]), desk.fire(), desk.fire())
    for task_id in ids:
        assert (await desk.task(task_id))["enabled"]
        assert "missed" not in await desk.outcomes(task_id)


@pytest.mark.parametrize("conversation", ["new", "same"])
async def test_a_start_that_waits_for_a_head_does_not_hold_its_task(desk: Desk, conversation: str) -> None:
    """`settle` goes from the head to the task: whoever comes the other way round would lock it out for ever."""
    task_id = await desk.schedule(due=2, overlap="interrupt", conversation=conversation)
    await desk.fire()
    await _again(desk, task_id)
    (run,) = await desk.runs(task_id)
    async with desk.database.engine_tx() as connection:
        await connection.execute(
            "select from heads where conversation_id = $1 for no key update", run["conversation_id"]
        )
        look = asyncio.create_task(desk.fire())
        async with asyncio.timeout(10):
            while not await desk.database.fetchval(
                "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'heads')"
            ):
                await asyncio.sleep(0.01)
        await connection.execute("set local lock_timeout = '2s'")
        await connection.execute("update tasks set consecutive_failures = 1 where id = $1", task_id)
    await look
    assert await desk.outcomes(task_id) == ["run", "run"]


# --- what a start says ---------------------------------------------------------------------------------


async def test_same_goes_on_in_the_tasks_own_conversation(desk: Desk) -> None:
    task_id = await desk.schedule(due=2, conversation="same", overlap="allow")
    await desk.fire()
    await _again(desk, task_id)
    await desk.fire()
    first, second = await desk.runs(task_id)
    assert first["conversation_id"] == second["conversation_id"] == (await desk.task(task_id))["conversation_id"]
    assert (first["ready"], second["ready"]) == (True, False)


async def test_the_prompt_knows_its_fire_and_the_last_outcome(desk: Desk) -> None:
    prompt = "It is {{ fire_time }} in {{ timezone }}. Last: {{ last.outcome }} {{ last.result }}"
    task_id = await desk.schedule(due=2, prompt=prompt, timezone="Europe/Berlin", context_data={"team": "ops"})
    due = (await desk.task(task_id))["next_fire_at"]
    await desk.fire()
    (run,) = await desk.runs(task_id)
    await desk.end(run, result="All quiet.")
    await _again(desk, task_id)
    await desk.fire()
    first, second = [await desk.input_of(run["id"]) for run in await desk.runs(task_id)]
    assert first["text"].startswith(
        f"It is {due.astimezone(ZoneInfo('Europe/Berlin')).isoformat(timespec='seconds')} in Europe/Berlin. Last: "
    )
    assert second["text"].endswith("Last: completed All quiet.")
    (data, _) = second["message"]["parts"][0]["content"]
    assert data["tag"] == "fire"
    assert data["value"]["previous"]["outcome"] == "completed"
    assert data["value"]["previous"]["result"] == "All quiet."
    assert data["value"]["context_data"] == {"team": "ops"}
    assert first["message"]["parts"][0]["content"][0]["value"]["previous"] is None


async def test_jitter_delays_the_run_not_the_fire(desk: Desk) -> None:
    task_id = await desk.schedule(due=1, jitter_seconds=3600)
    due = (await desk.task(task_id))["next_fire_at"]
    fired = await desk.fire()
    (run,), (fire,) = await desk.runs(task_id), await desk.fires(task_id)
    assert fire["due_at"] == due
    assert due < run["run_at"] <= (await desk.task(task_id))["now"] + timedelta(seconds=3600)
    assert not fired.accepted[0].ready


async def test_a_one_shot_fires_once(desk: Desk) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    task_id = await desk.schedule(due=1, interval_seconds=None, run_at=soon.isoformat())
    await desk.fire()
    assert await desk.outcomes(task_id) == ["run"]
    assert (await desk.task(task_id))["next_fire_at"] is None


async def test_failures_in_a_row_pause_the_task(desk: Desk) -> None:
    task_id = await desk.schedule(due=1, auto_pause_after=2)
    for _ in range(2):
        await _again(desk, task_id)
        await desk.fire()
        await desk.end((await desk.runs(task_id))[-1], fails=True)
    await _again(desk, task_id)
    assert (await desk.fire()).tasks == 0
    row = await desk.task(task_id)
    assert not row["enabled"]
    assert row["paused_reason"] == "paused after 2 failures in a row; the last: broke"


async def test_what_is_off_or_gone_does_not_fire(desk: Desk) -> None:
    off, gone = await desk.schedule(due=1), await desk.schedule(due=1)
    async with desk.database.engine_tx() as connection:
        await tasks.disable(connection, DEFAULT_WORKSPACE, off)
        await tasks.delete(connection, DEFAULT_WORKSPACE, gone)
    assert (await desk.fire()).tasks == 0
    async with desk.database.engine_tx() as connection:
        await tasks.enable(connection, DEFAULT_WORKSPACE, off)
    row = await desk.task(off)
    assert row["next_fire_at"] > row["now"]
    (passed,) = await desk.fires(off)
    assert (passed["outcome"], passed["count"], passed["reason"]) == ("skipped", 1, "the task was disabled")


async def test_an_edit_races_with_a_look(desk: Desk) -> None:
    ids = [await desk.schedule(due=1) for _ in range(10)]

    async def edit(task_id: object) -> None:
        async with desk.database.engine_tx() as connection:
            changes = TaskPatch.model_validate({"interval_seconds": 1200})
            await tasks.patch(connection, desk.settings, DEFAULT_WORKSPACE, task_id, changes)

    await asyncio.gather(*(edit(task_id) for task_id in ids), desk.fire(), desk.fire())
    while (await desk.fire()).tasks:
        pass
    for task_id in ids:
        row = await desk.task(task_id)
        assert row["next_fire_at"] > row["now"]
        assert (await desk.outcomes(task_id)) in (["skipped"], ["run"])


async def test_by_hand_a_disabled_task_starts_too(desk: Desk) -> None:
    task_id = await desk.schedule(due=1)
    run_id = new_id()
    async with desk.database.engine_tx() as connection:
        await tasks.disable(connection, DEFAULT_WORKSPACE, task_id)
        accepted = await tasks.execute(connection, desk.settings, DEFAULT_WORKSPACE, task_id, run_id=run_id)
    (fire,) = await desk.fires(task_id)
    assert (fire["kind"], fire["run_id"], accepted.run_id) == ("manual", run_id, run_id)


async def test_the_next_instant_is_told_in_seconds(desk: Desk) -> None:
    assert await tasks.seconds_to_next(desk.database) is None
    await desk.create(interval_seconds=60)
    await desk.create(interval_seconds=30)
    assert 25 < (await tasks.seconds_to_next(desk.database) or 0) <= 30
