"""The outbox on a real PostgreSQL: claimed once, sent, tried again, given up."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from app.artifacts import NewArtifact
from app.artifacts import insert as insert_artifact
from app.db import Connection, Database
from app.models import Base
from app.notifications import NotificationConfig, plan
from app.notifications.channel import Means
from app.notifications.deliver import LEASE_SECONDS, LOST_SENDERS, MAX_ATTEMPTS, Sender, claim, insert, retry_delay
from app.notifications.notice import Notice
from app.settings import Settings
from tests.cluster import session_cluster
from tests.notifications.conftest import CONVERSATION, RUN, TASK, WORKSPACE, make_notice, seen
from tests.notifications.servers import MailServer, ShortTempered, SlackStandIn

MakeMeans = Callable[..., Means]
MAIL = NotificationConfig.model_validate({"channels": ["email"], "email_address": "user@example.com"})


@pytest.fixture(scope="module")
def cluster_dsn(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.getbasetemp()
    return session_cluster(root.parent if "PYTEST_XDIST_WORKER" in os.environ else root).postgres_dsn_admin


@pytest.fixture
async def dsn(cluster_dsn: str) -> AsyncIterator[str]:
    """A database of this test's own, with all tables."""
    name = f"deliver_{uuid4().hex}_test"
    own = f"{cluster_dsn.rpartition('/')[0]}/{name}"
    admin = await asyncpg.connect(cluster_dsn)
    await admin.execute(f'create database "{name}"')
    engine = create_async_engine(own.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    yield own
    await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(Settings.of(database_url=dsn))
    yield opened
    await opened.close()


@asynccontextmanager
async def without_foreign_keys(database: Database) -> AsyncIterator[Connection]:
    """Deliveries stand here without the conversation they would belong to."""
    async with database.engine_tx() as conn:
        await conn.execute("set local session_replication_role = replica")
        yield conn


async def put(database: Database, config: NotificationConfig = MAIL, **values: Any) -> Notice:
    notice = make_notice(**values)
    async with without_foreign_keys(database) as conn:
        await insert(conn, notice, plan(notice, config, default_slack=True))
    return notice


async def rows(database: Database) -> list[dict[str, Any]]:
    return [dict(row) for row in await database.fetch("select * from deliveries order by id")]


async def make_due(database: Database) -> None:
    await database.execute("update deliveries set next_attempt_at = now() where state = 'pending'")


async def wait_seconds(database: Database) -> float:
    return float(
        await database.fetchval(
            "select extract(epoch from next_attempt_at - now()) from deliveries where state = 'pending'"
        )
    )


async def test_a_delivery_is_sent_once(database: Database, means: MakeMeans) -> None:
    async with MailServer() as server:
        sender = Sender(database, means(smtp_host="127.0.0.1", smtp_port=server.port))
        await put(database)
        assert await sender.send_due() == 1
        assert await sender.send_due() == 0
    (row,) = await rows(database)
    assert (row["state"], row["attempts"], row["last_error"], row["reason"]) == ("sent", 1, None, None)
    assert (row["lease_until"], row["next_attempt_at"]) == (None, None)
    assert row["sent_at"]
    assert [mail["Message-ID"] for mail in server.mails] == [row["message_id"]]


async def test_planning_twice_leaves_one_row(database: Database) -> None:
    await put(database)
    await put(database)
    await put(database, event_seq=8)
    assert [row["event_seq"] for row in await rows(database)] == [7, 8]


async def test_a_captured_mail_says_so(database: Database, means: MakeMeans, tmp_path: Path) -> None:
    await put(database)
    await Sender(database, means()).send_due()
    (row,) = await rows(database)
    assert row["state"] == "sent"
    assert row["reason"].startswith("captured in ")
    assert len(seen(tmp_path / "outbox")) == 1


async def test_a_temporary_failure_is_tried_again_within_five_seconds(database: Database, means: MakeMeans) -> None:
    async with MailServer(replies=["451 try later"]) as server:
        sender = Sender(database, means(smtp_host="127.0.0.1", smtp_port=server.port))
        await put(database)
        await sender.send_due()
        (row,) = await rows(database)
        assert (row["state"], row["attempts"]) == ("pending", 1)
        assert "451 try later" in row["last_error"]
        assert 0 < await wait_seconds(database) < 5
        assert await sender.send_due() == 0
        await make_due(database)
        await sender.send_due()
    (row,) = await rows(database)
    assert (row["state"], row["attempts"], row["last_error"]) == ("sent", 2, None)
    assert [mail["Message-ID"] for mail in server.mails] == [row["message_id"]]


async def test_a_permanent_failure_is_dead_at_once(database: Database, means: MakeMeans) -> None:
    async with MailServer(recipient_reply="550 no such user") as server:
        await put(database)
        await Sender(database, means(smtp_host="127.0.0.1", smtp_port=server.port)).send_due()
    (row,) = await rows(database)
    assert (row["state"], row["attempts"], row["next_attempt_at"]) == ("dead", 1, None)
    assert "550 no such user" in row["last_error"]


async def test_retry_after_is_honoured(database: Database, means: MakeMeans, slack: SlackStandIn) -> None:
    slack.answers = [(429, {"Retry-After": "120"}, "slow down")]
    await put(database, NotificationConfig.model_validate({"channels": ["slack"]}))
    await Sender(database, means(slack_webhook_url=slack.url)).send_due()
    assert 115 < await wait_seconds(database) <= 120


async def test_the_tasks_sealed_webhook_is_opened_when_sending(
    database: Database, means: MakeMeans, slack: SlackStandIn
) -> None:
    sent_by = means(parley_egress_allow=f"127.0.0.1:{slack.port}")
    given = NotificationConfig.model_validate({"channels": ["slack"], "slack_webhook_url": slack.url})
    stored = given.stored(sent_by.box, workspace=WORKSPACE, task=TASK)
    async with without_foreign_keys(database) as conn:
        await conn.execute(
            "insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, notification_config)"
            " values ($1, $2, 'delegation', 't', 'p', $3, $4)",
            TASK,
            WORKSPACE,
            uuid4(),
            stored,
        )
    await put(database, NotificationConfig.from_stored(stored) or MAIL)
    await Sender(database, sent_by).send_due()
    (row,) = await rows(database)
    assert (row["state"], row["address"], row["last_error"]) == ("sent", "slack:****WXYZ", None)
    assert len(slack.received) == 1
    assert "secret" not in str(row)


async def test_it_is_given_up_after_the_last_attempt(database: Database, means: MakeMeans) -> None:
    async with MailServer(replies=["451 no"] * 10) as server:
        sender = Sender(database, means(smtp_host="127.0.0.1", smtp_port=server.port))
        await put(database)
        for _ in range(9):
            await sender.send_due()
            await make_due(database)
        (row,) = await rows(database)
        assert (row["state"], row["attempts"]) == ("pending", 9)
        await database.execute("update deliveries set attempts = $1", MAX_ATTEMPTS - 1)
        await sender.send_due()
    (row,) = await rows(database)
    assert (row["state"], row["attempts"]) == ("dead", MAX_ATTEMPTS)


async def test_many_senders_send_each_delivery_once(database: Database, means: MakeMeans) -> None:
    async with MailServer() as server:
        with_mail = means(smtp_host="127.0.0.1", smtp_port=server.port)
        for seq in range(1, 13):
            await put(database, event_seq=seq)
        counts = await asyncio.gather(*(Sender(database, with_mail).send_due(limit=5) for _ in range(4)))
    assert sum(counts) == 12
    assert len({mail["Message-ID"] for mail in server.mails}) == len(server.mails) == 12


async def test_a_dead_senders_delivery_is_taken_over_and_its_late_word_ignored(
    database: Database, means: MakeMeans
) -> None:
    sender = Sender(database, means())
    await put(database)
    async with database.connection() as conn:
        (stale,) = await claim(conn, 5)
        assert await claim(conn, 5) == []
    await database.execute("update deliveries set lease_until = now() - interval '1 s'")
    assert await sender.send_due() == 1
    async with MailServer() as gone:
        pass
    late = Sender(database, means(smtp_host="127.0.0.1", smtp_port=gone.port))
    await late._deliver(stale)  # it failed, but the row keeps what the holder of the later fence said
    (row,) = await rows(database)
    assert (row["state"], row["attempts"], row["fence"]) == ("sent", 2, 2)


OF = """
insert into deliveries (id, workspace_id, event, channel, address, message_id, payload, next_attempt_at)
select gen_random_uuid(), $1, 'run.completed', $2, $3, gen_random_uuid()::text, '{}', now() - make_interval(secs => $4)
from generate_series(1, $5)
"""


async def test_receivers_that_do_not_answer_hold_up_no_others(database: Database) -> None:
    async def claimed() -> Counter[str]:
        async with database.engine_tx() as connection:
            return Counter(each.row["address"] for each in await claim(connection, 10))

    other = uuid4()
    async with without_foreign_keys(database) as connection:
        for workspace, channel, address, age, number in (
            (WORKSPACE, "webhook", "https://hangs.example", 60.0, 50),
            (WORKSPACE, "webhook", "https://hangs.example/too", 50.0, 50),
            (WORKSPACE, "email", "mail@example.com", 40.0, 4),
            (other, "webhook", "https://hangs.example", 30.0, 5),
        ):
            await connection.execute(OF, workspace, channel, address, age, number)
    assert await claimed() == {"https://hangs.example": 10}
    assert await claimed() == {"https://hangs.example/too": 10}
    assert await claimed() == {"mail@example.com": 4, "https://hangs.example": 5}  # The latter of the other workspace.
    assert await claimed() == {}
    await database.execute("update deliveries set lease_until = now() where workspace_id = $1", WORKSPACE)
    assert await claimed() == {"https://hangs.example": 10}  # Their senders died.


async def test_of_those_marked_together_each_has_its_own_fence(database: Database, means: MakeMeans) -> None:
    for seq in (7, 8, 9):
        await put(database, event_seq=seq)
    sender = Sender(database, means())
    async with database.connection() as conn:
        claimed = await claim(conn, 5)
    await database.execute("update deliveries set fence = fence + 1 where event_seq = 8")  # Another has taken it over.
    await asyncio.gather(*map(sender._deliver, claimed))
    found = {row["event_seq"]: (row["state"], row["fence"]) for row in await rows(database)}
    assert found == {7: ("sent", 1), 8: ("sending", 2), 9: ("sent", 1)}


async def test_what_was_captured_is_said_of_each_of_those_marked_together(database: Database, means: MakeMeans) -> None:
    for seq in range(1, 9):
        await put(database, event_seq=seq)
    await Sender(database, means()).send_due()
    told = [
        (row["state"], row["message_id"].strip("<>").partition("@")[0] in row["reason"]) for row in await rows(database)
    ]
    assert told == [("sent", True)] * 8


async def test_a_server_that_ends_its_connections_in_a_batch_loses_and_doubles_nothing(
    database: Database, means: MakeMeans
) -> None:
    for seq in range(1, 21):
        await put(database, event_seq=seq)
    async with ShortTempered(most=2, at="MAIL", says="421 too many mails") as server:
        sender = Sender(database, means(smtp_host="127.0.0.1", smtp_port=server.port))
        while await sender.send_due(5):
            pass
    found = await rows(database)
    assert {(row["state"], row["attempts"]) for row in found} == {("sent", 1)}
    assert sorted(mail["Message-ID"] for mail in server.mails) == sorted(row["message_id"] for row in found)
    assert len(server.sessions) >= 10


async def test_a_delivery_that_takes_its_senders_down_is_given_up(database: Database, means: MakeMeans) -> None:
    await put(database)
    await database.execute(
        "update deliveries set state = 'sending', attempts = $1, lease_until = now() - interval '1 s'", LOST_SENDERS
    )
    await Sender(database, means()).send_due()
    (row,) = await rows(database)
    assert row["state"] == "dead"
    assert "given up" in row["last_error"]


async def test_one_broken_row_spoils_no_batch(database: Database, means: MakeMeans) -> None:
    await put(database)
    await put(database, event_seq=8)
    await put(database, event_seq=9)
    await database.execute("update deliveries set payload = '{}' where event_seq = 7")
    await database.execute("update deliveries set channel = 'pigeon' where event_seq = 8")
    await Sender(database, means()).send_due()
    found = {row["event_seq"]: (row["state"], row["last_error"]) for row in await rows(database)}
    assert found[7] == ("pending", "TypeError while sending; see the server's log")
    assert found[8] == ("dead", "this version has no channel 'pigeon'")
    assert found[9] == ("sent", None)


async def test_suppressed_rows_are_not_sent(database: Database, means: MakeMeans) -> None:
    await put(database, quiet="no change")
    assert await Sender(database, means()).send_due() == 0
    (row,) = await rows(database)
    assert (row["state"], row["reason"], row["attempts"]) == ("suppressed", "no change", 0)


def test_the_wait_doubles_with_jitter_up_to_an_hour() -> None:
    assert all(1.5 <= retry_delay(1) <= 2.5 for _ in range(100))
    assert all(12 <= retry_delay(4) <= 20 for _ in range(100))
    assert all(2700 <= retry_delay(50) <= 4500 for _ in range(100))
    assert 0.75 <= sum(retry_delay(n) for n in range(1, MAX_ATTEMPTS)) / 86_400 <= 1.25
    assert retry_delay(1, 7200) == 7200
    assert retry_delay(1, 10**9) == 86_400
    assert LEASE_SECONDS > 60


async def make_file(database: Database, name: str, content: bytes, run_id: Any) -> None:
    artifact = NewArtifact(uuid4(), WORKSPACE, name, "text/csv", content, CONVERSATION, run_id)
    async with without_foreign_keys(database) as conn:
        await insert_artifact(conn, artifact)


async def test_the_files_of_a_run_come_with_the_mail_about_its_end(database: Database, means: MakeMeans) -> None:
    await make_file(database, "mine.csv", b"a,b", RUN)
    await make_file(database, "other.csv", b"c,d", uuid4())
    await put(database)
    await put(database, event="run.progress", event_seq=3, text="On it")
    await put(database, event="run.waiting", event_seq=4, text="May I?")
    async with MailServer() as server:
        await Sender(database, means(smtp_host="127.0.0.1", smtp_port=server.port)).send_due()
        names = {
            mail["X-Parley-Event"]: [part.get_filename() for part in mail.walk() if part.get_filename()]
            for mail in server.mails
        }
    assert names == {"run.completed": ["mine.csv"], "run.waiting": []}


async def test_slack_gets_links_to_the_files(database: Database, means: MakeMeans, slack: SlackStandIn) -> None:
    await make_file(database, "a|b & <c>.csv", b"a,b", RUN)
    config = NotificationConfig.model_validate({"channels": ["slack"]})
    await put(database, config)
    await Sender(database, means(slack_webhook_url=slack.url)).send_due()
    [row] = await database.fetch("select id from artifacts")
    link = f"<https://parley.example.com/artifacts/{row['id']}/content|a_b &amp; &lt;c&gt;.csv>"
    assert link in str(slack.received[0])
