"""The rows of tasks: stored, read, deleted. All in the caller's `engine_tx()`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app import artifacts
from app.conversations import Accepted, Begun, find_agent, title_of
from app.credentials import Box
from app.db import Connection, Row
from app.errors import InvalidRequest, NotFound
from app.knowledge import memories
from app.models import Task, new_id
from app.notifications import NotificationConfig
from app.settings import Settings
from app.tasks import dependencies, webhook
from app.tasks.due import Rule
from app.tasks.fields import FITTING, SCHEDULE_FIELDS, TaskBody
from app.tasks.inputs import check_for
from app.tasks.launch import READ, Start, begin, launch

FIRES_AT_ONCE = ("delegation", "research")
PAST = timedelta(seconds=60)
PLAIN = (
    "prompt",
    "input",
    "context_data",
    "run_at",
    "conversation",
    "priority",
    "timeout_seconds",
    "queue_timeout_seconds",
    "deadline",
    "auto_pause_after",
    *SCHEDULE_FIELDS,
)


@dataclass(frozen=True)
class Saved:
    """A task that was stored or changed.

    Attributes:
        id: The task.
        next_fire_at: When its schedule starts it next.
        accepted: What its first run asks for after the commit, if it starts at once.
        secret: The webhook's secret when it is new: it is shown once.
        row: The task as it was stored, where that is known without reading it again ...
        begun: ... and how its first run stands.
    """

    id: UUID
    next_fire_at: datetime | None
    accepted: Accepted | None = None
    secret: str | None = None
    row: Task | None = None
    begun: Begun | None = None


async def create(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    body: TaskBody,
    *,
    principal_id: UUID | None = None,
    task_id: UUID | None = None,
    origin: str = "api",
    trusted: bool = True,
) -> Saved:
    """Store a task; a delegation and a research task start at once.

    Args:
        connection: Of an `engine_tx()`.
        settings: For secrets and notifications.
        workspace_id: Whose task.
        body: The task.
        principal_id: Who asks.
        task_id: Made by the caller when a repeat must find the same task.
        origin: Of the conversation, when one begins.
        trusted: Whether the prompt is in the words of the workspace's own people.

    Raises:
        UnknownReference: no such agent.
        InvalidRequest: naming the field.
    """
    task_id = task_id or new_id()
    agent = await find_agent(connection, workspace_id, body.agent)
    await check_for(connection, agent.id, agent.published_version, body.input, body.task_type)
    now: datetime = await connection.fetchval("select now()")
    values, secret = columns_of(body, settings, workspace_id, task_id, None)
    values |= {
        "id": task_id,
        "workspace_id": workspace_id,
        "task_type": body.task_type,
        "agent_id": agent.id,
        "agent_version": agent.published_version,
        "attachments": await artifacts.references(connection, workspace_id, body.attachments),
        "next_fire_at": first_due(body, now),
        "created_by": principal_id,
        "trusted": trusted,
    }
    names = ", ".join(values)
    marks = ", ".join(f"${position}" for position in range(1, len(values) + 1))
    insert = f"insert into tasks ({names}) values ({marks}) on conflict (id) do nothing returning id"
    if await connection.fetchval(insert, *values.values()) is None:
        return await _stored_before(connection, workspace_id, task_id)
    if body.depends_on:
        await dependencies.store(connection, workspace_id, task_id, body.depends_on)
    await own_conversation(connection, workspace_id, task_id, origin)
    accepted = None
    if body.task_type in FIRES_AT_ONCE:
        task = await read(connection, workspace_id, task_id)
        accepted = await launch(connection, settings, Start(task, origin, run_at=body.run_at, trusted=trusted))
    return Saved(task_id, values["next_fire_at"], accepted, secret)


async def _stored_before(connection: Connection, workspace_id: UUID, task_id: UUID) -> Saved:
    task = await read(connection, workspace_id, task_id)
    return Saved(task_id, task["next_fire_at"])


async def read(connection: Connection, workspace_id: UUID, task_id: UUID, *, lock: bool = False) -> Row:
    """A task with its agent and its last fire's run.

    Raises:
        NotFound: when the workspace has no such task.
    """
    where = "where t.workspace_id = $1 and t.id = $2 and t.deleted_at is null"
    row = await connection.fetchrow(f"{READ} {where} {'for no key update of t' if lock else ''}", workspace_id, task_id)
    if row is None:
        raise NotFound(f"there is no task {task_id}")
    return row


# Of two that find it missing at once, the second finds that of the first.
OWN = """
update tasks set conversation_id = $3 where id = $1 and conversation_id is not distinct from $2::uuid returning id
"""


async def own_conversation(connection: Connection, workspace_id: UUID, task_id: UUID, origin: str) -> Row:
    """The task; the one conversation of one that keeps to one is begun if there is none, or if it was deleted.

    It exists before anything starts the task, so that whoever does locks its head before the task.

    Raises:
        NotFound: no such task.
    """
    task = await read(connection, workspace_id, task_id)
    if not task["lacks_conversation"]:
        return task
    conversation_id = new_id()
    if await connection.fetchval(OWN, task_id, task["conversation_id"], conversation_id) is None:
        return await read(connection, workspace_id, task_id)
    trusted = task["trusted"] and (task["task_type"] != "triggered" or bool(task["trigger_config"]["trusted"]))
    await begin(connection, task, conversation_id, ORIGINS.get(task["task_type"], origin), trusted=trusted)
    return await read(connection, workspace_id, task_id)


ORIGINS = {"scheduled": "schedule", "triggered": "webhook"}


# --- what a row holds --------------------------------------------------------------------------------


def first_due(body: TaskBody, now: datetime) -> datetime | None:
    """When a task about to be stored or changed starts by its schedule.

    Raises:
        InvalidRequest: when its only instant has passed.
    """
    if body.task_type != "scheduled":
        return None
    if body.run_at is not None and body.run_at < now - PAST:
        raise InvalidRequest(f"lies in the past; it is {now:%Y-%m-%dT%H:%M:%SZ}", field="run_at")
    return Rule(body.schedule_expression, body.timezone, body.interval, body.run_at).first(now)


def columns_of(
    body: TaskBody, settings: Settings, workspace_id: UUID, task_id: UUID, before: Row | None
) -> tuple[dict[str, Any], str | None]:
    """The columns a body gives, and the webhook's secret when it is new."""
    values: dict[str, Any] = {name: getattr(body, name) for name in PLAIN}
    values["title"] = body.title or title_of(body.prompt)
    values["retry"] = body.retry.model_dump() if body.retry else None
    values["concurrency_key"] = body.concurrency.key if body.concurrency else None
    values["concurrency_limit"] = body.concurrency.limit if body.concurrency else None
    values["notification_config"] = _notification(body, settings, workspace_id, task_id, before)
    secret = None
    if body.trigger_config is not None:
        previous = before["trigger_config"] if before else None
        values["trigger_config"], secret = webhook.stored(
            body.trigger_config, settings, workspace=workspace_id, task=task_id, previous=previous
        )
    return values, secret


def _notification(
    body: TaskBody, settings: Settings, workspace_id: UUID, task_id: UUID, before: Row | None
) -> dict[str, Any] | None:
    config: NotificationConfig | None = body.notification_config
    if config is None:
        return None
    config.check(settings)
    previous = before["notification_config"] if before else None
    return config.stored(Box.from_settings(settings), workspace=workspace_id, task=task_id, previous=previous)


# --- changing ------------------------------------------------------------------------------------------


def fields_of(task: Row) -> dict[str, Any]:
    """A stored task as the body that would store it, without what is checked and sealed when it is sent."""
    values: dict[str, Any] = {
        name: task[name] for name in (*PLAIN, "title", "retry", "agent", "task_type") if task[name] is not None
    }
    if task["concurrency_key"] is not None:
        values["concurrency"] = {"key": task["concurrency_key"], "limit": task["concurrency_limit"]}
    return {
        name: value for name, value in values.items() if task["task_type"] in FITTING.get(name, (task["task_type"],))
    }


def version_of(task: Mapping[str, Any]) -> int | None:
    """The version of its agent that a task runs."""
    return task["agent_version"] or task["published_version"]


async def update(connection: Connection, task_id: UUID, values: Mapping[str, Any]) -> None:
    """Change columns of a locked task."""
    sets = ", ".join(f"{name} = ${position}" for position, name in enumerate(values, start=2))
    await connection.execute(
        f"update tasks set {sets}, version = version + 1, updated_at = now() where id = $1", task_id, *values.values()
    )


async def delete(connection: Connection, workspace_id: UUID, task_id: UUID) -> None:
    """Take a task away, with what it remembers; what it started goes on and stays readable.

    Raises:
        NotFound: no such task.
    """
    task = await read(connection, workspace_id, task_id, lock=True)
    await update(
        connection, task_id, {"enabled": False, "next_fire_at": None, "deleted_at": task["now"], "paused_reason": None}
    )
    await memories.forget_task(connection, workspace_id, task_id)


async def rotate(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    task_id: UUID,
    *,
    overlap_seconds: int,
    secret: str | None = None,
) -> str:
    """Give a webhook a new secret, the given one or one made here; answers it, and the one before stays good for a while.

    Raises:
        NotFound: no such task, or it has no webhook.
        Conflict: when the webhook takes no secret.
        InvalidRequest: when its verifier can't use the given one.
    """
    task = await read(connection, workspace_id, task_id, lock=True)
    if task["trigger_config"] is None:
        raise NotFound(f"the task {task_id} has no webhook")
    config, fresh = webhook.rotated(
        task["trigger_config"],
        settings,
        workspace=workspace_id,
        task=task_id,
        now=task["now"],
        overlap_seconds=overlap_seconds,
        secret=secret,
    )
    await update(connection, task_id, {"trigger_config": config})
    return fresh
