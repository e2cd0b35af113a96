"""The outbox: rows in, messages out.

A delivery is claimed with a lease and a fence of its own, sent while no transaction is open, and then
marked. A sender that dies in between leaves a lease that runs out: the message may then go out twice,
under the same Message-ID, but never not at all.
"""

import asyncio
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import structlog

from app import failpoints
from app.coalesce import Coalescer
from app.db import Connection, Database, Row, affected
from app.errors import DeliveryFailed, DeliveryRefused, ParleyError
from app.events import StoredEvent
from app.models import new_id
from app.notifications import alerts
from app.notifications.channel import Channel, Envelope, Means, SendResult
from app.notifications.config import BURST, DIGEST_SECONDS
from app.notifications.deciders import decides
from app.notifications.decision_links import decision_url
from app.notifications.files import Files
from app.notifications.mutes import unsubscribe_url
from app.notifications.notice import DECISION, Notice
from app.notifications.plan import PlannedDelivery, message_id
from app.notifications.registry import CHANNELS
from app.notifications.replies import reply_address
from app.notifications.rules import Judged, judge, needs_judging, silence
from app.settings import Settings

log = structlog.stdlib.get_logger(__name__)

MAX_ATTEMPTS = 35  # With the waits between them about a day: a mail server that is down overnight loses nothing.
LOST_SENDERS = 8  # So many may end while sending before the delivery is taken for what ends them.
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 3600.0
LONGEST_RETRY_AFTER_SECONDS = 86_400.0
MAX_ERROR = 500
# A send is given up well before its lease runs out, so that nobody else begins while it may still land.
SEND_SECONDS, LEASE_SECONDS = 45.0, 75.0
MOST_TO_ONE, MOST_OF_ONE = 10, 20  # On the way at once: to one address, from one workspace. A batch may go beyond.

INSERT = """
insert into deliveries (id, workspace_id, conversation_id, event_seq, event, run_id, task_id, channel, address,
    state, reason, message_id, dedup_key, fingerprint, payload)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
on conflict do nothing
"""
# One sender per delivery: the lock, the lease and the raised fence are taken in one statement. Receivers that do not answer
# hold up no others: beyond a share, what goes to the addresses of one workspace waits. All mail goes to the operator's server.
CLAIM = f"""
with away as materialized (
    select workspace_id, channel, address, count(*) over (partition by workspace_id) as of_workspace,
        count(*) over (partition by workspace_id, channel, address) as of_address
    from deliveries where state = 'sending' and lease_until >= now() and channel <> 'email'
), due as (
    select id from deliveries d
    where ((state = 'pending' and next_attempt_at <= now()) or (state = 'sending' and lease_until < now()))
        and (event like 'alert.%' or not $3)
        and (channel = 'email' or not exists (
            select from away a where a.workspace_id = d.workspace_id and (of_workspace >= {MOST_OF_ONE}
                or of_address >= {MOST_TO_ONE} and a.channel = d.channel and a.address = d.address)))
    order by next_attempt_at limit $1 for no key update skip locked
)
update deliveries d
set state = 'sending', fence = d.fence + 1, attempts = d.attempts + 1, lease_until = now() + make_interval(secs => $2)
from due where d.id = due.id
returning d.id, d.workspace_id, d.conversation_id, d.run_id, d.task_id, d.event, d.channel, d.address, d.message_id,
    d.payload, d.fence, d.attempts, d.last_error, d.fingerprint, d.admitted_at, d.held, d.resend_of,
    (select t.notification_config from tasks t where t.workspace_id = d.workspace_id and t.id = d.task_id) as config,
    (select w.notification_rules from workspaces w where w.id = d.workspace_id) as workspace_rules,
    exists (select from mutes m where m.workspace_id = d.workspace_id and m.channel = d.channel
        and m.address = lower(d.address) and (m.task_id = d.task_id or m.conversation_id = d.conversation_id)) as muted,
    exists (select from artifacts a where a.workspace_id = d.workspace_id and a.conversation_id = d.conversation_id
        and a.run_id = d.run_id) as has_files,
    -- Whether there may be more of its task than is told one by one; a digest says that there was. The order names the index.
    d.task_id is not null and d.channel <> 'webhook' and (select coalesce(sum(weight), 0) from (
        select case b.event when 'digest' then $5::int else 1 end as weight from deliveries b
        where b.task_id = d.task_id and b.channel = d.channel and b.address = d.address
            and b.created_at > now() - interval '1 day' and (b.state in ('pending', 'sending')
            or coalesce(b.admitted_at, b.sent_at) > now() - make_interval(secs => $4))
        order by b.created_at desc limit $5) lately) >= $5 as crowded
"""
# Only the holder of the last fence says how it went; each row has its own, also where many are marked together.
SENT = """
update deliveries d set state = 'sent', sent_at = now(), reason = s.reason, last_error = null, lease_until = null,
    next_attempt_at = null
from unnest($1::uuid[], $2::bigint[], $3::text[]) as s(id, fence, reason)
where d.id = s.id and d.fence = s.fence and d.state = 'sending'
returning d.id
"""
AGAIN = """
update deliveries set state = 'pending', last_error = $3, lease_until = null,
    next_attempt_at = now() + make_interval(secs => $4)
where id = $1 and fence = $2 and state = 'sending'
"""
DEAD = """
update deliveries set state = 'dead', last_error = $3, lease_until = null, next_attempt_at = null
where id = $1 and fence = $2 and state = 'sending'
"""
SUPPRESSED = """
update deliveries set state = 'suppressed', reason = $3, lease_until = null, next_attempt_at = null, attempts = attempts - 1
where id = $1 and fence = $2 and state = 'sending'
"""
HELD = """
update deliveries set state = 'pending', held = true, lease_until = null, attempts = attempts - 1,
    next_attempt_at = now() + make_interval(secs => $3)
where id = $1 and fence = $2 and state = 'sending'
"""


@dataclass(frozen=True)
class Claimed:
    """A delivery this process may send, until its lease runs out."""

    id: UUID
    channel: str
    fence: int
    attempts: int
    row: Row = field(repr=False)

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """Take a claimed row; what it is about is read when it is sent, so that a bad one spoils no batch."""
        return cls(row["id"], row["channel"], row["fence"], row["attempts"], row)

    async def envelope(self, database: Database, settings: Settings) -> Envelope:
        """What the channel is handed, with the files there are by now, and the links for its receiver."""
        row, notice = self.row, Notice.of_row(self.row)
        files = await Files.of(database, notice) if row["has_files"] else None
        reply_to = await self._reply_to(database, settings, notice) if self.channel == "email" else None
        link = unsubscribe_url(settings, self.id) if notice.can_be_muted else None
        links = await self._decision_urls(database, settings, notice) if self.channel == "email" else ()
        return Envelope(
            row["id"], row["address"], row["message_id"], notice, row["config"], files, reply_to, link, links
        )

    async def _reply_to(self, database: Database, settings: Settings, notice: Notice) -> str | None:
        if notice.conversation_id is None or not notice.can_be_answered:
            return None
        return await reply_address(
            database,
            settings,
            workspace_id=notice.workspace_id,
            conversation_id=notice.conversation_id,
            recipient=self.row["address"],
        )

    async def _decision_urls(self, database: Database, settings: Settings, notice: Notice) -> tuple[str, ...]:
        """The links of a mail that asks; none for whom nobody has named to decide."""
        workspace_id, address = notice.workspace_id, self.row["address"]
        if not await decides(database, settings, notice, address):
            return ()
        return tuple(
            decision_url(settings, workspace_id=workspace_id, approval_id=UUID(each["id"]), address=address)
            for each in notice.asked
        )


@dataclass(frozen=True)
class Sent:
    """A delivery that was handed over, and what there is to say about that."""

    claimed: Claimed
    detail: str | None


async def insert(conn: Connection, notice: Notice, planned: Sequence[PlannedDelivery]) -> None:
    """Write planned deliveries in the caller's transaction; one planned before is left as it is."""
    for delivery in planned:
        await conn.execute(INSERT, new_id(), *_columns(notice, delivery))


# Where the questions of a run were asked in a way that can be changed.
ASKED = """
select distinct on (t.address) t.address, m.payload from slack_messages m join slack_threads t on t.id = m.thread_id
where m.workspace_id = $1 and m.run_id = $2 and m.event = 'run.waiting' order by t.address, m.id desc
"""


async def plan_updates(conn: Connection, workspace_id: UUID, event: StoredEvent) -> bool:
    """Let the messages that ask a run's questions show what became of them; whether there are any.

    Needs the transaction that decides, withdraws or expires one; `event` says so in the log.
    """
    rows = await conn.fetch(ASKED, workspace_id, event.run_id)
    for row in rows:
        ids = {"conversation_id": event.conversation_id, "run_id": event.run_id, "task_id": None}
        asked = Notice.of_row({"event": DECISION, "workspace_id": workspace_id, "payload": row["payload"], **ids})
        key = f"update:{event.run_id}:{event.seq}:{row['address']}"
        own_id = message_id(key, asked.base_url)
        update = PlannedDelivery(
            "slack", row["address"], DECISION, None, "pending", None, own_id, key, asked.fingerprint, row["payload"]
        )
        await insert(conn, asked, [update])
    return bool(rows)


async def claim(conn: Connection, limit: int, *, alerts_only: bool = False) -> list[Claimed]:
    """Take up to `limit` due deliveries, those of dead senders among them."""
    values = (limit, LEASE_SECONDS, alerts_only, DIGEST_SECONDS, BURST + 1)
    return [Claimed.of_row(row) for row in await conn.fetch(CLAIM, *values)]


def retry_delay(attempts: int, retry_after: float | None = None) -> float:
    """Seconds to wait after that many attempts: doubling up to an hour, with jitter; never less than was asked for."""
    backoff = min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 20), LONGEST_RETRY_SECONDS)
    return max(backoff * random.uniform(0.75, 1.25), min(retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS))


class Sender:
    """Sends what is due; one per worker process."""

    def __init__(self, database: Database, means: Means) -> None:
        """Send by every registered channel."""
        self._database = database
        self._settings = means.settings
        self._channels: dict[str, Channel] = {name: kind(means) for name, kind in CHANNELS.items()}
        self._sent = Coalescer(self._mark_sent, self._mark_sent_alone, key=lambda done: done.claimed.id)

    async def send_due(self, limit: int = 20, *, alerts_only: bool = False) -> int:
        """Claim and send one batch; answers how many were claimed, so that a caller goes on while there are any.

        Args:
            limit: At most so many.
            alerts_only: Leave all else to the workers.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away; what was sent meanwhile is sent again later.
        """
        async with self._database.connection() as conn:
            failpoints.before("take delivery")
            claimed = await claim(conn, limit, alerts_only=alerts_only)
        if claimed:
            failpoints.after("take delivery")
        done = await asyncio.gather(*map(self._deliver, claimed), return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(claimed)

    async def _deliver(self, claimed: Claimed) -> None:
        try:
            if not await self._admitted(claimed):
                return
            result = await self._send(claimed)
        except ParleyError as error:
            await self._failed(claimed, error)
        except Exception as error:
            log.exception("delivery.broke", delivery_id=str(claimed.id), channel=claimed.channel)
            await self._failed(claimed, DeliveryFailed(f"{type(error).__name__} while sending; see the server's log"))
        else:
            await self._sent.do(Sent(claimed, result.detail))
            log.info("delivery.sent", delivery_id=str(claimed.id), channel=claimed.channel)

    async def _admitted(self, claimed: Claimed) -> bool:
        """Whether the rules let it be sent now; else it is suppressed, or held for a digest."""
        reason = silence(claimed.row)
        if reason is None and needs_judging(claimed.row):
            verdict = await judge(self._database, Judged.of_row(claimed.row))
            reason = verdict.reason
            if verdict.hold_seconds is not None:
                await self._mark(HELD, claimed, verdict.hold_seconds)
            if reason is None and not verdict.told:
                return False
        if reason is not None:
            await self._mark(SUPPRESSED, claimed, reason)
        return reason is None

    async def _send(self, claimed: Claimed) -> SendResult:
        # An attempt that came to an end of any kind has left its error.
        if claimed.attempts > (LOST_SENDERS if claimed.row["last_error"] is None else MAX_ATTEMPTS):
            raise DeliveryRefused(f"given up after {claimed.attempts - 1} attempts: its senders ended while sending it")
        channel = self._channels.get(claimed.channel)
        if channel is None:
            raise DeliveryRefused(f"this version has no channel {claimed.channel!r}")
        try:
            async with asyncio.timeout(SEND_SECONDS):
                failpoints.before("send")
                result = await channel.send(await claimed.envelope(self._database, self._settings))
                failpoints.after("send")
                return result
        except TimeoutError as error:
            raise DeliveryFailed(f"no answer within {SEND_SECONDS:g} s") from error

    async def _failed(self, claimed: Claimed, error: ParleyError) -> None:
        said = error.detail[:MAX_ERROR]
        final = not error.retryable or claimed.attempts >= MAX_ATTEMPTS
        log.warning("delivery.failed", delivery_id=str(claimed.id), final=final, error=said)
        if final:
            await self._mark(DEAD, claimed, said)
            await self._alert(claimed, said)
        else:
            await self._mark(AGAIN, claimed, said, retry_delay(claimed.attempts, error.retry_after))

    async def _alert(self, claimed: Claimed, said: str) -> None:
        """Let whoever runs the server know by another channel; that this fails must not touch what was marked."""
        if not alerts.addresses(self._settings):
            return
        async with self._database.engine_tx() as connection:
            hour: str = await connection.fetchval(alerts.HOUR)
            dead = alerts.delivery_dead(claimed.channel, claimed.row["address"], said, hour)
            await alerts.tell(connection, self._settings, [dead])

    async def _mark_sent(self, batch: Sequence[Sent]) -> dict[Hashable, None]:
        columns = zip(*((done.claimed.id, done.claimed.fence, done.detail) for done in batch), strict=True)
        async with self._database.connection("mark") as conn:
            rows = await conn.fetch(SENT, *map(list, columns))
        return {row["id"]: None for row in rows}

    async def _mark_sent_alone(self, done: Sent) -> None:
        if not await self._mark_sent([done]):
            log.warning("delivery.lease_lost", delivery_id=str(done.claimed.id))

    async def _mark(self, statement: str, claimed: Claimed, *values: Any) -> None:
        async with self._database.connection("mark") as conn:
            tag = await conn.execute(statement, claimed.id, claimed.fence, *values)
        if not affected(tag):
            log.warning("delivery.lease_lost", delivery_id=str(claimed.id))


def _columns(notice: Notice, delivery: PlannedDelivery) -> tuple[Any, ...]:
    return (
        notice.workspace_id,
        notice.conversation_id,
        delivery.event_seq,
        delivery.event,
        notice.run_id,
        notice.task_id,
        delivery.channel,
        delivery.address,
        delivery.state,
        delivery.reason,
        delivery.message_id,
        delivery.dedup_key,
        delivery.fingerprint,
        delivery.payload,
    )
