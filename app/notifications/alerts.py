"""Alerts: what whoever runs the server must hear of, told to addresses of its own (`PARLEY_ALERT_*`).

An alert is a delivery like any other, once per occasion: its key says which. One about a channel that does not work goes by
another, where there is one.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import structlog

from app.db import DEFAULT_WORKSPACE, Connection, Database
from app.models import new_id
from app.models.task import LAST_IS_OPEN
from app.notifications.notice import Notice
from app.notifications.plan import message_id
from app.notifications.slack import ALERTS_LABEL
from app.notifications.text import one_line
from app.settings import Settings

log = structlog.stdlib.get_logger(__name__)

ALERT = "alert."
LATE_SECONDS = 60
ALONE_SECONDS = 30
MAX_SAID = 500
LEAST_FREE = 0.05  # Of the disk that PARLEY_HOME is on.


@dataclass(frozen=True)
class Alert:
    """Something to hear of.

    Attributes:
        kind: task_paused, delivery_dead, breaker_open, key_unreadable, no_worker, scheduler_late or disk.
        occasion: Which one: of the same occasion is told once.
        title: In one line.
        text: What is known and what to do, as Markdown.
        not_by: The channel that does not work.
    """

    kind: str
    occasion: str
    title: str
    text: str
    not_by: str | None = None


INSERT = """
insert into deliveries (id, workspace_id, event, channel, address, message_id, dedup_key, payload)
values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing
"""


def task_paused(task_id: UUID | None, title: str, reason: str, occasion: str) -> Alert:
    """A task that was paused by its failures, or by a schedule or prompt that can't be read any more."""
    said = f"{_quoted(reason)}\n\nPut it right, then enable the task: `POST /tasks/{task_id}/enable`."
    return Alert("task_paused", occasion, f"the task {title or 'untitled'} was paused", said)


def delivery_dead(channel: str, address: str, error: str, hour: str) -> Alert:
    """A message that was given up; of a channel once an hour."""
    last = f"The last was to {_quoted(address)}: {_quoted(error)}"
    said = f"{last}\n\n`parley notify list --state dead` shows all; `parley notify resend` sends them again."
    return Alert("delivery_dead", f"{channel} {hour}", f"messages by {channel} are not delivered", said, not_by=channel)


def _quoted(said: str) -> str:
    """Words of others, as code: no markup in them counts."""
    return f"`{one_line(said, MAX_SAID).replace('`', chr(39))}`"


def addresses(settings: Settings) -> list[tuple[str, str]]:
    """Whom alerts go to, as channel and address."""
    found = [("email", address) for address in settings.alert_emails]
    if settings.parley_alert_slack_channel and settings.slack_bot_token:
        found.append(("slack", settings.parley_alert_slack_channel))
    if settings.parley_alert_slack_webhook_url:
        found.append(("slack", ALERTS_LABEL))
    return found


async def tell(connection: Connection, settings: Settings, alerts: Sequence[Alert]) -> bool:
    """Plan the deliveries of alerts in the caller's `engine_tx()`; whether any is new."""
    everywhere, told = addresses(settings), False
    for alert in alerts:
        others = [(channel, address) for channel, address in everywhere if channel != alert.not_by]
        for channel, address in others or everywhere:
            told |= await _insert(connection, settings, alert, channel, address)
    return told


async def _insert(connection: Connection, settings: Settings, alert: Alert, channel: str, address: str) -> bool:
    short = sha256(address.lower().encode()).hexdigest()[:16]
    key = f"{ALERT}{alert.kind}:{alert.occasion}:{channel}:{short}"
    notice = Notice(
        event=f"{ALERT}{alert.kind}",
        workspace_id=DEFAULT_WORKSPACE,
        conversation_id=None,
        run_id=None,
        event_seq=None,
        title=f"Alert: {alert.title}",
        base_url=settings.base_url,
        text=alert.text,
    )
    own_id = message_id(key, settings.base_url)
    values = (DEFAULT_WORKSPACE, notice.event, channel, address, own_id, key, notice.payload())
    return (await connection.execute(INSERT, new_id(), *values)).endswith(" 1")


# --- what is looked for ------------------------------------------------------------------------------

BREAKERS = "select provider, address, error, opened_at from breakers where opened_at is not null"
# A start that waits for the run before, as it was told to, is not late.
LATE = f"""
select count(*) as tasks, min(t.next_fire_at) as since from tasks t
where t.enabled and t.deleted_at is null and t.next_fire_at < now() - make_interval(secs => $1)
    and not ((t.overlap = 'queue' or (t.catch_up = 'all' and t.overlap <> 'allow')) and {LAST_IS_OPEN})
"""
ALONE = """
select count(*) as waiting from runs where state = 'queued' and ready and run_at < now() - make_interval(secs => $1)
    and not exists (select from workers where kind = 'worker' and seen_at > now() - make_interval(secs => $1))
"""
UNREADABLE = """
select count(*) as runs from runs where state = 'queued' and error->>'code' = 'credential_unreadable'
"""
HOUR = "select to_char(now() at time zone 'utc', 'YYYY-MM-DD HH24')"


async def look(database: Database, settings: Settings) -> list[Alert]:
    """What is wrong now, as far as the database and the disk show it."""
    hour: str = await database.fetchval(HOUR)
    return [
        *await _breakers(database),
        *await _late(database, hour),
        *await _alone(database, hour),
        *await _unreadable(database, hour),
        *await _disk(settings, hour),
    ]


async def watch(database: Database, settings: Settings) -> bool:
    """Look, and plan what is new; whether anything is. Without an address nothing is looked for."""
    if not addresses(settings):
        return False
    found = await look(database, settings)
    if not found:
        return False
    async with database.engine_tx() as connection:
        return await tell(connection, settings, found)


async def _breakers(database: Database) -> list[Alert]:
    return [
        Alert(
            "breaker_open",
            f"{row['provider']} {row['address']} {row['opened_at']}",
            f"{row['provider']} is not answering",
            f"Its runs wait. The last error: {row['error']}",
        )
        for row in await database.fetch(BREAKERS)
    ]


async def _late(database: Database, hour: str) -> list[Alert]:
    row = await database.fetchrow(LATE, LATE_SECONDS)
    if row is None or not row["tasks"]:
        return []
    said = f"{row['tasks']} tasks are overdue, the first since {row['since']:%Y-%m-%d %H:%M:%S} UTC. Is a scheduler running?"
    return [Alert("scheduler_late", hour, "The scheduler is late", said)]


async def _alone(database: Database, hour: str) -> list[Alert]:
    waiting: int = await database.fetchval(ALONE, ALONE_SECONDS)
    said = f"{waiting} runs wait, and no worker was seen for {ALONE_SECONDS} s. Start one with `parley worker`."
    return [Alert("no_worker", hour, "No worker is running", said)] if waiting else []


async def _unreadable(database: Database, hour: str) -> list[Alert]:
    runs: int = await database.fetchval(UNREADABLE)
    said = f"{runs} runs wait for a credential that can't be opened. `parley doctor` says which; see PARLEY_ENCRYPTION_KEYS."
    return [Alert("key_unreadable", hour, "A credential can't be read", said)] if runs else []


async def _disk(settings: Settings, hour: str) -> list[Alert]:
    usage = await asyncio.to_thread(_usage, settings)
    if usage is None or usage.free >= usage.total * LEAST_FREE:
        return []
    said = f"{usage.free // 1_000_000} MB of {usage.total // 1_000_000} MB are free where {settings.parley_home} is."
    return [Alert("disk", hour, "The disk is nearly full", said)]


def _usage(settings: Settings) -> shutil._ntuple_diskusage | None:  # pyright: ignore[reportPrivateUsage]
    try:
        return shutil.disk_usage(settings.parley_home)
    except FileNotFoundError:
        return None
    except OSError as error:  # The other alerts are told all the same.
        log.warning("alerts.disk_not_read", error=str(error))
        return None
