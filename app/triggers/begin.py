"""The usual call in one statement: a receipt, and a conversation that begins with its run.

Whatever is not usual matches nothing here and is left to the steps of `receive`: a repeat, a correlation key that has its
conversation, a task that keeps to one, waits for others, pins another version of its agent or is near its pace.
"""

from dataclasses import replace
from typing import Any

from app.conversations import Accepted, Beginning, Turn, task_run
from app.conversations.begin import accepted_as, record
from app.db import Database, Row, UniqueViolation
from app.patterns import TRIGGERED
from app.runs.begin import BEGINNINGS, ROWS
from app.triggers.pace import NEAR, NEXT, most_of
from app.triggers.receipts import Taken

# Invariant (G5): one run per task and key, as in `receipts`.
RECEIPT = f""", receipt as (
    insert into receipts (id, workspace_id, task_id, receipt_key, outcome, run_id, conversation_id, body, starts_at)
    select $2, f.workspace_id, f.task_id, $3, 'run', f.run_id, f.conversation_id, $4, now() from free f
    where f.published_version = $5
        and not exists (select from conversations k where k.task_id = f.task_id and k.correlation_key = f.correlation_key)
        and not exists ({NEXT.format(task="f.task_id", offset="$6")})
    on conflict (task_id, receipt_key) where receipt_key is not null and outcome in ('run', 'filtered') do nothing
    returning id
), x as materialized (select free.* from free, receipt)"""
TAKE = BEGINNINGS + RECEIPT + ROWS


async def begin(
    database: Database, task: Row, taken: Taken, context: dict[str, Any], correlation_key: str | None
) -> Accepted | None:
    """Take a call that asks for nothing unusual; None, and nothing written, for any other."""
    most = most_of(task)
    if task["conversation"] == "same" or task["waits"] or most <= NEAR:
        return None
    new = _beginning(task, taken, context)
    values = (record(new) | {"correlation_key": correlation_key},)
    version = task["agent_version"] or task["published_version"]
    try:
        async with database.connection("webhook") as connection:
            row = await connection.fetchrow(TAKE, values, taken.id, taken.key, taken.payload, version, most - 1 - NEAR)
    except UniqueViolation:
        return None  # Another call began the conversation of that key just now.
    return accepted_as(new, row["at"]) if row else None


def _beginning(task: Row, taken: Taken, context: dict[str, Any]) -> Beginning:
    turn = Turn(
        task["prompt"],
        context=context,
        files=task["attachments"],
        principal_id=taken.principal_id or task["created_by"],
        run=task_run(task),
        run_id=taken.run_id,
    )
    return Beginning(
        task["workspace_id"],
        # Whether the payload may be believed is said by the task.
        replace(TRIGGERED, trusted=task["trigger_config"]["trusted"]),
        str(task["agent_id"]),
        turn,
        origin="webhook",
        title=task["title"],
        principal_id=task["created_by"],
        context_data=task["context_data"],
    )
