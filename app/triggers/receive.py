"""Receiving a webhook call: receipt, conversation and run in one transaction, answered after its commit."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from app.conversations import Accepted, AgentRef, NewConversation, Turn, reply, start, task_run
from app.db import Connection, Database, Row
from app.errors import Disabled, WebhookRefused
from app.messages import Json
from app.models import new_id
from app.patterns import TRIGGERED
from app.settings import Settings
from app.triggers.payload import correlation_of, passes, receipt_key
from app.triggers.verify import Call, admits

RUNS_A_MINUTE = 60
REFUSED_KEPT = 100
REFUSED = "The webhook call was refused: there is no such webhook, or the call could not be verified."

TASK = """
select t.*, a.name as agent, a.published_version, now() as now,
    (select count(*) from task_dependencies d where d.task_id = t.id) as waits
from tasks t join agents a on a.id = t.agent_id
where t.id = $1 and t.deleted_at is null and t.trigger_config is not null
"""
# Invariant (G5): one run per task and key. A call with a key that is being inserted waits here for its outcome.
INSERT = """
insert into receipts (id, workspace_id, task_id, receipt_key, outcome, reason, run_id, conversation_id, body)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
on conflict (task_id, receipt_key) where receipt_key is not null and outcome in ('run', 'filtered') do nothing
returning id
"""
FIRST = """
select id, run_id, conversation_id from receipts
where task_id = $1 and receipt_key = $2 and outcome in ('run', 'filtered')
"""
# The same statements for a task there is and for one there is none of: their time tells nothing. Nobody waits for the
# disk because of a call that is worth nothing.
REFUSE_QUICKLY = "set local synchronous_commit = off"
REFUSE = """
insert into receipts (id, workspace_id, task_id, outcome, reason)
select $1, t.workspace_id, t.id, 'refused', $3 from tasks t
where t.id = $2 and t.deleted_at is null and t.trigger_config is not null
"""
FORGET_REFUSED = """
delete from receipts where task_id = $1 and outcome = 'refused' and id not in (
    select id from receipts where task_id = $1 and outcome = 'refused' order by id desc limit $2)
"""
# The run that began the last minute's worth of runs: the next may start a minute after it.
PACE = """
select case when r.run_at + interval '1 minute' > now() then r.run_at + interval '1 minute' end
from receipts c join runs r on r.id = c.run_id
where c.task_id = $1 and c.outcome = 'run' order by c.id desc offset $2 limit 1
"""
CORRELATED = "select id from conversations where task_id = $1 and correlation_key = $2"
# One call at a time may find that its correlation key has no conversation yet.
CORRELATE = "select pg_advisory_xact_lock(hashtextextended($1, 0))"


@dataclass(frozen=True)
class Received:
    """What a verified call led to.

    Attributes:
        outcome: run, duplicate or filtered.
        accepted: What its run asks for after the commit; None when it started none.
    """

    receipt_id: UUID
    outcome: str
    run_id: UUID | None
    conversation_id: UUID | None
    accepted: Accepted | None = None


@dataclass(frozen=True)
class Place:
    """Where the call's run goes: a conversation there is, or one to begin."""

    conversation_id: UUID = field(default_factory=new_id)
    exists: bool = False
    correlation_key: str | None = None


async def receive(database: Database, settings: Settings, task_id: UUID, call: Call) -> Received:
    """Take a webhook call.

    Raises:
        WebhookRefused: no such webhook, or the call could not be verified; both alike.
        Disabled: the task is switched off.
    """
    task = await database.fetchrow(TASK, task_id)
    if not admits(task, call, settings) or task is None:
        await _refuse(database, task_id, "the call could not be verified")
        raise WebhookRefused(REFUSED)
    if not task["enabled"]:
        await _refuse(database, task_id, "the task was disabled")
        raise Disabled("the task is disabled: nothing was started")
    async with database.engine_tx("webhook") as connection:
        return await _take(connection, settings, task, call)


async def _refuse(database: Database, task_id: UUID, reason: str) -> None:
    async with database.engine_tx() as connection:
        await connection.execute(REFUSE_QUICKLY)
        await connection.execute(REFUSE, new_id(), task_id, reason)
        await connection.execute(FORGET_REFUSED, task_id, REFUSED_KEPT)


async def _take(connection: Connection, settings: Settings, task: Row, call: Call) -> Received:
    config: Json = task["trigger_config"]
    key = receipt_key(call, dedup=config["dedup"])
    if not passes(config["filter"], call.payload):
        reason = f"{config['filter']['path']} is not {config['filter']['equals']!r}"
        receipt_id = await _receipt(connection, task, call, key, "filtered", reason)
        return Received(receipt_id, "filtered", None, None) if receipt_id else await _repeat(connection, task, key)
    place = await _place(connection, task, correlation_of(config["correlation"], call.payload))
    run_id, run_at = new_id(), await _run_at(connection, task)
    reason = f"over {RUNS_A_MINUTE} runs a minute: starts {run_at:%H:%M:%S} UTC" if run_at else None
    receipt_id = await _receipt(connection, task, call, key, "run", reason, run_id, place.conversation_id)
    if receipt_id is None:
        return await _repeat(connection, task, key)
    accepted = await _start(connection, settings, task, call, place, run_id, run_at)
    return Received(receipt_id, "run", run_id, place.conversation_id, accepted)


async def _receipt(
    connection: Connection,
    task: Row,
    call: Call,
    key: str | None,
    outcome: str,
    reason: str | None,
    run_id: UUID | None = None,
    conversation_id: UUID | None = None,
) -> UUID | None:
    """Write the receipt of a call; None when one with its key is there."""
    owner = (new_id(), task["workspace_id"], task["id"])
    return await connection.fetchval(INSERT, *owner, key, outcome, reason, run_id, conversation_id, call.payload)


async def _repeat(connection: Connection, task: Row, key: str | None) -> Received:
    """A call that came before: the same run, and a receipt of its own."""
    first = await connection.fetchrow(FIRST, task["id"], key)
    assert first is not None, "its insertion was waited for"
    receipt_id, reason = new_id(), f"repeats the call of receipt {first['id']}"
    owner = (receipt_id, task["workspace_id"], task["id"])
    run = (first["run_id"], first["conversation_id"])
    await connection.execute(INSERT, *owner, key, "duplicate", reason, *run, None)
    return Received(receipt_id, "duplicate", *run)


async def _place(connection: Connection, task: Row, correlation_key: str | None) -> Place:
    if task["conversation"] == "same":
        return Place(task["conversation_id"], exists=True)
    if correlation_key is None:
        return Place()
    await connection.execute(CORRELATE, f"{task['id']} {correlation_key}")
    found = await connection.fetchval(CORRELATED, task["id"], correlation_key)
    return Place(found, exists=True) if found else Place(correlation_key=correlation_key)


async def _run_at(connection: Connection, task: Row) -> datetime | None:
    """When the run may start, if the last minute has had its share of runs."""
    return await connection.fetchval(PACE, task["id"], RUNS_A_MINUTE - 1)


async def _start(
    connection: Connection,
    settings: Settings,
    task: Row,
    call: Call,
    place: Place,
    run_id: UUID,
    run_at: datetime | None,
) -> Accepted:
    if not place.exists:
        await start(connection, _conversation(task, place))
    turn = Turn(
        task["prompt"],
        context=context_of(task, call.payload),
        files=task["attachments"],
        principal_id=call.principal.id if call.principal else task["created_by"],
        run=task_run(task) | {"run_at": run_at},
        run_id=run_id,
    )
    return await reply(connection, settings, task["workspace_id"], place.conversation_id, turn)


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
    given = {name: task[name] for name in ("input", "context_data") if task[name] not in (None, {})}
    if given or not payload or not isinstance(payload, dict):
        return {"payload": payload, **given}
    return cast("Json", payload)
