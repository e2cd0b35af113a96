"""Where a conversation's messages are in Slack: one thread per conversation and channel, by the bot token.

* `find_thread(...)` finds the conversation of a message in Slack, by team, channel and thread: for replies and buttons.
* `thread_of(...)` gives the thread of a conversation in a channel, or the right to open it.
* `alone_in(...)` lets one at a time look for the message that it posts or changes.
* `remember(...)` keeps a message that is changed later; `messages_of(...)` finds those of a run.

A button of a question has `action_id` `<what is decided>:<approval id>` (approve, deny, happened, repeat, fail), and `value`
the approval's id.
The channel's name in a task's config (`address`) may be `#ops`; `channel` is the id that Slack answered with.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db import Database
from app.models import new_id

OPENING_SECONDS = 60  # Longer than a send may take.

# One opens the thread; who comes meanwhile waits for it. A place whose opener died is taken over.
RESERVE = """
insert into slack_threads (id, workspace_id, conversation_id, address, opening_until)
values ($1, $2, $3, $4, now() + make_interval(secs => $5))
on conflict (conversation_id, address) do update set opening_until = excluded.opening_until
    where slack_threads.thread_ts is null and slack_threads.opening_until < now()
returning id
"""
THREAD = """
select id, workspace_id, conversation_id, address, team, channel, thread_ts from slack_threads
where conversation_id = $1 and address = $2
"""
OPENED = "update slack_threads set team = $2, channel = $3, thread_ts = $4, opening_until = null where id = $1"
GIVE_UP = "update slack_threads set opening_until = now() where id = $1 and thread_ts is null"
# Who posts what must be there once and is changed then, or changes it, has the open thread to itself; at most so long.
HOLD = """
update slack_threads set opening_until = now() + make_interval(secs => $2)
where id = $1 and (opening_until is null or opening_until < now()) returning id
"""
LET_GO = "update slack_threads set opening_until = null where id = $1 and thread_ts is not null"
# A message that opens a thread has no thread of its own in Slack's payloads: its ts is the thread's.
FIND = """
select id, workspace_id, conversation_id, address, team, channel, thread_ts from slack_threads
where team = $1 and channel = $2 and thread_ts = $3
"""
REMEMBER = """
insert into slack_messages (id, workspace_id, thread_id, ts, run_id, event, payload)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (thread_id, ts) do nothing
"""
RENEW = "update slack_messages set payload = $2 where id = $1"
MESSAGES = """
select m.id, m.ts, m.event, m.payload, t.channel, t.address from slack_messages m join slack_threads t on t.id = m.thread_id
where m.run_id = $1 and t.workspace_id = $2 and m.event = $3 order by m.id
"""


@dataclass(frozen=True)
class Thread:
    """A conversation's thread in a channel; without `thread_ts` it is the caller's to open."""

    id: UUID
    workspace_id: UUID
    conversation_id: UUID
    address: str
    team: str | None = None
    channel: str | None = None
    thread_ts: str | None = None


@dataclass(frozen=True)
class Message:
    """A message that may be changed: `payload` is what was posted."""

    id: UUID
    ts: str
    event: str
    payload: dict[str, Any]
    channel: str
    address: str


async def find_thread(database: Database, *, team: str, channel: str, thread_ts: str) -> Thread | None:
    """The thread that a message in Slack belongs to, with its conversation; None when it is not one of ours."""
    row = await database.fetchrow(FIND, team, channel, thread_ts)
    return Thread(**dict(row)) if row else None


async def thread_of(database: Database, *, workspace_id: UUID, conversation_id: UUID, address: str) -> Thread | None:
    """The conversation's thread in a channel, opened or for the caller to open; None while another opens it."""
    row = await database.fetchrow(THREAD, conversation_id, address)
    if row is not None and row["thread_ts"]:
        return Thread(**dict(row))
    mine = await database.fetchval(RESERVE, new_id(), workspace_id, conversation_id, address, OPENING_SECONDS)
    return Thread(mine, workspace_id, conversation_id, address) if mine else None


async def opened(database: Database, thread: Thread, *, team: str, channel: str, ts: str) -> None:
    """Say where a thread was opened."""
    await database.execute(OPENED, thread.id, team, channel, ts)


async def not_opened(database: Database, thread: Thread) -> None:
    """Leave it to the next to open a thread."""
    await database.execute(GIVE_UP, thread.id)


@asynccontextmanager
async def alone_in(database: Database, thread: Thread) -> AsyncGenerator[bool]:
    """Be the one who looks and posts in an open thread; False while another does."""
    mine = await database.fetchval(HOLD, thread.id, OPENING_SECONDS) is not None
    try:
        yield mine
    finally:
        if mine:
            await database.execute(LET_GO, thread.id)


async def remember(
    database: Database, thread: Thread, ts: str, *, run_id: UUID, event: str, payload: dict[str, Any]
) -> None:
    """Keep where a message went that may be changed later."""
    await database.execute(REMEMBER, new_id(), thread.workspace_id, thread.id, ts, run_id, event, payload)


async def messages_of(database: Database, *, workspace_id: UUID, run_id: UUID, event: str) -> list[Message]:
    """The messages of a run about an event (`run.progress`, `run.waiting`), in every channel."""
    return [Message(**dict(row)) for row in await database.fetch(MESSAGES, run_id, workspace_id, event)]


async def renew(database: Database, message: Message, payload: dict[str, Any]) -> None:
    """Keep what a message says now."""
    await database.execute(RENEW, message.id, payload)
