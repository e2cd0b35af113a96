"""Moves of a run that is not over: back to the queue, and the wish to cancel it."""

from dataclasses import dataclass
from uuid import UUID

from app import failpoints
from app.db import Connection, Database
from app.events import EventType, NewEvent, StoredEvent, append, stored
from app.messages import Json
from app.runs.write import Fenced

# Invariant: the run keeps its place (`ready` stays); the fence makes it ours to give back, the next claim raises it.
# A run that shall be cancelled does not wait: its next holder ends it.
REQUEUE = """
with h as materialized (
    select conversation_id from heads where conversation_id = $2 for no key update
), l as materialized (
    select id from runs where id = $1 and (select count(*) from h) > 0 for no key update
), r as (
    update runs set state = 'queued', owner = null, lease_until = null, attempt = attempt + $4, error = $5, breakers = $9,
        run_at = now() + make_interval(secs => case when cancel_requested_at is null then $6 else 0 end),
        ran_seconds = ran_seconds + extract(epoch from now() - claimed_at)
    where id = $1 and (select count(*) from l) > 0 and fence = $3 and state = 'running'
    returning run_at, attempt
), hu as (
    update heads set state = 'queued', active_run_id = null, event_seq = event_seq + 1, updated_at = now()
    where conversation_id = $2 and (select count(*) from r) > 0
    returning workspace_id, event_seq
), e as (
    insert into events (conversation_id, seq, workspace_id, run_id, type, payload)
    select $2, hu.event_seq, hu.workspace_id, $1, $7,
        case when $4 = 0 then $8::json
        else json_build_object('at', to_char(r.run_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'attempt', r.attempt, 'error', $5::json) end
    from hu, r
    returning payload
)
select hu.event_seq, e.payload, now() as at from hu, e
"""


async def retry_later(database: Database, who: Fenced, *, delay_seconds: float, error: Json) -> list[StoredEvent]:
    """Give a run back to the queue after a retryable error; costs one attempt.

    Answers no event when the run was not ours any more.
    """
    return await requeue(database, who, EventType.RUN_RETRYING, {}, attempts=1, delay=delay_seconds, error=error)


async def release(database: Database, who: Fenced, *, reason: str) -> list[StoredEvent]:
    """Give a run back to the queue at once, because this process stops; costs no attempt."""
    return await requeue(database, who, EventType.RUN_QUEUED, {"reason": reason})


async def wait_for_credential(
    database: Database, who: Fenced, *, error: Json, delay_seconds: float
) -> list[StoredEvent]:
    """Give a run back to the queue until a credential can be read again; costs no attempt.

    Answers no event when the run was not ours any more.
    """
    payload = {"reason": error["message"]}
    return await requeue(database, who, EventType.RUN_QUEUED, payload, delay=delay_seconds, error=error)


async def requeue(
    database: Database,
    who: Fenced,
    kind: EventType,
    payload: Json,
    *,
    attempts: int = 0,
    delay: float = 0.0,
    error: Json | None = None,
    breakers: list[str] | None = None,
) -> list[StoredEvent]:
    """Give a run back to the queue; the payload of one that costs an attempt is its own.

    Answers no event when the run was not ours any more.
    """
    async with database.connection("retry later" if attempts else "release") as connection:
        row = await connection.fetchrow(
            REQUEUE, who.run_id, who.conversation_id, who.fence, attempts, error, delay, kind, payload, breakers
        )
    if row is None:
        return []
    event = NewEvent(kind, row["payload"])
    return stored([event], run_id=who.run_id, conversation_id=who.conversation_id, first=row["event_seq"], at=row["at"])


# Invariant: only a run whose lease has run out is taken, by SKIP LOCKED, so that any number of sweeps may look at
# once. Nothing is taken within a lease of a PostgreSQL start: every holder was cut off by it and gets its chance;
# who did not use it is no crash of the run.
RECOVER = """
with lost as materialized (
    select r.id, r.conversation_id, r.owner, case when r.claimed_at < pg_postmaster_start_time() then 0 else 1 end as crash
    from runs r join heads h on h.conversation_id = r.conversation_id
    where r.state = 'running' and r.lease_until < now()
        and (r.crash_count + 1 < $2 or r.claimed_at < pg_postmaster_start_time())
        and now() > pg_postmaster_start_time() + make_interval(secs => $1)
    order by r.lease_until limit 100 for no key update of h, r skip locked
), run as (
    update runs r set state = 'queued', owner = null, lease_until = null, crash_count = r.crash_count + lost.crash,
        run_at = now(), ran_seconds = ran_seconds + extract(epoch from r.lease_until - r.claimed_at)
    from lost where r.id = lost.id
    returning r.id, r.crash_count
), head as (
    update heads h set state = 'queued', active_run_id = null, event_seq = h.event_seq + 1, updated_at = now()
    from lost where h.conversation_id = lost.conversation_id
    returning h.conversation_id, h.workspace_id, h.event_seq, lost.id as run_id
), event as (
    insert into events (conversation_id, seq, workspace_id, run_id, type, payload)
    select head.conversation_id, head.event_seq, head.workspace_id, head.run_id, 'run.recovered',
        json_build_object('crash_count', run.crash_count)
    from head join run on run.id = head.run_id
)
select head.run_id, head.conversation_id, head.event_seq, run.crash_count, lost.owner, now() as at
from head join run on run.id = head.run_id join lost on lost.id = head.run_id
"""


@dataclass(frozen=True)
class Recovered:
    """A run that a dead or cut-off process had held."""

    run_id: UUID
    conversation_id: UUID
    owner: str | None
    crash_count: int
    events: list[StoredEvent]


async def recover(database: Database, *, lease_seconds: float, crash_cap: int) -> list[Recovered]:
    """Queue the runs whose lease has run out, but for those that reached the crash cap."""
    failpoints.before("recover")
    rows = await database.fetch(RECOVER, lease_seconds, crash_cap)
    if rows:
        failpoints.after("recover")
    return [
        Recovered(
            row["run_id"],
            row["conversation_id"],
            row["owner"],
            row["crash_count"],
            stored(
                [NewEvent(EventType.RUN_RECOVERED, {"crash_count": row["crash_count"]})],
                run_id=row["run_id"],
                conversation_id=row["conversation_id"],
                first=row["event_seq"],
                at=row["at"],
            ),
        )
        for row in rows
    ]


# What a sweep must end, each with the error's code: leases lost too often, queue time or deadline over.
OVERDUE = """
select id, conversation_id, 'poison' as code from runs
where state = 'running' and lease_until < now() and crash_count + 1 >= $2
    and claimed_at >= pg_postmaster_start_time() and now() > pg_postmaster_start_time() + make_interval(secs => $1)
union all
select id, conversation_id, 'queue_timeout' from runs
where state = 'queued' and queue_deadline < now() and started_at is null
union all
select id, conversation_id, 'deadline_exceeded' from runs
where state in ('queued', 'waiting') and deadline_at < now()
"""
STILL_OVERDUE = f"select code from ({OVERDUE}) o where id = $3"
LOCK_RUN = "select from runs where id = $1 for no key update"


@dataclass(frozen=True)
class Overdue:
    """A run whose time is over, and the code of the error it fails with."""

    run_id: UUID
    conversation_id: UUID
    code: str


async def overdue(database: Database, *, lease_seconds: float, crash_cap: int) -> list[Overdue]:
    """The runs that must fail because of a limit that ran out while nobody executed them."""
    rows = await database.fetch(f"{OVERDUE} limit 100", lease_seconds, crash_cap)
    return [Overdue(row["id"], row["conversation_id"], row["code"]) for row in rows]


async def still_overdue(connection: Connection, over: Overdue, *, lease_seconds: float, crash_cap: int) -> bool:
    """Whether a run is overdue for the same reason now that nobody can claim or renew it.

    Needs an `engine_tx()` that holds the lock of the conversation's head.
    """
    await connection.execute(LOCK_RUN, over.run_id)
    return await connection.fetchval(STILL_OVERDUE, lease_seconds, crash_cap, over.run_id) == over.code


# Invariant: every conversation with open runs has one that is ready. Settle hands it on; finding one without is a
# defect that the sweep mends and counts.
HAND_ON = """
with r as (
    update runs set ready = true where id in (
        select r.id from runs r where r.conversation_id = $1 and r.state in ('queued', 'waiting')
        and not exists (select from runs o where o.conversation_id = $1 and o.ready
            and o.state in ('queued', 'running', 'waiting'))
        order by r.number limit 1)
    returning id, state
), hu as (
    update heads set state = r.state from r where conversation_id = $1 and heads.state <> r.state
)
select id, state from r
"""

STRANDED = """
select h.conversation_id from heads h where h.open_runs > 0 and h.state <> 'idle'
and h.updated_at < now() - interval '5 seconds' and not exists (
    select from runs r where r.conversation_id = h.conversation_id and r.ready
    and r.state in ('queued', 'running', 'waiting'))
limit 10
"""


async def stranded(database: Database) -> list[UUID]:
    """Conversations with open runs none of which is ready; there should never be one."""
    return [row["conversation_id"] for row in await database.fetch(STRANDED)]


async def hand_on(connection: Connection, conversation_id: UUID) -> UUID | None:
    """Make the lowest open run of a conversation ready; answers it when it may start.

    Needs an `engine_tx()` that holds the head's lock and in which no run of the conversation is ready.
    """
    row = await connection.fetchrow(HAND_ON, conversation_id)
    return row["id"] if row and row["state"] == "queued" else None


WISH = """
update runs set cancel_requested_at = coalesce(cancel_requested_at, now()), cancel_reason = coalesce(cancel_reason, $2)
where id = $1 and state = 'running' returning id
"""


async def wish_cancel(connection: Connection, run_id: UUID, reason: str | None) -> bool:
    """Ask the holder of a running run to stop; False when it is not running.

    Needs an `engine_tx()` that holds the lock of the conversation's head.
    """
    return await connection.fetchval(WISH, run_id, reason) is not None


async def cancel_reason(database: Database, run_id: UUID) -> str | None:
    """Why somebody wished a run cancelled, for its holder, who ends it."""
    return await database.fetchval("select cancel_reason from runs where id = $1", run_id)


DETACH = "update runs set detached = true where id = $1 and not detached and state in ('queued', 'running', 'waiting')"


async def detach(connection: Connection, conversation_id: UUID, run_id: UUID) -> list[StoredEvent]:
    """Switch a live run to the background: its end will be notified. No event when it was already.

    Needs an `engine_tx()` that holds the lock of the conversation's head.
    """
    if await connection.execute(DETACH, run_id) == "UPDATE 0":
        return []
    return await append(connection, conversation_id, run_id, [NewEvent(EventType.RUN_DETACHED)])
