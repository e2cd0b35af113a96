"""Parking: a waiting run holds no worker, no lease and no connection; each answer takes one wait from it."""

from collections.abc import Sequence
from uuid import UUID

from app.db import Connection
from app.errors import LeaseLost
from app.runs.write import Fenced

# Invariant: the run is ours until this commits; with it go the questions it waits for, in the same transaction.
# A run that shall be cancelled does not begin to wait: nobody would end it any more.
PARK = """
with r as (
    update runs set state = 'waiting', waits = $4, owner = null, lease_until = null, write_no = write_no + 1,
        ran_seconds = ran_seconds + extract(epoch from now() - claimed_at)
    where id = $1 and fence = $2 and write_no = $3 and state = 'running' and cancel_requested_at is null
    returning id, conversation_id
)
update heads set state = 'waiting', active_run_id = null, updated_at = now()
from r where heads.conversation_id = r.conversation_id
returning r.id
"""


# Invariant: a call is `unknown` exactly when somebody was asked about it, so an older answer is never taken for a later
# interruption.
DOUBT = """
update tool_calls set state = 'unknown'
where conversation_id = $1
    and concat_ws(':', message_seq, call_index, nullif(sub_index, 0)) = any($2::text[])
"""


async def park(connection: Connection, who: Fenced, waits: int, *, doubtful: Sequence[str] = ()) -> None:
    """Let a running run wait for this many answers.

    Needs an `engine_tx()` that holds the lock of the conversation's head, and inserts what is waited for.

    Args:
        connection: Of that transaction.
        who: Who holds the run.
        waits: How many answers.
        doubtful: The calls of which nobody knows whether they took effect, as `<message number>:<index>`, with `:<number>` for those of its code.

    Raises:
        LeaseLost: when the claim does not hold any more, or somebody wishes the run cancelled.
    """
    if await connection.fetchval(PARK, who.run_id, who.fence, who.write_no, waits) is None:
        raise LeaseLost
    if doubtful:
        await connection.execute(DOUBT, who.conversation_id, list(doubtful))


# Invariant: the count is taken down on the locked row, in the transaction that gives the answer: two that come at once
# are two, and the last one queues the run. A run that does not wait any more is left as it is.
ANSWER = """
update runs set waits = waits - 1, state = case when waits = 1 then 'queued' else state end,
    run_at = case when waits = 1 then now() else run_at end
where id = $1 and state = 'waiting'
returning state
"""
REQUEUED = "update heads set state = 'queued', updated_at = now() where conversation_id = $1"


async def answered(connection: Connection, conversation_id: UUID, run_id: UUID) -> bool:
    """Take one wait from a run; True when it was the last and the run is queued.

    Needs an `engine_tx()` that holds the lock of the conversation's head.
    """
    state = await connection.fetchval(ANSWER, run_id)
    if state != "queued":
        return False
    await connection.execute(REQUEUED, conversation_id)
    return True
