"""Why a run is not moving, in plain words."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.db import Database, Row
from app.errors import CredentialUnreadable
from app.messages import Json
from app.runs.depend import DEPENDENCIES, DEPENDING, VERDICT
from app.runs.holds import OF_RUN, TOLD

WORKER_SILENT_SECONDS = 30
SHORT_ERROR = 120

# What a waiting run waits for, by the kind of its approval and the tool.
WORDS = {
    "tool": "approval of {}",
    "effect": "somebody to say whether {} took effect",
    "question": "an answer",
}

# The same as `waiting_for` of runs and events.
WAITING_FOR = {"tool": "approval", "effect": "effect", "question": "answer"}

# Whether any worker is alive.
WORKERS = f"""exists (select from workers w
    where w.kind = 'worker' and w.seen_at > now() - interval '{WORKER_SILENT_SECONDS} seconds')"""

STANDING = (
    """
select r.id, r.state, r.ready, r.run_at, r.run_at > now() as later, r.attempt, r.owner, r.lease_until, r.error,
    r.queued_at, r.claimed_at, r.finished_at, r.cancel_requested_at, r.crash_count, r.waits, r.conversation_id,
    r.number, r.workspace_id,
    case when r.state in ('queued', 'waiting') then (
        select count(*) from runs o where o.conversation_id = r.conversation_id and o.number < r.number
        and o.state in ('queued', 'running', 'waiting')) else 0 end as behind,
    (select coalesce(array_agg(p.kind || coalesce(' ' || p.tool, '') order by p.id), '{}') from approvals p
     where p.run_id = r.id and p.state = 'pending') as asked,
    (select """
    + TOLD
    + """ from holds k where """
    + OF_RUN
    + """ order by k.created_at limit 1) as hold,
    case when r.breakers is not null and r.state = 'queued' then (
        select json_build_object('provider', b.provider, 'address', b.address, 'error', b.error, 'probe_at', b.probe_at,
            'probing', b.probe_until > now())
        from breakers b where b.key = any(r.breakers) and b.opened_at is not null order by b.probe_at limit 1
    ) end as breaker,
    case when r.concurrency_key is not null and r.state = 'queued' then (
        select count(*) from runs o where o.workspace_id = r.workspace_id and o.concurrency_key = r.concurrency_key
        and o.state = 'running') end as running_of_key, r.concurrency_key, r.concurrency_limit,
    case when """
    + DEPENDING
    + """ then (select array_agg(t.title || ' (' || coalesce(l.state, 'idle') || ')' order by t.id) from """
    + DEPENDENCIES
    + """ where d.task_id = r.task_id and """
    + VERDICT
    + """ = 'open') end as depends,
    """
    + WORKERS
    + """ as workers
from runs r where r.id = any($1::uuid[])
"""
)


@dataclass(frozen=True)
class Standing:
    """What decides whether a run can move."""

    state: str
    ready: bool
    later: bool
    run_at: datetime
    attempt: int
    behind: int
    workers: bool
    asked: tuple[str, ...]
    hold: Json | None
    limit: tuple[str, int, int] | None
    breaker: Json | None
    credential: str | None
    cancel_requested: bool
    depends: tuple[str, ...] = ()


def reason_of(standing: Standing) -> str | None:
    """Why a run is not moving; None when it is, or is over."""
    if standing.state == "running":
        return "being cancelled" if standing.cancel_requested else None
    if standing.state == "waiting":
        return f"waiting for {_awaited(standing)}"
    if standing.state != "queued":
        return None
    if not standing.ready:
        runs = "1 run" if standing.behind == 1 else f"{standing.behind} runs"
        return f"behind {runs} of this conversation"
    if standing.hold:
        return _held(standing.hold)
    if standing.limit and standing.limit[1] >= standing.limit[2]:
        return "limit {1} of {2} of {0}".format(*standing.limit)
    if standing.breaker:
        return failing(standing.breaker)
    if standing.later and standing.credential:
        return f"{standing.credential}; next try {_time(standing.run_at)}"
    if standing.later:
        what = "next retry" if standing.attempt > 1 else "starts"
        return f"{what} {_time(standing.run_at)}"
    return "waiting for a free worker" if standing.workers else "no worker is running"


def _awaited(standing: Standing) -> str:
    if standing.depends:
        return f"the {'task' if len(standing.depends) == 1 else 'tasks'} {', '.join(standing.depends)}"
    asked = [WORDS.get(each.split(" ")[0], "{}").format(each.partition(" ")[2]) for each in standing.asked]
    return ", ".join(asked) or "a person"


def failing(breaker: Json) -> str:
    """Which provider a run waits for, why, and until when."""
    why = f" ({str(breaker['error'])[:SHORT_ERROR].rstrip('.')})" if breaker["error"] else ""
    then = "being probed now" if breaker["probing"] else f"next probe {_time(breaker['probe_at'])}"
    return f"{breaker['provider']} at {breaker['address']} keeps failing{why}; {then}"


def _time(at: datetime | str) -> str:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _held(hold: Json) -> str:
    words = {"pause": "paused", "drain": "draining"}[hold["mode"]]
    by = f" by {hold['by']}" if hold["by"] else ""
    return f"{words}{by}: {hold['reason']}" if hold["reason"] else f"{words}{by}"


def _credential(row: Row) -> str | None:
    """What is said of the credential that the run last found unreadable, if that is what stopped it."""
    error = row["error"] if row["state"] == "queued" else None
    return error["message"] if error and error["code"] == CredentialUnreadable.code else None


def _limit(row: Row) -> tuple[str, int, int] | None:
    """The run's concurrency key, how many of it run, and how many may."""
    if row["running_of_key"] is None or row["concurrency_limit"] is None:
        return None
    return row["concurrency_key"], row["running_of_key"], row["concurrency_limit"]


def standing_of(row: Row) -> Standing:
    """The standing in a row of the STANDING statement."""
    return Standing(
        state=row["state"],
        ready=row["ready"],
        later=row["later"],
        run_at=row["run_at"],
        attempt=row["attempt"],
        behind=row["behind"],
        workers=row["workers"],
        asked=tuple(row["asked"]),
        hold=row["hold"],
        limit=_limit(row),
        breaker=row["breaker"],
        credential=_credential(row),
        cancel_requested=row["cancel_requested_at"] is not None,
        depends=tuple(row["depends"] or ()),
    )


def why_new(run_at: datetime | None, now: datetime, hold: Json | None, *, workers: bool) -> "Why":
    """Why a run that was just queued in a new conversation, without a concurrency key, is not moving."""
    later = run_at is not None and run_at > now
    standing = Standing(
        state="queued",
        ready=True,
        later=later,
        run_at=run_at or now,
        attempt=1,
        behind=0,
        workers=workers,
        asked=(),
        hold=hold,
        limit=None,
        breaker=None,
        credential=None,
        cancel_requested=False,
    )
    return _why(standing)


@dataclass(frozen=True)
class Why:
    """Why a run is not moving, in words and as what it waits for."""

    reason: str | None = None
    waiting_for: tuple[str, ...] = ()


async def reasons(database: Database, run_ids: list[UUID]) -> dict[UUID, Why]:
    """The reason of each of these runs, in one statement."""
    if not run_ids:
        return {}
    rows = await database.fetch(STANDING, run_ids)
    return {row["id"]: _why(standing_of(row)) for row in rows}


def _why(standing: Standing) -> Why:
    kinds = {each.split(" ")[0] for each in standing.asked} if standing.state == "waiting" else set[str]()
    outside = {"provider"} if standing.breaker else {"credential"} if standing.credential else set[str]()
    tasks = {"dependency"} if standing.depends else set[str]()
    return Why(reason_of(standing), tuple(sorted({WAITING_FOR[kind] for kind in kinds} | outside | tasks)))


LAST_EVENT = "select seq, type, at from events where run_id = $1 order by seq desc limit 1"


async def explain(database: Database, run_id: UUID) -> Json:
    """Everything an operator asks of a run that does not move: why, since when, who holds it, and what to do next."""
    row = await database.fetchrow(STANDING, [run_id])
    last = await database.fetchrow(LAST_EVENT, run_id)
    assert row is not None, "the caller has found the run"
    standing = standing_of(row)
    return {
        "run_id": run_id,
        "conversation_id": row["conversation_id"],
        "state": row["state"],
        "reason": reason_of(standing) or _settled_reason(row),
        "since": row["finished_at"] or row["claimed_at"] or row["queued_at"],
        "attempt": row["attempt"],
        "crash_count": row["crash_count"],
        "behind": row["behind"],
        "run_at": row["run_at"],
        "lease": {"owner": row["owner"], "until": row["lease_until"]} if row["owner"] else None,
        "provider": row["breaker"],
        "workers_alive": row["workers"],
        "error": row["error"],
        "last_event": dict(last) if last else None,
        "next_action": _next_action(row, standing),
    }


def _settled_reason(row: Row) -> str:
    if row["state"] == "running":
        return f"running, held by {row['owner']}"
    if row["state"] == "completed":
        return "completed"
    error: dict[str, Any] = row["error"] or {}
    return f"{row['state']}: {error.get('message') or 'no error recorded'}"


def _next_action(row: Row, standing: Standing) -> Json:
    run = row["id"]
    if standing.state == "queued" and standing.hold:
        scope = standing.hold["scope"]
        ref = f', "ref": "{standing.hold["ref"]}"' if standing.hold["ref"] else ""
        return {"what": "Resume it.", "command": f'POST /resume {{"scope": "{scope}"{ref}}}'}
    if standing.state == "queued" and standing.ready and not standing.later and not standing.workers:
        return {"what": "Start a worker.", "command": "parley worker"}
    if standing.state == "queued" and standing.breaker and standing.workers:
        return {
            "what": "Wait for the provider, or give the agent fallback models.",
            "command": f"parley runs tail {run}",
        }
    if standing.state == "queued" and standing.credential:
        return {
            "what": "Put the encryption keys right, or store the credential anew.",
            "command": "parley encryption check",
        }
    if standing.state == "queued" and not standing.ready:
        return {"what": "Wait, or cancel the runs before it.", "command": f"parley runs cancel {run}"}
    if standing.state == "waiting" and standing.depends:
        return {"what": "Wait for what it depends on, or cancel it.", "command": f"parley runs cancel {run}"}
    if standing.state == "waiting":
        return {"what": "Decide what it waits for.", "command": f"parley approvals list --run {run}"}
    if standing.state in ("failed", "cancelled"):
        return {"what": "Read what happened, then try it again.", "command": f"parley runs retry {run}"}
    if standing.state == "completed":
        return {"what": "Read the result.", "command": f"parley runs show {run}"}
    return {"what": "Watch it.", "command": f"parley runs tail {run}"}
