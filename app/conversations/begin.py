"""Beginning a conversation with its first message, in one statement that many may share.

It does what `start` and `reply` do one after the other. A new conversation has no run before this one and nobody waits
for its head, so nothing needs to be locked or asked first.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from app.agents.spec import UUID_LIKE
from app.coalesce import Coalescer
from app.conversations.reply import Accepted, Turn, body_of, remembered, reply
from app.conversations.start import NewConversation, find_agent, start
from app.db import Connection, Database, Row, UniqueViolation
from app.events import NewEvent, rows_of, stored
from app.messages import Json
from app.models import new_id
from app.patterns import Pattern
from app.runs import Claim, Inline, NewInput, NewRun
from app.runs.begin import BEGIN
from app.runs.insert import columns_of, first_events
from app.settings import Settings


@dataclass(frozen=True)
class Beginning:
    """A conversation about to begin, and its first message.

    Attributes:
        agent: The agent's name or id.
        turn: The message; where a task says it, the run keeps to the version published now.
        inline: Lets the run be born running in this process.
    """

    workspace_id: UUID
    pattern: Pattern
    agent: str
    turn: Turn
    origin: str = "api"
    title: str = ""
    principal_id: UUID | None = None
    context_data: Json = field(default_factory=dict[str, Any])
    inline: Inline | None = None
    conversation_id: UUID = field(default_factory=new_id)

    @cached_property
    def run(self) -> NewRun:
        """The run that answers, with what is said."""
        turn = self.turn
        said = NewInput(body_of(self.pattern, turn, self.context_data), source=turn.source, source_id=turn.source_id)
        return NewRun(self.conversation_id, self.workspace_id, turn.principal_id, said, id=turn.run_id, **turn.run)

    @cached_property
    def events(self) -> list[NewEvent]:
        """What the log begins with."""
        events = first_events(self.run, self.inline, 0)
        for event in events:
            if event.message is not None:
                event.shown["message_seq"] = 1
        return events


@dataclass(frozen=True)
class Begun:
    """What a beginning committed.

    Attributes:
        accepted: What accepting it asks for after the commit.
        agent: The agent's name.
        agent_version: The version published now.
        at: When.
        hold: A hold that keeps the run back.
        workers: Whether any worker is alive.
    """

    accepted: Accepted
    agent_id: UUID
    agent: str
    agent_version: int
    at: datetime
    hold: Json | None
    workers: bool


def record(new: Beginning) -> Json:
    """A beginning as the statement reads it."""
    run, said = new.run, new.run.input
    assert said is not None, "it begins with a message"
    title, state = remembered(new.pattern, new.title, new.turn)
    events = [{**row, "m": None if row["m"] is None else 1} for row in rows_of(new.events)]
    return {
        **columns_of(run),
        "run_id": run.id,
        "conversation_id": new.conversation_id,
        "workspace_id": new.workspace_id,
        "agent": new.agent,
        "agent_key": new.agent if UUID_LIKE.fullmatch(new.agent) else None,
        "pattern": new.pattern.name,
        "title": title,
        "origin": new.origin,
        "trusted": new.pattern.trusted,
        "pins_version": new.pattern.pins_version,
        "context_data": new.context_data if state is None else state,
        "created_by": new.principal_id,
        "owner": new.inline.owner if new.inline else None,
        "lease_seconds": new.inline.lease_seconds if new.inline else None,
        "principal_id": run.principal_id,
        "input_id": new_id(),
        "body": said.body,
        "source": said.source,
        "source_id": said.source_id,
        "events": events,
        "n_events": len(events),
    }


def begun(new: Beginning, row: Row) -> Begun:
    """The statement's answer."""
    return Begun(
        accepted_as(new, row["at"]),
        row["agent_id"],
        row["agent_name"],
        row["published_version"],
        row["at"],
        row["hold"],
        row["workers"],
    )


def accepted_as(new: Beginning, at: datetime | None) -> Accepted:
    """What a beginning asks for after its commit; when its time is not known, readers find its events in the log."""
    run = new.run
    claim = Claim(run.id, run.conversation_id, run.workspace_id, 1, 0, []) if new.inline else None
    events = stored(new.events, run_id=run.id, conversation_id=run.conversation_id, first=1, at=at) if at else []
    ready = claim is None and run.run_at is None
    return Accepted(run.conversation_id, run.id, claim, ready=ready, events=events)


class Beginnings:
    """The seam behind which the conversations that begin in this process are put together."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Begin through this database's engine pool."""
        self._database = database
        self._settings = settings
        self._seam = Coalescer(self._together, self._alone, key=lambda new: new.conversation_id)

    async def begin(self, new: Beginning) -> Accepted:
        """Begin a conversation with its first message; returns when it is on disk.

        Raises:
            UnknownReference: no such agent.
            DatabaseUnavailable: when PostgreSQL is away; whether it landed is then unknown.
        """
        return await self._seam.do(new)

    async def _together(self, news: list[Beginning]) -> dict[Hashable, Accepted]:
        async with self._database.connection("say") as connection:
            rows = await connection.fetch(BEGIN, [record(new) for new in news])
        by_run = {row["run_id"]: row for row in rows}
        found = [(new, by_run[new.turn.run_id]) for new in news if new.turn.run_id in by_run]
        return {new.conversation_id: accepted_as(new, row["at"]) for new, row in found}

    async def _alone(self, new: Beginning) -> Accepted:
        try:
            done = await self._together([new])
        except UniqueViolation:
            if not await landed(self._database, new):
                raise
            return accepted_as(new, None)
        if done:
            return done[new.conversation_id]
        async with self._database.engine_tx("say") as connection:
            return await begin(connection, self._settings, new)


async def landed(database: Database, new: Beginning) -> bool:
    """Whether a beginning is on disk: together with others it had landed, and only the answer was lost."""
    return await database.fetchval("select exists (select from runs where id = $1)", new.turn.run_id)


async def begin(connection: Connection, settings: Settings, new: Beginning) -> Accepted:
    """Begin a conversation with its first message, step by step, in the caller's `engine_tx()`.

    Raises:
        UnknownReference: no such agent.
    """
    agent = await find_agent(connection, new.workspace_id, new.agent)
    values: dict[str, Any] = {"principal_id": new.principal_id, "id": new.conversation_id}
    await start(connection, NewConversation(new.workspace_id, new.pattern, agent, new.origin, **values))
    return await reply(connection, settings, new.workspace_id, new.conversation_id, new.turn, inline=new.inline)
