"""Rules: what was planned is told now, later in a digest, or not at all.

They are looked at when a delivery is about to be sent for the first time, one of a task and address after the other, so
that two runs that end together are judged in a row. A question to people is never held back. What is not sent keeps its row,
`suppressed`, with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from app.db import Connection, Database, Row
from app.models import new_id
from app.notifications.config import BURST, DIGEST_SECONDS, Rules
from app.notifications.notice import DECISION, RULES, Notice
from app.notifications.plan import message_id
from app.notifications.slack import WEBHOOK
from app.notifications.words import MAX_LINE, headline

DIGEST = "digest"
MAX_IN_DIGEST = 50
# Only these say how a task does; a change among them is what `only_changes` tells.
OUTCOMES = ("run.completed", "run.failed", "run.cancelled")


@dataclass(frozen=True)
class Verdict:
    """What becomes of a delivery that is due: told, unless there is a reason not to, or a later time."""

    reason: str | None = None
    hold_seconds: float | None = None
    folded: bool = False

    @property
    def told(self) -> bool:
        """Whether it is sent now."""
        return self.reason is None and self.hold_seconds is None and not self.folded


@dataclass(frozen=True)
class Judged:
    """A delivery about to be judged, with the rules in force for it."""

    id: UUID
    workspace_id: UUID
    task_id: UUID | None
    channel: str
    address: str
    event: str
    fingerprint: str | None
    held: bool
    recovered: bool
    rules: Rules

    @property
    def singly(self) -> int:
        """How many messages go out one by one before the next ones become a digest; 0 when all do."""
        if _in_place(self.channel, self.address, self.event):
            return 0
        # A program wants each call, however many there are.
        usual = 0 if self.channel == "webhook" else BURST
        return usual if self.rules.digest_after is None else self.rules.digest_after

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Take a claimed row; what the task leaves open its workspace says."""
        workspace: Mapping[str, Any] = row["workspace_rules"] or {}
        own: Mapping[str, Any] = row["config"] or {}
        found = {name: own.get(name, workspace.get(name)) for name in Rules.model_fields}
        names = ("id", "workspace_id", "task_id", "channel", "address", "event", "fingerprint", "held")
        recovered = bool(row["payload"].get("recovered"))
        return cls(**{name: row[name] for name in names}, recovered=recovered, rules=Rules.model_validate(found))


def silence(row: Row) -> str | None:
    """Why a claimed delivery is not to be sent, as far as that can be told without its history."""
    if row["payload"].get("thread") or row["event"] == DECISION:
        return None  # Somebody has asked for it; or it changes what was told.
    if row["muted"]:
        return "this address has unsubscribed"
    rules: Mapping[str, Any] = row["workspace_rules"] or {}
    told, rule = rules.get("on"), RULES.get(row["event"])
    if told is not None and rule is not None and rule not in told and row["resend_of"] is None:
        return f"the workspace's rules leave out {rule}"
    return None


def needs_judging(row: Row) -> bool:
    """Whether the history of its task decides about a claimed delivery."""
    if row["task_id"] is None or row["admitted_at"] or row["resend_of"] or RULES.get(row["event"]) in (None, "waiting"):
        return False
    if row["payload"].get("thread"):
        return False  # Somebody has asked for it.
    of = Judged.of_row(row)
    # Without rules of its own only a task of which there is much is looked at.
    burst = of.singly if of.rules.digest_after is not None else of.singly and row["crowded"]
    return bool(row["held"] or of.rules.cooldown_seconds or of.rules.only_changes or burst)


def _in_place(channel: str, address: str, event: str) -> bool:
    """Whether a message changes one that is there: the bot tells in one how a run goes."""
    return channel == "slack" and not address.startswith(WEBHOOK) and RULES.get(event) in ("started", "progress")


# One at a time per task, channel and address; the lock goes with the transaction.
LOCK = "select pg_advisory_xact_lock(hashtextextended($1, 7031995))"
# What was told, or is about to be: of what was suppressed or given up nobody has heard.
TOLD = """
select id, event, fingerprint, coalesce(admitted_at, sent_at) as at,
    extract(epoch from now() - coalesce(admitted_at, sent_at))::float as age
from deliveries
where workspace_id = $1 and task_id = $2 and channel = $3 and address = $4 and id <> $5 and resend_of is null
    and (state = 'sent' or (state in ('pending', 'sending') and admitted_at is not null))
    and created_at > now() - interval '30 days'
order by coalesce(admitted_at, sent_at) desc limit 1000
"""
ADMIT = "update deliveries set admitted_at = now(), held = false where id = $1"
# Those that wait for the digest were due together; the first of them says when.
HELD_UNTIL = """
select extract(epoch from min(next_attempt_at) - now())::float from deliveries
where workspace_id = $1 and task_id = $2 and channel = $3 and address = $4 and held and state = 'pending'
"""


async def judge(database: Database, of: Judged) -> Verdict:
    """Say what becomes of a delivery; what is told is marked so in the same transaction."""
    async with database.engine_tx() as connection:
        await connection.execute(LOCK, f"{of.task_id}\n{of.channel}\n{of.address}")
        if of.held:
            verdict = Verdict(folded=await _fold(connection, of))
        else:
            place = (of.workspace_id, of.task_id, of.channel, of.address)
            verdict = _verdict(of, await connection.fetch(TOLD, *place, of.id))
            if verdict.hold_seconds is not None:
                until: float | None = await connection.fetchval(HELD_UNTIL, *place)
                verdict = Verdict(hold_seconds=max(0.0, until) if until is not None else verdict.hold_seconds)
        if verdict.told:
            await connection.execute(ADMIT, of.id)
    return verdict


def _verdict(of: Judged, told: Sequence[Row]) -> Verdict:
    """Cool-down and change first: what says nothing new does not fill a digest."""
    rules = of.rules
    same = next((row for row in told if row["fingerprint"] == of.fingerprint), None)
    last = next((row for row in told if row["event"] in OUTCOMES), None)
    # Who was last told of a failure must hear that it is over, however lately the same was told.
    news = of.recovered and last is not None and last["event"] != "run.completed"
    if rules.cooldown_seconds and same is not None and same["age"] < rules.cooldown_seconds and not news:
        return Verdict(f"the same was told {_when(same['at'])}; the cool-down is {rules.cooldown_seconds} s")
    if rules.only_changes and of.event in OUTCOMES and last and last["fingerprint"] == of.fingerprint:
        return Verdict(f"nothing changed since {_when(last['at'])}")
    window = rules.digest_seconds or DIGEST_SECONDS
    lately = [row["event"] for row in told if row["age"] < window]
    one_by_one = [event for event in lately if event != DIGEST and not _in_place(of.channel, of.address, event)]
    # A burst goes on until there was no digest for as long as one collects.
    if of.singly and (len(one_by_one) >= of.singly or DIGEST in lately):
        return Verdict(hold_seconds=window)
    return Verdict()


def _when(at: datetime) -> str:
    return f"at {at:%Y-%m-%d %H:%M:%S} UTC"


HELD = """
select id, workspace_id, conversation_id, run_id, task_id, event, payload, created_at, now() as now from deliveries
where workspace_id = $1 and task_id = $2 and channel = $3 and address = $4 and held and state in ('pending', 'sending')
order by created_at, id for no key update
"""
ADD = """
insert into deliveries (id, workspace_id, task_id, event, channel, address, message_id, dedup_key, payload, admitted_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, now())
"""
FOLD = """
update deliveries set state = 'suppressed', held = false, lease_until = null, next_attempt_at = null, reason = $2,
    attempts = 0
where id = any($1::uuid[])
"""


async def _fold(connection: Connection, of: Judged) -> bool:
    """Make one digest of all that was held; one alone is sent as it is. True when this delivery's turn is over."""
    rows = await connection.fetch(HELD, of.workspace_id, of.task_id, of.channel, of.address)
    ids = [row["id"] for row in rows]
    if ids == [of.id]:
        return False
    if of.id not in ids:
        return True  # Folded by another meanwhile.
    digest = new_id()
    notice = _digest_of(rows)
    key = f"{DIGEST}:{digest}"
    own_id = message_id(key, notice.base_url)
    await connection.execute(
        ADD, digest, of.workspace_id, of.task_id, DIGEST, of.channel, of.address, own_id, key, notice.payload()
    )
    await connection.execute(FOLD, ids, f"told in the digest {digest}")
    return True


def _digest_of(rows: Sequence[Row]) -> Notice:
    notices = [Notice.of_row(row) for row in rows]
    last = notices[-1]
    shown = [_entry(notice, row) for notice, row in zip(notices, rows, strict=True)]
    left_out = len(shown) - MAX_IN_DIGEST
    title = f"Digest: {len(rows)} messages about {last.title or 'a task'}"
    return Notice(
        event=DIGEST,
        workspace_id=last.workspace_id,
        conversation_id=None,
        run_id=None,
        event_seq=None,
        title=title if left_out <= 0 else f"{title}, the first {MAX_IN_DIGEST} shown",
        base_url=last.base_url,
        task_id=last.task_id,
        agent=last.agent,
        model=last.model,
        finished_at=rows[-1]["now"],
        digest=tuple(shown[:MAX_IN_DIGEST]),
    )


def _entry(notice: Notice, row: Row) -> dict[str, Any]:
    return {
        "event": notice.event,
        "conversation_id": row["conversation_id"] and str(row["conversation_id"]),
        "run_id": row["run_id"] and str(row["run_id"]),
        "seq": notice.event_seq,
        "delivery_id": str(row["id"]),
        "title": headline(notice),
        "text": (notice.error or notice.text)[:MAX_LINE],
        "url": notice.api_url,
        "at": row["created_at"].isoformat().replace("+00:00", "Z"),
    }
