"""Circuit breakers of model providers: counted, opened, probed and closed, and the runs that wait for them.

A row of `breakers` says that a provider failed lately; `opened_at` that it is not asked until `probe_at`, and then by
one request alone, its probe, until `probe_until`. Success deletes the row. Waiting runs name their breakers and lie in
the queue until one of these closes, or until they are chosen to probe.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from app.db import Connection, Database, Row
from app.errors import InvalidModel
from app.events import EventType, StoredEvent
from app.messages import Json
from app.providers import Circuit, circuits
from app.runs.holds import HELD
from app.runs.moves import requeue
from app.runs.reasons import failing
from app.runs.write import Fenced
from app.settings import Settings

COLUMNS = """b.key, b.provider, b.address, b.error, b.opened_at is not null as open, b.probe_at,
    coalesce(b.probe_until > now(), false) as probing"""
LOOK = f"select {COLUMNS} from breakers b"

# A streak of failures has come to its end, or the probe has failed. Requests that were under way when the breaker
# opened fail without a word: only the probe may keep it open for longer.
TRIPS = "(b.opened_at is null and b.failures + 1 >= $5 or coalesce(b.probe_id = $6, false))"
REST = "now() + make_interval(secs => greatest(least($7 * 2 ^ least({opens}, 30), $8) * $9, $10))"

# Invariant: counted and opened in one statement on the row's lock, so that processes that fail together are one streak.
FAIL = f"""
insert into breakers as b (key, provider, address, failures, error, opens, opened_at, probe_at)
values ($1, $2, $3, 1, $4, case when $5 <= 1 then 1 else 0 end, case when $5 <= 1 then now() end,
    case when $5 <= 1 then {REST.format(opens="0")} end)
on conflict (key) do update set failures = b.failures + 1, error = excluded.error, updated_at = now(),
    opens = b.opens + case when {TRIPS} then 1 else 0 end,
    opened_at = case when {TRIPS} then coalesce(b.opened_at, now()) else b.opened_at end,
    probe_at = case when {TRIPS} then {REST.format(opens="b.opens")} else b.probe_at end,
    probe_id = case when {TRIPS} then null else b.probe_id end,
    probe_until = case when {TRIPS} then null else b.probe_until end
returning {COLUMNS}
"""

# Invariant: one probe at a time. The condition is on the row alone, so whoever waited for its lock sees it anew. The
# lease ends by itself when the prober dies.
PROBE = f"""
with taken as (
    update breakers set probe_id = $2, probe_until = now() + make_interval(secs => $3)
    where key = $1 and probe_at <= now() and (probe_until is null or probe_until < now())
    returning key
)
select {COLUMNS}, exists (select from taken) as taken from breakers b where b.key = $1
"""
RENEW = "update breakers set probe_until = now() + make_interval(secs => $2) where probe_id = any($1::uuid[])"
GIVE_BACK = "update breakers set probe_id = null, probe_until = null where probe_id = $1"

# An open breaker is closed by a probe alone: what else is answered may have been begun before it opened.
# Runs are only ever locked here with SKIP LOCKED: whoever holds one is about to claim or to end it.
CLOSE = """
with gone as (
    delete from breakers where key = $1 and ($2 or opened_at is null) returning key
), woken as materialized (
    select id from runs where state = 'queued' and breakers is not null and $1 = any(breakers)
        and exists (select from gone) order by id for no key update skip locked
), runs as (
    update runs r set run_at = now(), breakers = null from woken where r.id = woken.id returning r.id
)
select count(*) from runs
"""

# Who waits for no open breaker any more has missed its closing: its row came later, or was locked. Of those that wait
# for a breaker whose probe is due one more becomes due with each look, the one that has waited longest; so a run that
# can't be claimed, or whose own request is what fails, keeps nobody waiting.
TEND = f"""
with missed as (
    select r.id from runs r where r.state = 'queued' and r.breakers is not null and not exists (
        select from breakers b where b.key = any(r.breakers) and b.opened_at is not null)
), chosen as (
    select w.id from breakers b cross join lateral (
        select r.id from runs r where r.state = 'queued' and r.breakers is not null and b.key = any(r.breakers)
            and r.ready and r.run_at > now() and not {HELD} order by r.run_at limit 1) w
    where b.probe_at <= now() and (b.probe_until is null or b.probe_until < now())
), picked as materialized (
    select id from runs where id in (select id from missed union select id from chosen) and state = 'queued'
    order by id for no key update skip locked
)
update runs r set run_at = now(), breakers = case when r.id in (select id from missed) then null else r.breakers end
from picked where r.id = picked.id
returning r.id
"""

# Nothing depends on it: the end of a wait is the breaker's. It only bounds what a defect could cost.
NET_SECONDS = 3600.0
MAX_ERROR = 300
LONGEST_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True)
class Breaker:
    """A provider that failed lately."""

    key: str
    provider: str
    address: str
    error: str | None
    open: bool
    probe_at: datetime | None

    probing: bool

    @property
    def words(self) -> str:
        """Who is not asked, why, and until when."""
        return failing(asdict(self))


def _breaker(row: Row) -> Breaker:
    return Breaker(**row)


async def look(database: Database) -> dict[str, Breaker]:
    """The providers that failed lately; nearly always none."""
    return {row["key"]: _breaker(row) for row in await database.fetch(LOOK)}


async def fail(
    database: Database,
    settings: Settings,
    circuit: Circuit,
    *,
    error: str,
    retry_after: float | None,
    probe_id: UUID | None,
) -> Breaker:
    """Count a failure; the breaker may be open after it."""
    row = await database.fetchrow(
        FAIL,
        circuit.key,
        circuit.provider,
        circuit.address,
        error[:MAX_ERROR],
        settings.parley_breaker_failures,
        probe_id,
        settings.parley_breaker_seconds,
        settings.parley_breaker_max_seconds,
        random.uniform(0.75, 1.25),
        min(retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS),
    )
    assert row is not None, "it is inserted or updated"
    return _breaker(row)


async def probe(database: Database, key: str, probe_id: UUID, lease_seconds: float) -> tuple[Breaker | None, bool]:
    """Try to become the one request that may be made; answers the breaker, None when it has closed, and whether so."""
    row = await database.fetchrow(PROBE, key, probe_id, lease_seconds)
    if row is None:
        return None, False
    found = dict(row)
    taken = found.pop("taken")
    return _breaker(found), taken


async def renew_probes(database: Database, probe_ids: Iterable[UUID], lease_seconds: float) -> None:
    """Keep probes that are under way."""
    await database.execute(RENEW, list(probe_ids), lease_seconds)


async def give_back_probe(database: Database, probe_id: UUID) -> None:
    """Let another request probe at once: this one was stopped before it could tell."""
    await database.execute(GIVE_BACK, probe_id)


async def close(database: Database, key: str, *, probed: bool) -> int:
    """The provider answers: forget its failures, and make the runs that waited due; answers how many."""
    return await database.fetchval(CLOSE, key, probed)


async def tend(database: Database) -> int:
    """Make due whoever shall probe, and whoever missed the end of its wait; answers how many."""
    return len(await database.fetch(TEND))


async def wait_for_provider(database: Database, who: Fenced, breakers: Sequence[Breaker]) -> list[StoredEvent]:
    """Give a run back to the queue until one of these breakers closes or lets it probe; costs no attempt.

    Answers no event when the run was not ours any more.
    """
    payload, keys = waiting_for(breakers), [each.key for each in breakers]
    return await requeue(database, who, EventType.RUN_QUEUED, payload, delay=NET_SECONDS, breakers=keys)


def waiting_for(breakers: Sequence[Breaker]) -> Json:
    """The payload of `run.queued` of a run that waits for one of these."""
    first = min(breakers, key=lambda each: str(each.probe_at))
    at = first.probe_at.isoformat() if first.probe_at else None
    return {"reason": first.words, "provider": first.provider, "next_probe_at": at}


MODELS_OF = """
select v.spec->>'model' as model, v.spec->'fallback_models' as fallbacks
from conversations c join agents a on a.id = c.agent_id
join agent_versions v on v.agent_id = a.id and v.version = coalesce($2, c.agent_version, a.published_version)
where c.id = $1
"""
SHUT = f"{LOOK} where b.key = any($1) and b.opened_at is not null and (b.probe_at > now() or b.probe_until > now())"


async def shut_for(
    connection: Connection, settings: Settings, conversation_id: UUID, agent_version: int | None
) -> list[Breaker]:
    """The breakers that keep a new run of a conversation from asking any of its models; none when one may be asked."""
    if not settings.parley_breaker_failures:
        return []
    row = await connection.fetchrow(MODELS_OF, conversation_id, agent_version)
    if row is None:
        return []
    try:
        through = circuits(settings, row["model"], row["fallbacks"] or [])
    except InvalidModel:  # Whoever executes the run says so.
        return []
    keys = {each.key for each in through if each}
    found = [_breaker(each) for each in await connection.fetch(SHUT, list(keys))]
    return found if None not in through and len(found) == len(keys) else []
