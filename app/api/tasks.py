"""Tasks: stored, changed, started, and what became of their starts."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app import audit, cron, tasks
from app.api import runs
from app.api.access import Caller, may
from app.api.answers import made_before
from app.api.conversations import attached
from app.api.idempotency import IdempotencyKey, Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.runs import RunOut
from app.api.shapes import Body, Warned
from app.api.strict import resource
from app.db import Connection
from app.models import Task, new_id
from app.notifications import NotificationConfig
from app.notifications.config import shown as shown_notification
from app.settings import Settings, is_placeholder
from app.tasks import NewTask, NewTasks, Saved, Shown, TaskBody, TaskPatch
from app.tasks.fields import Instant, TaskType
from app.tasks.query import ShownFire

router = resource("tasks")

Reads = Annotated[Caller, may("tasks:read")]
Writes = Annotated[Caller, may("tasks:write")]
TaskState = Literal["idle", "queued", "running", "waiting", "completed", "failed", "cancelled"]


class FileOut(BaseModel):
    """A file that was sent along, as it was then."""

    artifact_id: UUID
    name: str
    media_type: str
    size: int = Field(description="Bytes.")


class DependencyOut(BaseModel):
    """A task that another one waits for."""

    model_config = ConfigDict(from_attributes=True)

    task: UUID
    title: str
    on: Literal["success", "any"] = Field(description="Which endings count.")
    state: TaskState = Field(description="Its latest run's, or idle.")


class TaskOut(BaseModel):
    """A task as the API shows it."""

    id: UUID
    conversation_id: UUID | None = Field(description="Of the latest run, or the one the task keeps to.")
    task_type: TaskType
    title: str
    prompt: str
    agent: str
    agent_version: int | None = Field(description="Kept from when the task was stored or its agent changed.")
    enabled: bool
    state: TaskState = Field(description="The latest run's, or idle.")
    paused_reason: str | None
    schedule_expression: str | None
    interval_seconds: int | None
    run_at: datetime | None
    timezone: str
    overlap: str
    catch_up: str
    catch_up_window_seconds: int
    jitter_seconds: int
    auto_pause_after: int | None
    next_fire_at: datetime | None
    trusted: bool = Field(description="Whether the prompt is in the words of the workspace's own people.")
    trigger_config: dict[str, Any] | None = Field(description="Secrets masked.")
    webhook_url: str | None = Field(description="Where to send calls. A token in it is whole only when it is new.")
    refused_calls: int = Field(description="Webhook calls that were refused; the last hundred have receipts.")
    notification_config: dict[str, Any] | None = Field(description="Secrets masked.")
    input: Any | None
    context_data: dict[str, Any]
    attachments: list[FileOut] = Field(description="What each of its runs gets.")
    depends_on: list[DependencyOut] = Field(default_factory=list[DependencyOut])
    concurrency: dict[str, Any] | None = Field(None, description="How many runs with this key run at once.")
    priority: int
    conversation: Literal["new", "same"]
    retry: dict[str, Any] | None
    timeout_seconds: float | None
    queue_timeout_seconds: float | None
    deadline: datetime | None
    version: int = Field(description="Raised by every change.")
    latest_run: RunOut | None
    result: str | None = Field(description="The latest run's.")
    created_at: datetime
    updated_at: datetime
    warnings: list[Warned] = Field(default_factory=list[Warned])


COLUMNS = frozenset(column.name for column in Task.__table__.columns)
COPIED = [name for name in TaskOut.model_fields if name in COLUMNS]


class FireOut(BaseModel):
    """One start of a task by its schedule or by hand, or one that was not made."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    task_id: UUID
    kind: Literal["schedule", "manual"]
    due_at: datetime
    due_until: datetime | None = Field(description="The last instant of a stretch that was left out.")
    count: int = Field(description="Instants in the stretch.")
    outcome: Literal["run", "skipped", "missed"]
    reason: str | None
    run_id: UUID | None = Field(description="What it started, or the run that tried it again last.")
    unchanged: bool = Field(False, description="Its run found nothing new; nobody was told.")


class RotateBody(Body):
    """The new secret, and how long the one before stays good."""

    overlap_seconds: int = Field(86_400, ge=0, le=30 * 86_400, description="How long both are good.")
    secret: str | None = Field(
        None, min_length=4, max_length=500, description="The one your sender has chosen; made when left out."
    )


class Rotated(BaseModel):
    """The new secret, shown this once."""

    secret: str | None = Field(description="Null when the call is repeated with its Idempotency-Key.")
    webhook_url: str


class PreviewBody(BaseModel):
    """A schedule to look at before it is stored."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"schedule_expression": "0 9 * * MON-FRI", "count": 3}]}
    )

    schedule_expression: str = Field(min_length=1)
    timezone: str = Field("UTC", min_length=1, max_length=100)
    count: int = Field(5, ge=1, le=100)
    start: Instant | None = Field(None, alias="from", description="Instants after this one; now when left out.")


class InstantOut(BaseModel):
    """One due instant."""

    model_config = ConfigDict(from_attributes=True)

    utc: datetime
    local: datetime
    note: str | None = Field(description="What a clock change does to it.")


class PreviewOut(BaseModel):
    """What a schedule will do."""

    model_config = ConfigDict(from_attributes=True)

    description: str = Field(examples=["At 09:00, Monday through Friday (UTC)"])
    timezone: str
    next: list[InstantOut]


# --- showing ------------------------------------------------------------------------------------------


def shown(task: Shown, run: RunOut | None, settings: Settings, secret: str | None = None) -> TaskOut:
    """A task's row as the API shows it.

    Args:
        task: The task with its latest run.
        run: That run as the API shows it.
        settings: For the webhook's URL.
        secret: The webhook's secret while it may be shown.
    """
    row = task.task
    trigger, notification = row.trigger_config, row.notification_config
    return TaskOut.model_validate(
        {name: getattr(row, name) for name in COPIED}
        | {
            "agent": task.agent,
            "conversation_id": run.conversation_id if run else row.conversation_id,
            "state": run.state if run else "idle",
            "next_fire_at": row.next_fire_at if row.enabled else None,
            "trigger_config": tasks.shown_trigger(trigger, secret) if trigger is not None else None,
            "webhook_url": tasks.webhook_url(settings, row.id, trigger, secret) if trigger is not None else None,
            "concurrency": {"key": row.concurrency_key, "limit": row.concurrency_limit}
            if row.concurrency_key
            else None,
            "depends_on": task.depends_on,
            "notification_config": shown_notification(notification) if notification is not None else None,
            "latest_run": run,
            "result": run.result if run else None,
        }
    )


async def show_all(caller: Caller, found: Sequence[Shown]) -> list[TaskOut]:
    """Tasks with their latest runs."""
    rows = [(task.run, task.run_agent) for task in found if task.run]
    shown_runs = await runs.show_all(caller.engine, cast("Any", rows))
    by_task = {run.task_id: run for run in shown_runs}
    return [shown(task, by_task.get(task.id), caller.settings) for task in found]


async def show(caller: Caller, task_id: UUID, secret: str | None = None) -> TaskOut:
    """The task of that id as the API shows it."""
    async with caller.transaction() as session:
        found = await tasks.get(session, caller.workspace_id, task_id)
    (out,) = await show_all(caller, [found])
    if secret is not None:
        return shown(found, out.latest_run, caller.settings, secret)
    return out


# --- routes -------------------------------------------------------------------------------------------


@router.post("/tasks", status_code=201, summary="Store a task")
async def create_task(body: TaskBody, response: Response, caller: Writes, key: Idempotent) -> TaskOut:
    """A delegation and a research task start at once, unless `run_at` says otherwise."""
    attached(caller, body.attachments)
    plain = key.key is None and NewTasks.takes(body)
    saved = await (_store(caller, body) if plain else _create(caller, body, key))
    if saved.accepted:
        caller.engine.welcome(saved.accepted)
    response.headers["Location"] = f"/tasks/{saved.id}"
    task = _shown_new(caller, saved) or await show(caller, saved.id, saved.secret)
    task.warnings = warnings_of(body.notification_config)
    return task


async def _store(caller: Caller, body: TaskBody) -> Saved:
    task_id = new_id()
    entry = caller.entry("task.create", "task", task_id, task_type=body.task_type)
    new = NewTask(task_id, caller.workspace_id, caller.principal.id, body, caller.settings, entry)
    return await caller.engine.new_tasks.store(new)


async def _create(caller: Caller, body: TaskBody, key: IdempotencyKey) -> Saved:
    task_id = new_id()
    async with caller.database.engine_tx("task") as connection:
        if repeat := await key.claim(connection, caller, "task", task_id):
            return Saved(repeat.uuid, None)
        saved = await tasks.create(
            connection,
            caller.settings,
            caller.workspace_id,
            body,
            principal_id=caller.principal.id,
            task_id=task_id,
        )
        await _note(connection, caller, "task.create", task_id, task_type=body.task_type)
    return saved


def _shown_new(caller: Caller, saved: Saved) -> TaskOut | None:
    """A task that was just stored, from what is known of it; None when it must be read."""
    task, begun = saved.row, saved.begun
    if task is None or begun is None or task.concurrency_key is not None:
        return None
    return shown(Shown(task, begun.agent, None, None), runs.shown_new(task, begun), caller.settings)


def warnings_of(config: NotificationConfig | None) -> list[Warned]:
    """What will keep people from being told, though it may be stored."""
    url = config.slack_webhook_url if config else None
    if url is None or not is_placeholder(url):
        return []
    said = "this is the address of an example: Slack will refuse what is sent there"
    return [Warned(code="placeholder", field="notification_config.slack_webhook_url", detail=said)]


async def _note(connection: Connection, caller: Caller, action: str, task_id: UUID, **detail: Any) -> None:
    await audit.record_engine(connection, caller.entry(action, "task", task_id, **detail))


@router.get("/tasks", summary="List tasks")
async def list_tasks(
    caller: Reads,
    page: Annotated[PageOf, paged("tasks")],
    task_type: Annotated[TaskType | None, Query(description="Of this type.")] = None,
    state: Annotated[TaskState | None, Query(description="Of the latest run; idle: never started.")] = None,
    enabled: Annotated[bool | None, Query(description="Only enabled ones, or only others.")] = None,
    agent: Annotated[str | None, Query(description="The agent's name.")] = None,
) -> Page[TaskOut]:
    """Newest first."""
    async with caller.transaction() as session:
        found = await tasks.page(
            session,
            caller.workspace_id,
            after=page.after,
            limit=page.fetch,
            task_type=task_type,
            state=state,
            enabled=enabled,
            agent=agent,
        )
    return page.cut(await show_all(caller, found), lambda task: task)


@router.post("/tasks/schedule/preview", summary="Preview a schedule")
async def preview_schedule(body: PreviewBody, caller: Reads) -> PreviewOut:
    """The schedule in words and its next instants within fifty years, with a note on any clock change among them."""
    start = body.start or await caller.database.fetchval("select now()")
    # Rare instants are far to seek.
    found = await asyncio.to_thread(cron.preview, body.schedule_expression, body.timezone, body.count, start)
    return PreviewOut.model_validate(found, from_attributes=True)


@router.get("/tasks/{task_id}", summary="A task")
async def get_task(task_id: UUID, caller: Reads) -> TaskOut:
    """With its latest run and result."""
    return await show(caller, task_id)


@router.patch("/tasks/{task_id}", summary="Change a task")
async def patch_task(task_id: UUID, changes: TaskPatch, caller: Writes) -> TaskOut:
    """In force for every start after it; a changed schedule finds its next instant anew."""
    attached(caller, changes.attachments or [])
    async with caller.database.engine_tx() as connection:
        saved = await tasks.patch(connection, caller.settings, caller.workspace_id, task_id, changes)
        await _note(connection, caller, "task.patch", task_id, fields=sorted(changes.model_fields_set))
    if "depends_on" in changes.model_fields_set:
        caller.engine.look_at_dependents(task_id)
    task = await show(caller, task_id, saved.secret)
    task.warnings = warnings_of(changes.notification_config)
    return task


@router.delete("/tasks/{task_id}", status_code=204, summary="Delete a task")
async def delete_task(task_id: UUID, caller: Writes) -> None:
    """It starts no more. What it has started goes on and stays readable."""
    async with caller.database.engine_tx() as connection:
        await tasks.delete(connection, caller.workspace_id, task_id)
        await _note(connection, caller, "task.delete", task_id)
    caller.engine.look_at_dependents(task_id)


@router.post("/tasks/{task_id}/execute", status_code=202, summary="Start a task by hand")
async def execute_task(task_id: UUID, response: Response, caller: Writes, key: Idempotent) -> RunOut:
    """Starts it now, beside its schedule, even when it is disabled. Answers the run."""
    run_id = new_id()
    async with caller.database.engine_tx("execute") as connection:
        if repeat := await key.claim(connection, caller, "run", run_id):
            accepted = await made_before(connection, repeat)
        else:
            accepted = await tasks.execute(
                connection,
                caller.settings,
                caller.workspace_id,
                task_id,
                principal_id=caller.principal.id,
                run_id=run_id,
            )
            await _note(connection, caller, "task.execute", task_id, run_id=str(run_id))
    caller.engine.welcome(accepted)
    response.headers["Location"] = f"/runs/{accepted.run_id}"
    return await runs.show(caller, accepted.run_id)


@router.post("/tasks/{task_id}/enable", summary="Enable a task")
async def enable_task(task_id: UUID, caller: Writes) -> TaskOut:
    """Its schedule goes on from the next instant; what passed meanwhile was not missed."""
    async with caller.database.engine_tx() as connection:
        await tasks.enable(connection, caller.workspace_id, task_id)
        await _note(connection, caller, "task.enable", task_id)
    return await show(caller, task_id)


@router.post("/tasks/{task_id}/disable", summary="Disable a task")
async def disable_task(task_id: UUID, caller: Writes) -> TaskOut:
    """Neither schedule nor webhook starts it until it is enabled; what is running goes on."""
    async with caller.database.engine_tx() as connection:
        await tasks.disable(connection, caller.workspace_id, task_id)
        await _note(connection, caller, "task.disable", task_id)
    return await show(caller, task_id)


@router.get("/tasks/{task_id}/fires", summary="The fires of a task")
async def list_fires(task_id: UUID, caller: Reads, page: Annotated[PageOf, paged("fires")]) -> Page[FireOut]:
    """Every due instant with its outcome, newest first; a stretch of missed ones is one row."""
    async with caller.transaction() as session:
        found = await tasks.fires(session, caller.workspace_id, task_id, after=page.after, limit=page.fetch)
    return page.cut(found, _shown_fire)


def _shown_fire(row: ShownFire) -> FireOut:
    out = FireOut.model_validate(row.fire)
    out.unchanged = row.unchanged
    return out


@router.post("/tasks/{task_id}/webhook/rotate", summary="Give a webhook a new secret")
async def rotate_webhook(task_id: UUID, caller: Writes, key: Idempotent, body: RotateBody | None = None) -> Rotated:
    """The secret is shown this once; the one before stays good for the overlap."""
    wanted = body or RotateBody.model_validate({})
    async with caller.database.engine_tx() as connection:
        secret = None
        if not await key.claim(connection, caller, "task", task_id):
            secret = await tasks.rotate(
                connection,
                caller.settings,
                caller.workspace_id,
                task_id,
                overlap_seconds=wanted.overlap_seconds,
                secret=wanted.secret,
            )
            await _note(connection, caller, "task.rotate", task_id, overlap_seconds=wanted.overlap_seconds)
    task = await show(caller, task_id, secret)
    return Rotated(secret=secret, webhook_url=task.webhook_url or "")
