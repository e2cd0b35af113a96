"""Alerts: what whoever runs the server hears of, once per occasion, and by a channel that works."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.db import DEFAULT_WORKSPACE, Database
from app.errors import LeaseLost
from app.models import new_id
from app.notifications import alerts
from app.notifications.channel import Means
from app.notifications.deliver import Sender
from app.notifications.render import render_mail
from app.notifications.slack_message import render_slack
from app.settings import Settings
from app.settle import failed
from tests.engine import World
from tests.notifications.conftest import make_notice
from tests.notifications.servers import MailServer, SlackStandIn
from tests.tasks.tasks import Desk

MakeMeans = Callable[..., Means]
TASK = """
insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, auto_pause_after, next_fire_at)
select $1, $2, 'scheduled', 'Report', 'p', id, $3, $4 from agents where workspace_id = $2 and name = 'assistant'
"""


@pytest.fixture
def desk(database: Database, settings: Settings) -> Desk:
    return Desk(database, settings)


async def send_all(sender: Sender) -> None:
    while await sender.send_due():
        pass


async def told(database: Database) -> list[tuple[str, str, str]]:
    rows = await database.fetch("select event, channel, state from deliveries where event like 'alert.%' order by id")
    return [(row["event"], row["channel"], row["state"]) for row in rows]


async def test_a_dead_channel_is_told_of_by_another_once_an_hour(
    database: Database, settings: Settings, means: MakeMeans, slack: SlackStandIn
) -> None:
    async with MailServer(recipient_reply="550 no such user") as server:
        given = means(
            database,
            smtp_host="127.0.0.1",
            smtp_port=server.port,
            parley_alert_email="admin@example.com",
            parley_alert_slack_webhook_url=slack.url,
        )
        sender = Sender(database, given)
        for number in range(3):
            await database.execute(
                "insert into deliveries (id, workspace_id, event, channel, address, message_id, payload)"
                " values ($1, $2, 'run.completed', 'email', 'gone@example.com', $3, $4)",
                new_id(),
                DEFAULT_WORKSPACE,
                f"<{number}@localhost>",
                {"title": "Report", "base_url": "http://localhost", "event_seq": None},
            )
        await send_all(sender)
    assert await told(database) == [("alert.delivery_dead", "slack", "sent")]
    assert len(slack.received) == 1
    assert "550 no such user" in str(slack.received[0])


async def test_when_the_only_way_is_the_dead_one_the_alert_still_has_its_row(
    database: Database, means: MakeMeans
) -> None:
    given = means(database, parley_alert_email="admin@example.com")
    async with database.engine_tx() as connection:
        await alerts.tell(connection, given.settings, [alerts.delivery_dead("email", "a@b.c", "550", "now")])
    assert await told(database) == [("alert.delivery_dead", "email", "pending")]


async def test_a_task_that_its_failures_paused_is_told_of(database: Database, settings: Settings) -> None:
    named = settings.model_copy(update={"parley_alert_email": "admin@example.com"})
    world = World(database, named)
    task_id = new_id()
    await database.execute(TASK, task_id, DEFAULT_WORKSPACE, 2, None)
    for _ in range(2):
        claim = await world.one()
        await database.execute("update runs set task_id = $2 where id = $1", claim.run_id, task_id)
        await world.settle(claim, failed(LeaseLost("no")), claim.fenced)
    [row] = await database.fetch("select event, payload from deliveries")
    assert row["event"] == "alert.task_paused"
    assert row["payload"]["title"] == "Alert: the task Report was paused"
    assert "2 failures in a row" in row["payload"]["text"]


async def test_what_the_database_shows_is_looked_for_and_told_once(database: Database, settings: Settings) -> None:
    named = settings.model_copy(update={"parley_alert_email": "admin@example.com"})
    assert await alerts.watch(database, named) is False
    accepted = await World(database, named).queued()
    await database.execute("update runs set run_at = now() - interval '5 min' where id = $1", accepted.run_id)
    late = await database.fetchval("select now() - interval '5 min'")
    await database.execute(TASK, new_id(), DEFAULT_WORKSPACE, None, late)
    await database.execute(
        "insert into breakers (key, provider, address, failures, error, opened_at, probe_at)"
        " values ('k', 'openai', 'api.openai.com', 5, '503', now(), now())"
    )
    assert await alerts.watch(database, named) is True
    assert await alerts.watch(database, named) is False
    assert sorted(event for event, _, _ in await told(database)) == [
        "alert.breaker_open",
        "alert.no_worker",
        "alert.scheduler_late",
    ]
    assert await alerts.watch(database, settings) is False


@pytest.mark.parametrize(
    ("columns", "late"),
    [
        ("overlap = 'queue'", False),
        ("catch_up = 'all'", False),
        ("catch_up = 'all', overlap = 'allow'", True),
        ("overlap = 'skip'", True),
    ],
)
async def test_who_waits_for_the_run_before_is_not_late(desk: Desk, columns: str, late: bool) -> None:
    task_id = await desk.schedule(due=1)
    await desk.fire()
    await desk.database.execute(f"update tasks set next_fire_at = now() - interval '5 min', {columns}")
    assert bool(await alerts.look(desk.database, desk.settings)) is late
    await desk.end((await desk.runs(task_id))[0])
    assert [alert.kind for alert in await alerts.look(desk.database, desk.settings)] == ["scheduler_late"]


async def test_without_a_worker_alerts_are_sent_and_nothing_else(
    database: Database, means: MakeMeans, tmp_path: Any
) -> None:
    given = means(database, parley_alert_email="admin@example.com")
    await test_when_the_only_way_is_the_dead_one_the_alert_still_has_its_row(database, lambda *_, **__: given)
    await database.execute(
        "insert into deliveries (id, workspace_id, event, channel, address, message_id, payload)"
        " values ($1, $2, 'run.completed', 'email', 'a@b.c', '<1@x>', '{}')",
        new_id(),
        DEFAULT_WORKSPACE,
    )
    assert await Sender(database, given).send_due(alerts_only=True) == 1
    assert await told(database) == [("alert.delivery_dead", "email", "sent")]


@pytest.mark.parametrize("free", [0.01, 0.5])
async def test_a_disk_that_is_nearly_full_is_told_of(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, free: float
) -> None:
    class Usage:
        total = 1_000_000_000
        free = 0

    usage = Usage()
    usage.free = int(free * usage.total)
    monkeypatch.setattr("app.notifications.alerts._usage", lambda _: usage)
    found = [alert.kind for alert in await alerts.look(database, settings)]
    assert found == (["disk"] if free < alerts.LEAST_FREE else [])


async def test_a_disk_that_can_not_be_asked_hides_no_other_alert(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(path: object) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("shutil.disk_usage", away)
    desk.settings.parley_home.mkdir()
    await desk.schedule(due=300)
    assert [alert.kind for alert in await alerts.look(desk.database, desk.settings)] == ["scheduler_late"]


@pytest.mark.parametrize("kind", ["dead", "paused"])
def test_words_of_others_are_no_links_in_an_alert(kind: str) -> None:
    said = "answered 404 [Sign in](https://evil.example/login) ![](https://evil.example/a.png) **now** `a_b"
    dead = alerts.delivery_dead("webhook", "https://evil.example/[x](https://evil.example)", said, "now")
    alert = dead if kind == "dead" else alerts.task_paused(None, "t", said, "now")
    notice = make_notice(title=alert.title, text=alert.text)
    mail = render_mail(notice)
    assert 'href="https://evil.example' not in mail.html
    assert "<img" not in mail.html
    assert "[Sign in](https://evil.example/login)" in mail.text
    shown = json.dumps(render_slack(notice))
    assert "<https://evil.example/login|" not in shown
    assert "Sign in" in shown
