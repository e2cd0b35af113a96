"""Claims: due runs become running, in batches, each by exactly one process."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app import failpoints
from app.db import Database, Row
from app.events import EventType, NewEvent, StoredEvent, stored
from app.runs.holds import HELD
from app.runs.write import Fenced


@dataclass(frozen=True)
class Claim:
    """A run this process holds, and the fence with which it may write."""

    run_id: UUID
    conversation_id: UUID
    workspace_id: UUID
    fence: int
    write_no: int
    events: list[StoredEvent]

    @property
    def fenced(self) -> Fenced:
        """Who writes, as of the claim."""
        return Fenced(self.run_id, self.conversation_id, self.fence, self.write_no)


# Which runs: the most urgent of each workspace in turn, those with fewer running runs first, so that a busy workspace
# can't starve another. Twice as many as wanted, because others may be claiming at the same moment.
UNKEYED = f"""
with recursive ws as (
    (select workspace_id from runs where state = 'queued' and ready and concurrency_key is null and lane = $1
     order by workspace_id limit 1)
    union all
    select (select r.workspace_id from runs r where r.state = 'queued' and r.ready and r.concurrency_key is null
            and r.lane = $1 and r.workspace_id > ws.workspace_id order by r.workspace_id limit 1)
    from ws where ws.workspace_id is not null
), busy as (
    select workspace_id, count(*) as running from runs where state = 'running' group by workspace_id
), due as (
    select d.id, d.fence, d.priority, d.run_at, coalesce(busy.running, 0)
        + row_number() over (partition by ws.workspace_id order by d.priority desc, d.run_at, d.id) as turn
    from ws left join busy on busy.workspace_id = ws.workspace_id cross join lateral (
        select r.id, r.fence, r.priority, r.run_at from runs r
        where r.state = 'queued' and r.ready and r.concurrency_key is null and r.lane = $1
            and r.workspace_id = ws.workspace_id and r.run_at <= now() and not {HELD}
        order by r.priority desc, r.run_at, r.id limit $2 * 2) d
    where ws.workspace_id is not null
), picked as materialized (
    select r.id, r.conversation_id
    from due join runs r on r.id = due.id join heads h on h.conversation_id = r.conversation_id
    where r.state = 'queued' and r.ready and r.run_at <= now() and r.fence = due.fence
    order by due.turn, due.priority desc, due.run_at, due.id
    limit $2 for no key update of h, r skip locked
)"""

# The runs of one concurrency key, as many as its limit leaves. The statement before holds the key's advisory lock, so
# that two claims never count at once.
KEYED = f"""
with room as (
    select least($2::bigint, min(r.concurrency_limit) - count(*) filter (where r.state = 'running')) as slots
    from runs r where r.workspace_id = $5 and r.concurrency_key = $6 and r.state in ('queued', 'running')
), picked as materialized (
    select r.id, r.conversation_id
    from runs r join heads h on h.conversation_id = r.conversation_id
    where r.state = 'queued' and r.ready and r.lane = $1 and r.run_at <= now() and not {HELD}
        and r.workspace_id = $5 and r.concurrency_key = $6
    order by r.priority desc, r.run_at, r.id
    limit greatest(0, (select slots from room)) for no key update of h, r skip locked
)"""

# Invariant: a run is claimed by the one transaction that holds both its head and its row; SKIP LOCKED never waits, so
# a claim can't deadlock. `queued and ready` is unique per conversation, so a batch can't conflict with itself. The
# fence is that of the snapshot: a run that was claimed and given back meanwhile has consumed inputs this can't see.
# The run's inputs become messages here: it is next in line by now, so their numbers are its own.
START = """, said as (
    select i.id, i.run_id, i.body, row_number() over (partition by i.run_id order by i.id) as n
    from inputs i join picked p on p.id = i.run_id where i.consumed_seq is null and i.kind <> 'steer'
), counted as (
    select p.id, p.conversation_id, (select count(*) from said where run_id = p.id) as n from picked p
), head as (
    update heads h set state = 'running', active_run_id = c.id, message_seq = h.message_seq + c.n,
        event_seq = h.event_seq + 1 + c.n, updated_at = now()
    from counted c where h.conversation_id = c.conversation_id
    returning h.conversation_id, h.workspace_id, c.id as run_id, h.message_seq - c.n as m0, h.event_seq - c.n - 1 as e0
), run as (
    update runs r set state = 'running', fence = r.fence + 1, owner = $3, reason = null, breakers = null,
        lease_until = now() + make_interval(secs => $4), claimed_at = now(),
        started_at = coalesce(r.started_at, now()),
        agent_version = coalesce(r.agent_version, c.agent_version, a.published_version)
    from head join conversations c on c.id = head.conversation_id join agents a on a.id = c.agent_id
    where r.id = head.run_id
    returning r.id, r.fence, r.write_no, r.attempt
), message as (
    insert into messages (conversation_id, seq, workspace_id, run_id, fence, role, text, body, format)
    select head.conversation_id, head.m0 + said.n, head.workspace_id, run.id, run.fence, said.body->>'role',
        said.body->>'text', said.body->'message', 1
    from said join run on run.id = said.run_id join head on head.run_id = run.id
), event as (
    insert into events (conversation_id, seq, workspace_id, run_id, type, ref, payload)
    select head.conversation_id, head.e0 + 1, head.workspace_id, run.id, 'run.started', null,
        json_build_object('attempt', run.attempt, 'fence', run.fence)
    from run join head on head.run_id = run.id
    union all
    select head.conversation_id, head.e0 + 1 + said.n, head.workspace_id, run.id, 'message.created',
        head.m0 + said.n, '{}'
    from said join run on run.id = said.run_id join head on head.run_id = run.id
), consumed as (
    update inputs i set consumed_seq = head.m0 + said.n
    from said join head on head.run_id = said.run_id where i.id = said.id
)
select run.id, run.fence, run.write_no, run.attempt, head.conversation_id, head.workspace_id, head.m0, head.e0,
    now() as at,
    (select json_agg(json_build_object('role', said.body->>'role', 'text', said.body->>'text') order by said.n)
     from said where said.run_id = run.id) as said,
    exists (select from runs r where r.state = 'queued' and r.ready and r.concurrency_key is not null and r.lane = $1)
        as keyed
from run join head on head.run_id = run.id
"""


CLAIM = UNKEYED + START
CLAIM_KEYED = KEYED + START

# The keys with room: full ones must not take the places of others.
KEYS = f"""
select r.workspace_id, r.concurrency_key from runs r
where r.state = 'queued' and r.ready and r.concurrency_key is not null and r.lane = $1 and r.run_at <= now()
    and not {HELD}
group by r.workspace_id, r.concurrency_key
having min(r.concurrency_limit) > (select count(*) from runs o where o.workspace_id = r.workspace_id
    and o.concurrency_key = r.concurrency_key and o.state = 'running')
order by max(r.priority) desc, min(r.run_at) limit 50
"""
TRY_KEY = "select pg_try_advisory_xact_lock(hashtextextended($1 || ':' || $2, 0))"


async def claim(database: Database, *, lane: str, limit: int, owner: str, lease_seconds: float) -> list[Claim]:
    """Claim due runs of a lane, the most urgent first.

    Args:
        database: Its engine pool is used; one statement, and one more transaction for each concurrency key.
        lane: Which queue.
        limit: At most this many.
        owner: This process, unique per start.
        lease_seconds: How long they are ours unless renewed.
    """
    failpoints.before("claim")
    rows = await database.fetch(CLAIM, lane, limit, owner, lease_seconds)
    claims = [_claimed(row) for row in rows]
    keyed = len(claims) < limit and (not rows or rows[0]["keyed"])
    for key in await database.fetch(KEYS, lane) if keyed else ():
        claims += await _claim_key(database, key, lane, limit - len(claims), owner, lease_seconds)
    if claims:
        failpoints.after("claim")
    return claims


async def _claim_key(
    database: Database, key: Row, lane: str, limit: int, owner: str, lease_seconds: float
) -> list[Claim]:
    """Claim within one concurrency key; none while another process is doing so."""
    workspace_id, name = key["workspace_id"], key["concurrency_key"]
    if limit <= 0:
        return []
    async with database.engine_tx("claim key") as connection:
        if not await connection.fetchval(TRY_KEY, str(workspace_id), name):
            return []
        rows = await connection.fetch(CLAIM_KEYED, lane, limit, owner, lease_seconds, workspace_id, name)
    return [_claimed(row) for row in rows]


def _claimed(row: Row) -> Claim:
    said: list[dict[str, Any]] = row["said"] or []
    events = [NewEvent(EventType.RUN_STARTED, {"attempt": row["attempt"], "fence": row["fence"]})]
    events += [
        NewEvent(EventType.MESSAGE_CREATED, shown={"message_seq": row["m0"] + index, **body})
        for index, body in enumerate(said, start=1)
    ]
    return Claim(
        run_id=row["id"],
        conversation_id=row["conversation_id"],
        workspace_id=row["workspace_id"],
        fence=row["fence"],
        write_no=row["write_no"],
        events=stored(
            events, run_id=row["id"], conversation_id=row["conversation_id"], first=row["e0"] + 1, at=row["at"]
        ),
    )


DUE = "select exists (select from runs where state = 'queued' and ready and lane = $1 and run_at <= now())"


async def due(database: Database, lane: str) -> bool:
    """Whether any run of a lane is due, also one that a hold or a full concurrency key keeps back."""
    return await database.fetchval(DUE, lane)
