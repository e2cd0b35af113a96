"""Where answers go: reply addresses of mails, threads in Slack."""

from uuid import UUID, uuid4

import pytest

from app.db import DEFAULT_WORKSPACE, Database
from app.notifications import replies, slack_threads
from app.settings import Settings
from tests.engine import World

RECIPIENT = "Ann@example.com"


@pytest.fixture
def answering(settings: Settings) -> Settings:
    return settings.model_copy(update={"parley_reply_address": "Parley@example.org"})


async def address_of(database: Database, settings: Settings, conversation_id: UUID, recipient: str = RECIPIENT) -> str:
    found = await replies.reply_address(
        database, settings, workspace_id=DEFAULT_WORKSPACE, conversation_id=conversation_id, recipient=recipient
    )
    assert found is not None
    return found


async def test_a_reply_address_leads_to_conversation_and_recipient(database: Database, answering: Settings) -> None:
    conversation_id = await World(database, answering).conversation()
    address = await address_of(database, answering, conversation_id)
    assert address == await address_of(database, answering, conversation_id, "ann@EXAMPLE.com")
    local, _, domain = address.rpartition("@")
    assert (local.startswith("Parley+"), domain, len(local) <= 64) == (True, "example.org", True)
    token = replies.token_of(answering, f" {address.upper()} ")
    assert token is not None
    found = await replies.find_reply(database, token)
    assert found is not None
    assert (found.workspace_id, found.conversation_id, found.address) == (
        DEFAULT_WORKSPACE,
        conversation_id,
        "ann@example.com",
    )
    assert token not in str(await database.fetch("select * from reply_addresses"))


async def test_each_recipient_and_each_conversation_has_its_own(database: Database, answering: Settings) -> None:
    world = World(database, answering)
    one, two = await world.conversation(), await world.conversation()
    made = {
        await address_of(database, answering, one),
        await address_of(database, answering, two),
        await address_of(database, answering, one, "bob@example.com"),
    }
    assert len(made) == 3


@pytest.mark.parametrize(
    "address",
    [
        "parley@example.org",
        "parley+@example.org",
        "parley+short@example.org",
        f"parley+{'a' * 25}-@example.org",
        f"parley+{'a' * 27}@example.org",
        f"parley+{'a' * 26}@example.com",
        f"other+{'a' * 26}@example.org",
        f"parley+{'é' * 26}@example.org",
        "",
        "@",
        "+@",
    ],
)
def test_what_is_no_reply_address_has_no_token(answering: Settings, settings: Settings, address: str) -> None:
    assert replies.token_of(answering, address) is None
    assert replies.token_of(settings, address) is None


async def test_unknown_expired_and_revoked_tokens_lead_nowhere(database: Database, answering: Settings) -> None:
    conversation_id = await World(database, answering).conversation()
    token = replies.token_of(answering, await address_of(database, answering, conversation_id))
    assert token is not None
    other = answering.model_copy(update={"parley_secret": None})
    assert await replies.find_reply(database, "a" * 26) is None
    await database.execute("update reply_addresses set expires_at = now() - interval '1 s'")
    assert await replies.find_reply(database, token) is None
    await address_of(database, answering, conversation_id)  # the next mail opens it again
    assert await replies.find_reply(database, token)
    assert replies.token_of(other, await address_of(database, other, conversation_id)) != token
    async with database.engine_tx() as connection:
        await replies.revoke_replies(connection, DEFAULT_WORKSPACE, conversation_id)
    assert await replies.find_reply(database, token) is None
    again = await replies.reply_address(
        database, answering, workspace_id=DEFAULT_WORKSPACE, conversation_id=conversation_id, recipient=RECIPIENT
    )
    assert again is None


async def test_one_opens_a_thread_and_the_others_wait(database: Database, settings: Settings) -> None:
    of = {
        "workspace_id": DEFAULT_WORKSPACE,
        "conversation_id": await World(database, settings).conversation(),
        "address": "#ops",
    }
    mine = await slack_threads.thread_of(database, **of)
    assert mine is not None
    assert mine.thread_ts is None
    assert await slack_threads.thread_of(database, **of) is None
    await slack_threads.not_opened(database, mine)
    again = await slack_threads.thread_of(database, **of)
    assert again is not None
    assert again.id == mine.id
    await slack_threads.opened(database, again, team="T1", channel="C1", ts="1.5")
    there = await slack_threads.thread_of(database, **of)
    assert there is not None
    assert (there.team, there.channel, there.thread_ts) == ("T1", "C1", "1.5")
    assert await slack_threads.find_thread(database, team="T1", channel="C1", thread_ts="1.5") == there
    assert await slack_threads.find_thread(database, team="T2", channel="C1", thread_ts="1.5") is None
    run_id = uuid4()
    await slack_threads.remember(database, there, "1.6", run_id=run_id, event="run.waiting", payload={"a": 1})
    [kept] = await slack_threads.messages_of(
        database, workspace_id=DEFAULT_WORKSPACE, run_id=run_id, event="run.waiting"
    )
    assert (kept.ts, kept.channel, kept.address, kept.payload) == ("1.6", "C1", "#ops", {"a": 1})
