"""Receipts: one row for each webhook call that could be counted, whatever came of it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import Connection, Database, Row
from app.errors import Conflict, NotFound
from app.models import new_id

REFUSED_KEPT = 100
LONGEST_REASON = 300

# Invariant (G5): one run per task and key. A call with a key that is being inserted waits here for its outcome.
INSERT = """
insert into receipts (id, workspace_id, task_id, receipt_key, outcome, reason, run_id, conversation_id, body, starts_at,
    replay_of)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, case when $5 = 'run' then coalesce($10, now()) end, $11)
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
with t as (
    update tasks set refused_calls = refused_calls + 1
    where id = $2 and deleted_at is null and trigger_config is not null returning id, workspace_id
)
insert into receipts (id, workspace_id, task_id, outcome, reason) select $1, t.workspace_id, t.id, 'refused', $3 from t
"""
FORGET_REFUSED = """
delete from receipts where task_id = $1 and outcome = 'refused' and id <= (
    select id from receipts where task_id = $1 and outcome = 'refused' order by id desc offset $2 limit 1)
"""
READ = "select id, outcome, body from receipts where workspace_id = $1 and task_id = $2 and id = $3"


@dataclass(frozen=True)
class Taken:
    """A verified call, or one that is replayed.

    Attributes:
        payload: What it says.
        key: What makes another call its repeat; None when nothing does.
        principal_id: Whose API key came with it, or who replays it.
        replay_of: The receipt that is replayed.
        id: Of its own receipt.
        run_id: Of the run it may start.
    """

    payload: Any
    key: str | None = None
    principal_id: UUID | None = None
    replay_of: UUID | None = None
    id: UUID = field(default_factory=new_id)
    run_id: UUID = field(default_factory=new_id)


@dataclass(frozen=True)
class Ending:
    """What came of a call: its receipt's words."""

    outcome: str
    reason: str | None = None
    run_id: UUID | None = None
    conversation_id: UUID | None = None
    starts_at: datetime | None = None


async def record(connection: Connection, task: Row, taken: Taken, ending: Ending) -> UUID | None:
    """Write the receipt of a call; None when one with its key is there."""
    return await connection.fetchval(
        INSERT,
        taken.id,
        task["workspace_id"],
        task["id"],
        taken.key,
        ending.outcome,
        ending.reason,
        ending.run_id,
        ending.conversation_id,
        None if ending.outcome == "duplicate" else taken.payload,
        ending.starts_at,
        taken.replay_of,
    )


async def first_of(connection: Connection, task: Row, key: str | None) -> Row | None:
    """The receipt that took a key."""
    return await connection.fetchrow(FIRST, task["id"], key)


async def refuse(database: Database, task_id: UUID, reason: str) -> None:
    """Count a refused call, and keep the last hundred of a task without their bodies."""
    async with database.engine_tx() as connection:
        await connection.execute(REFUSE_QUICKLY)
        await connection.execute(REFUSE, new_id(), task_id, reason[:LONGEST_REASON])
        await connection.execute(FORGET_REFUSED, task_id, REFUSED_KEPT)


async def payload_of(connection: Connection, task: Row, receipt_id: UUID) -> Any:
    """What the call of a receipt said.

    Raises:
        NotFound: the task has no such receipt.
        Conflict: it was refused, or repeats another one: nothing of it was kept.
    """
    receipt = await connection.fetchrow(READ, task["workspace_id"], task["id"], receipt_id)
    if receipt is None:
        raise NotFound(f"the task has no receipt {receipt_id}")
    if receipt["outcome"] not in ("run", "filtered"):
        raise Conflict(f"a {receipt['outcome']} call can't be replayed: its body was not kept")
    return receipt["body"]
