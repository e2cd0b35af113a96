"""Receiving a webhook call: receipt, conversation and run in one transaction, answered after its commit."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from app.conversations import Accepted, AgentRef, NewConversation, Turn, given_with, reply, start, task_run
from app.db import Connection, Database, Row
from app.errors import Disabled, NotFound, RateLimited, WebhookRefused
from app.messages import Json
from app.models import new_id
from app.patterns import TRIGGERED
from app.settings import Settings
from app.triggers.begin import begin
from app.triggers.pace import most_of, starts_at
from app.triggers.payload import challenge_of, correlation_of, passes, receipt_key, told
from app.triggers.receipts import Ending, Taken, first_of, payload_of, record
from app.triggers.verify import Call, admits

REFUSED = "The webhook call was refused: there is no such webhook, or the call could not be verified."

TASK = """
select t.*, a.name as agent, a.published_version, now() as now,
    (select count(*) from task_dependencies d where d.task_id = t.id) as waits
from tasks t join agents a on a.id = t.agent_id
where t.id = $1 and t.deleted_at is null and t.trigger_config is not null
"""
OWN = "select c.id from tasks t join conversations c on c.id = t.conversation_id where t.id = $1"
KEEP = "update tasks set conversation_id = $2 where id = $1"
CORRELATED = "select id from conversations where task_id = $1 and correlation_key = $2"
# One call at a time may find that its correlation key, or its task, has no conversation yet.
CORRELATE = "select pg_advisory_xact_lock(hashtextextended($1, 0))"
# Into what was begun while the task was trusted there comes a stranger's text now.
DISTRUST = "update conversations set trusted = false where id = $1 and trusted"


@dataclass(frozen=True)
class Received:
    """What a verified call led to.

    Attributes:
        outcome: run, duplicate or filtered.
        accepted: What its run asks for after the commit; None when it started none.
        challenge: What the sender wants to read again, and nothing else.
    """

    receipt_id: UUID
    outcome: str
    run_id: UUID | None
    conversation_id: UUID | None
    accepted: Accepted | None = None
    challenge: str | None = None


@dataclass(frozen=True)
class Place:
    """Where the call's run goes: a conversation there is, or one to begin."""

    conversation_id: UUID = field(default_factory=new_id)
    exists: bool = False
    correlation_key: str | None = None


async def admit(database: Database, settings: Settings, task_id: UUID, call: Call) -> Row:
    """The task that a call may start: told from its raw body, before anything else reads it.

    Raises:
        WebhookRefused: no such webhook, or the call could not be verified; both alike.
    """
    task = await database.fetchrow(TASK, task_id)
    if not admits(task, call, settings) or task is None:
        raise WebhookRefused(REFUSED)
    return task


async def receive(database: Database, settings: Settings, task: Row, call: Call, payload: Any) -> Received:
    """Take a call that was admitted.

    Raises:
        Disabled: the task is switched off.
        RateLimited: too many of its runs are waiting.
    """
    if not task["enabled"]:
        raise Disabled("the task is disabled: nothing was started")
    config: Json = task["trigger_config"]
    key = receipt_key(call, payload, config)
    taken = Taken(payload, key, call.principal.id if call.principal else None)
    challenge = challenge_of(config, payload)
    if challenge is None and passes(config["filter"], payload):
        correlation_key = correlation_of(config["correlation"], payload)
        if accepted := await begin(database, task, taken, context_of(task, payload), correlation_key):
            return Received(taken.id, "run", taken.run_id, accepted.conversation_id, accepted)
    async with database.engine_tx("webhook") as connection:
        if challenge:
            return await _challenged(connection, task, taken, challenge)
        return await _take(connection, settings, task, taken)


async def replay(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    task_id: UUID,
    receipt_id: UUID,
    *,
    principal_id: UUID | None = None,
    replay_id: UUID,
) -> Received:
    """Take a call again that was accepted or filtered once, as the task is now, disabled or not.

    Its filter, correlation and pace hold as for any call; a replay repeats nothing, so it may be made again.

    Args:
        connection: Of an `engine_tx()`.
        settings: For notifications.
        workspace_id: Whose task.
        task_id: Which task.
        receipt_id: Which call.
        principal_id: Who asks.
        replay_id: Of the receipt this makes.

    Raises:
        NotFound: no such task with a webhook, or it has no such receipt.
        Conflict: of that call no body was kept.
        RateLimited: too many of the task's runs are waiting.
    """
    task = await connection.fetchrow(f"{TASK} and t.workspace_id = $2", task_id, workspace_id)
    if task is None:
        raise NotFound(f"there is no task {task_id} with a webhook")
    payload = await payload_of(connection, task, receipt_id)
    taken = Taken(payload, None, principal_id, replay_of=receipt_id, id=replay_id)
    return await _take(connection, settings, task, taken)


async def _challenged(connection: Connection, task: Row, taken: Taken, challenge: str) -> Received:
    ending = Ending("filtered", "answered Slack's url_verification")
    receipt_id = await record(connection, task, replace(taken, key=None), ending)
    assert receipt_id is not None, "it has no key"
    return Received(receipt_id, "filtered", None, None, challenge=challenge)


async def _take(connection: Connection, settings: Settings, task: Row, taken: Taken) -> Received:
    config: Json = task["trigger_config"]
    if not passes(config["filter"], taken.payload):
        ending = Ending("filtered", f"{config['filter']['path']} is not {config['filter']['equals']!r}")
        receipt_id = await record(connection, task, taken, ending)
        return Received(receipt_id, "filtered", None, None) if receipt_id else await _repeat(connection, task, taken)
    place = await _place(connection, task, correlation_of(config["correlation"], taken.payload))
    try:
        later = await starts_at(connection, task)
    except RateLimited:
        if await first_of(connection, task, taken.key) is None:
            raise
        return await _repeat(connection, task, taken)
    reason = f"over {most_of(task)} runs a minute: starts {later:%H:%M:%S} UTC" if later else None
    ending = Ending("run", reason, taken.run_id, place.conversation_id, later)
    receipt_id = await record(connection, task, taken, ending)
    if receipt_id is None:
        return await _repeat(connection, task, taken)
    accepted = await _start(connection, settings, task, taken, place, later)
    return Received(receipt_id, "run", taken.run_id, place.conversation_id, accepted)


async def _repeat(connection: Connection, task: Row, taken: Taken) -> Received:
    """A call that came before: the same run, and a receipt of its own."""
    first = await first_of(connection, task, taken.key)
    assert first is not None, "its insertion was waited for"
    run = (first["run_id"], first["conversation_id"])
    reason = f"repeats the call of receipt {first['id']}"
    receipt_id = await record(connection, task, taken, Ending("duplicate", reason, *run))
    assert receipt_id is not None, "a duplicate takes no key"
    return Received(receipt_id, "duplicate", *run)


async def _place(connection: Connection, task: Row, correlation_key: str | None) -> Place:
    if task["conversation"] == "same":
        return await _own_place(connection, task)
    if correlation_key is None:
        return Place()
    await connection.execute(CORRELATE, f"{task['id']} {correlation_key}")
    found = await connection.fetchval(CORRELATED, task["id"], correlation_key)
    return Place(found, exists=True) if found else Place(correlation_key=correlation_key)


async def _own_place(connection: Connection, task: Row) -> Place:
    """The task's one conversation; another one when that was deleted."""
    found = await connection.fetchval(OWN, task["id"])
    if found is None:
        await connection.execute(CORRELATE, f"{task['id']}")
        found = await connection.fetchval(OWN, task["id"])
    return Place(found, exists=True) if found else Place()


async def _start(
    connection: Connection, settings: Settings, task: Row, taken: Taken, place: Place, later: datetime | None
) -> Accepted:
    if not place.exists:
        await start(connection, _conversation(task, place))
        if task["conversation"] == "same":
            await connection.execute(KEEP, task["id"], place.conversation_id)
    turn = Turn(
        task["prompt"],
        context=context_of(task, taken.payload),
        files=task["attachments"],
        on_message="enqueue",  # Each event has its run, whatever its conversation does with what people say.
        principal_id=taken.principal_id or task["created_by"],
        run=task_run(task) | {"run_at": later},
        run_id=taken.run_id,
    )
    accepted = await reply(connection, settings, task["workspace_id"], place.conversation_id, turn)
    if place.exists and not task["trigger_config"]["trusted"]:
        await connection.execute(DISTRUST, place.conversation_id)
    return accepted


def _conversation(task: Row, place: Place) -> NewConversation:
    return NewConversation(
        id=place.conversation_id,
        workspace_id=task["workspace_id"],
        # Whether the payload may be believed is said by the task.
        pattern=replace(TRIGGERED, trusted=True),
        trusted=task["trigger_config"]["trusted"],
        agent=AgentRef(task["agent_id"], task["agent"], task["published_version"]),
        agent_version=task["agent_version"],
        origin="webhook",
        title=task["title"],
        principal_id=task["created_by"],
        context_data=task["context_data"],
        task_id=task["id"],
        correlation_key=place.correlation_key,
    )


def context_of(task: Row, payload: Any) -> Json:
    """The payload as the model gets it; with it what the task itself gives."""
    given = given_with(task)
    payload = told(payload)
    if given or not payload or not isinstance(payload, dict):
        return {"payload": payload, **given}
    return cast("Json", payload)
