"""Rules: cool-down, only changes, digests, mutes and the rules of a workspace, on a real PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.db import DEFAULT_WORKSPACE, Database
from app.errors import LeaseLost
from app.models import new_id
from app.notifications import NotificationConfig, mutes, plan
from app.notifications.channel import Means
from app.notifications.deliver import Sender, insert
from app.notifications.notice import Notice
from app.runs import RunState
from app.settings import Settings
from app.settle import Outcome, failed
from tests.engine import World
from tests.notifications.servers import MailServer

MakeMeans = Callable[..., Means]

TASK = """
insert into tasks (id, workspace_id, task_type, title, prompt, agent_id, notification_config)
select $1, $2, 'scheduled', 'Report', 'p', id, $3 from agents where workspace_id = $2 and name = 'assistant'
"""


class Desk:
    """A task that reports by mail, and what came of it."""

    def __init__(
        self, database: Database, sender: Sender, server: MailServer, task_id: UUID, conversation: UUID
    ) -> None:
        self.database = database
        self.sender = sender
        self.server = server
        self.task_id = task_id
        self.conversation = conversation
        self.seq = 0

    async def tell(self, event: str = "run.completed", text: str = "All is well.", **values: Any) -> None:
        self.seq += 1
        stored = await self.database.fetchval("select notification_config from tasks where id = $1", self.task_id)
        notice = Notice(
            event=event,
            workspace_id=DEFAULT_WORKSPACE,
            conversation_id=self.conversation,
            run_id=uuid4(),
            event_seq=self.seq,
            title="Report",
            base_url="https://parley.example.com",
            task_id=self.task_id,
            text=text,
            **values,
        )
        async with self.database.engine_tx() as connection:
            config = NotificationConfig.from_stored(stored)
            await insert(connection, notice, plan(notice, config, default_slack=False))

    async def send(self) -> list[str]:
        """Send what is due; the subjects of what went out."""
        before = len(self.server.mails)
        while await self.sender.send_due():
            pass
        return [str(mail["Subject"]) for mail in self.server.mails[before:]]

    async def rows(self) -> list[tuple[str, str | None]]:
        rows = await self.database.fetch("select state, reason from deliveries order by created_at, id")
        return [(row["state"], row["reason"]) for row in rows]

    async def age(self, seconds: float) -> None:
        """Let time pass for what was told and what waits."""
        await self.database.execute(
            "update deliveries set admitted_at = admitted_at - make_interval(secs => $1), "
            "sent_at = sent_at - make_interval(secs => $1), "
            "next_attempt_at = next_attempt_at - make_interval(secs => $1)",
            seconds,
        )


@pytest.fixture
async def desk_of(database: Database, settings: Settings, means: MakeMeans) -> Any:
    async with MailServer() as server:
        sender = Sender(database, means(database, smtp_host="127.0.0.1", smtp_port=server.port))

        async def make(**rules: Any) -> Desk:
            config = {
                "channels": ["email"],
                "email_address": ["user@example.com"],
                "on": ["completed", "failed", "waiting", "progress"],
            }
            task_id = new_id()
            await database.execute(TASK, task_id, DEFAULT_WORKSPACE, config | rules)
            return Desk(database, sender, server, task_id, await World(database, settings).conversation())

        yield make


async def test_without_rules_everything_is_told(desk_of: Any) -> None:
    desk = await desk_of()
    for _ in range(3):
        await desk.tell()
    assert len(await desk.send()) == 3


async def test_the_same_is_not_told_again_during_the_cool_down(desk_of: Any) -> None:
    desk = await desk_of(cooldown_seconds=600)
    await desk.tell("run.failed", text="", error="timeout after 31 s (request 0198c9e0-0000-7000-8000-000000000001)")
    assert await desk.send() == ["Failed: Report"]
    await desk.tell("run.failed", text="", error="timeout after 29 s (request 0198c9e0-0000-7000-8000-000000000002)")
    assert await desk.send() == []
    state, reason = (await desk.rows())[-1]
    assert state == "suppressed"
    assert reason is not None
    assert reason.startswith("the same was told at ")
    assert reason.endswith("; the cool-down is 600 s")
    await desk.tell("run.failed", text="", error="no such host")
    assert await desk.send() == ["Failed: Report"]
    await desk.age(601)
    await desk.tell("run.failed", text="", error="timeout after 30 s")
    await desk.tell("run.failed", text="", error="no such host")
    assert await desk.send() == ["Failed: Report"] * 2


async def test_that_it_works_again_is_told_whatever_the_cool_down_says(desk_of: Any) -> None:
    desk = await desk_of(cooldown_seconds=600)
    await desk.tell()
    sent = await desk.send()
    for number in ("one", "two", "two"):
        await desk.tell("run.failed", text="", error=f"no host named {number}")
        sent += await desk.send()
        await desk.tell(recovered=True)
        sent += await desk.send()
    # Of the last failure nobody heard.
    assert sent[1:] == ["Failed: Report", "Recovered: Report"] * 2


async def test_a_recovery_is_not_the_like_of_a_success(desk_of: Any) -> None:
    desk = await desk_of(cooldown_seconds=600, on=["completed"])
    await desk.tell()
    await desk.send()
    await desk.tell("run.failed", text="", error="no host")
    await desk.tell(recovered=True)
    assert await desk.send() == ["Recovered: Report"]


async def test_two_at_once_are_judged_in_a_row(desk_of: Any, database: Database) -> None:
    desk = await desk_of(cooldown_seconds=600)
    for _ in range(8):
        await desk.tell()
    await asyncio.gather(*(sender.send_due(limit=2) for sender in [desk.sender] * 3))
    await desk.send()
    assert len(desk.server.mails) == 1
    assert sorted(state for state, _ in await desk.rows()) == ["sent"] + ["suppressed"] * 7


async def test_only_changes_are_told(desk_of: Any) -> None:
    desk = await desk_of(only_changes=True)
    for text in ("3 servers are up", "3 servers are up", "2 servers are up", "3 servers are up"):
        await desk.tell(text=text)
        await desk.send()
    assert [state for state, _ in await desk.rows()] == ["sent", "suppressed", "sent", "sent"]
    assert (await desk.rows())[1][1].startswith("nothing changed since ")
    await desk.tell("run.progress", text="3 servers are up")
    assert await desk.send() == ["Progress: Report"]


async def test_a_burst_becomes_one_digest(desk_of: Any) -> None:
    desk = await desk_of(digest_after=2, digest_seconds=60)
    for number in range(6):
        await desk.tell(text=f"report {number}")
        await desk.send()
    assert len(desk.server.mails) == 2
    assert [state for state, _ in await desk.rows()] == ["sent"] * 2 + ["pending"] * 4
    await desk.age(61)
    assert await desk.send() == ["Digest: 4 messages about Report"]
    body = desk.server.mails[-1].get_body(("plain",)).get_content()
    assert [f"report {number}" in body for number in range(6)] == [False, False, True, True, True, True]
    digest = await desk.database.fetchrow("select * from deliveries where event = 'digest'")
    assert (digest["conversation_id"], digest["event_seq"], digest["task_id"]) == (None, None, desk.task_id)
    told = digest["payload"]["digest"]
    folded = await desk.database.fetch(
        "select id, run_id from deliveries where state = 'suppressed' order by created_at"
    )
    assert [(each["delivery_id"], each["run_id"]) for each in told] == [(str(row[0]), str(row[1])) for row in folded]
    assert digest["payload"]["finished_at"]
    assert (await desk.rows())[2:6] == [("suppressed", f"told in the digest {digest['id']}")] * 4
    assert await desk.send() == []


async def test_a_burst_becomes_a_digest_where_nothing_else_is_said(desk_of: Any) -> None:
    desk = await desk_of()
    for number in range(50):
        await desk.tell(text=f"report {number}")
    assert await desk.send() == ["Completed: Report"] * 20
    assert Counter(state for state, _ in await desk.rows()) == {"sent": 20, "pending": 30}
    await desk.age(301)
    assert await desk.send() == ["Digest: 30 messages about Report"]
    for number in range(3):
        await desk.tell(text=f"more {number}")
        assert await desk.send() == []  # The burst goes on.
    await desk.age(301)
    assert await desk.send() == ["Digest: 3 messages about Report"]
    await desk.age(301)
    await desk.tell()
    assert await desk.send() == ["Completed: Report"]


async def test_a_few_reports_go_at_once_and_a_burst_is_one_of_an_address(desk_of: Any) -> None:
    desks = [await desk_of() for _ in range(2)]
    for desk in desks:
        for _ in range(20):
            await desk.tell()
    await desks[0].send()
    assert await desks[0].rows() == [("sent", None)] * 40


@pytest.mark.parametrize("rules", [{"digest_after": 0}, {"on": ["waiting"]}])
async def test_bursts_go_out_where_that_is_asked_for_and_questions_always(desk_of: Any, rules: dict[str, Any]) -> None:
    desk = await desk_of(**rules)
    for _ in range(25):
        await desk.tell("run.waiting" if "on" in rules else "run.completed")
    assert len(await desk.send()) == 25


async def test_a_program_gets_every_call(desk_of: Any, database: Database) -> None:
    config = {"channels": ["webhook"], "callback_url": "http://127.0.0.1:1/none", "email_address": None}
    desk = await desk_of(**config)
    for _ in range(25):
        await desk.tell()
    await desk.send()
    assert await database.fetchval("select count(*) from deliveries where held") == 0


async def test_one_alone_that_was_held_is_sent_as_it_is(desk_of: Any) -> None:
    desk = await desk_of(digest_after=1, digest_seconds=60)
    for _ in range(2):
        await desk.tell()
    await desk.send()
    await desk.age(61)
    assert await desk.send() == ["Completed: Report"]
    assert [state for state, _ in await desk.rows()] == ["sent", "sent"]


async def test_a_question_is_never_held_back(desk_of: Any) -> None:
    desk = await desk_of(digest_after=1, digest_seconds=60, cooldown_seconds=60)
    for _ in range(3):
        await desk.tell("run.waiting", text="May I?")
    assert await desk.send() == ["Waiting for you: Report"] * 3


async def test_a_workspace_rules_where_its_tasks_say_nothing(desk_of: Any, database: Database) -> None:
    rules = {"on": ["failed"], "cooldown_seconds": 600}
    await database.execute("update workspaces set notification_rules = $1", rules)
    quiet, own = await desk_of(), await desk_of(cooldown_seconds=0)
    await quiet.tell()
    assert await quiet.send() == []
    assert await quiet.rows() == [("suppressed", "the workspace's rules leave out completed")]
    for desk, sent in ((quiet, 1), (own, 2)):
        for _ in range(2):
            await desk.tell("run.failed", text="", error="no")
        assert len(await desk.send()) == sent


async def test_who_unsubscribed_hears_no_more_of_this_task(
    desk_of: Any, database: Database, settings: Settings
) -> None:
    desk, other = await desk_of(), await desk_of()
    await desk.tell()
    await desk.send()
    link = str(desk.server.mails[0]["List-Unsubscribe"]).strip("<>")
    assert desk.server.mails[0]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    found = await mutes.find(database, desk.sender._settings, link.rpartition("/")[2])
    assert found is not None
    assert (found.address, found.task_id, found.conversation_id, found.muted) == (
        "user@example.com",
        desk.task_id,
        None,
        False,
    )
    await mutes.mute(database, found)
    await mutes.mute(database, found)
    await desk.tell()
    await other.tell()
    await desk.send()
    assert len(desk.server.mails) == 2
    assert ("suppressed", "this address has unsubscribed") in await desk.rows()
    await mutes.unmute(database, found)
    await desk.tell()
    assert len(await desk.send()) == 1


def test_a_link_that_is_not_ours_names_nothing(settings: Settings) -> None:
    token = mutes.unsubscribe_url(settings, uuid4()).rpartition("/")[2]
    assert mutes.delivery_of(settings, token)
    broken = ("", "x", token[:-1], token + "A", token[:-2] + "AA", "é" * 43, token.swapcase())
    assert [mutes.delivery_of(settings, each) for each in broken] == [None] * len(broken)
    other = settings.model_copy(update={"parley_secret": None})
    assert mutes.delivery_of(other, token) is None


async def test_a_task_that_works_again_says_so_once(database: Database, settings: Settings) -> None:
    world = World(database, settings)
    config = {"channels": ["email"], "email_address": ["user@example.com"], "on": ["failed", "recovered"]}
    task_id = new_id()
    await database.execute(TASK, task_id, DEFAULT_WORKSPACE, config)
    for outcome in ("failed", "failed", "completed", "completed"):
        claim = await world.one()
        await database.execute("update runs set task_id = $2 where id = $1", claim.run_id, task_id)
        await world.settle(claim, ended(outcome), claim.fenced)
    rows = await database.fetch("select event, state, reason, payload from deliveries order by id")
    assert [(row["event"], row["state"], row["payload"]["recovered"]) for row in rows] == [
        ("run.failed", "pending", False),
        ("run.failed", "pending", False),
        ("run.completed", "pending", True),
        ("run.completed", "suppressed", False),
    ]


def ended(state: str) -> Outcome:
    return failed(LeaseLost("no")) if state == "failed" else Outcome(RunState.COMPLETED, result="done")
