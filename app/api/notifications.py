"""/notifications: trying the channels out, and seeing a message before anybody gets it; the rules of a workspace."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import select

from app import audit
from app.api.access import Caller, may
from app.api.deliveries import find
from app.api.strict import resource
from app.errors import InvalidRequest, ParleyError, UnknownReference
from app.models import Task, Workspace, new_id
from app.notifications import CHANNELS, Notice, NotificationConfig
from app.notifications.channel import Address, Envelope, Means
from app.notifications.config import EventName, WorkspaceRules, check_events
from app.notifications.deciders import decides
from app.notifications.files import Files
from app.notifications.notice import RULES
from app.notifications.plan import message_id
from app.notifications.preview import previewed
from app.notifications.registry import addresses

router = resource("notifications")

Writer = Annotated[Caller, may("deliveries:write")]
Reader = Annotated[Caller, may("deliveries:read")]
Admin = Annotated[Caller, may("admin")]
EVENTS = {rule: event for event, rule in RULES.items()}
SAMPLE = "This is what a message looks like: **bold**, [a link](https://example.com) and `code`."


class TestBody(BaseModel):
    """Where to send a test message: the addresses of a task, or these."""

    __test__ = False  # Its name is no test's.
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"notification_config": {"email_address": "user@example.com"}}]},
    )

    task_id: UUID | None = Field(None, description="A task whose notification_config is tried.")
    notification_config: NotificationConfig | None = Field(None, description="Or one that is stored nowhere.")

    @model_validator(mode="after")
    def _one_of_them(self) -> "TestBody":
        if (self.task_id is None) == (self.notification_config is None):
            raise InvalidRequest("give task_id or notification_config", field="task_id")
        return self


class Tried(BaseModel):
    """What became of one address."""

    channel: str
    address: str
    ok: bool
    detail: str | None = Field(description="What the other side said, or where the message is.")
    duration_ms: int


class TestOut(BaseModel):
    """Each address, channel by channel."""

    __test__ = False

    results: list[Tried]


@router.post("/notifications/test", summary="Send a test message")
async def try_channels(body: TestBody, caller: Writer) -> TestOut:
    """Sends now, once, without retries, to each address, and says what happened."""
    task_id, stored = await _addresses_of(body, caller)
    config = NotificationConfig.from_stored(stored)
    assert config is not None, "what was stored is a config"
    engine = caller.engine
    default_slack = engine.settings.slack_webhook_url is not None
    results = [
        await _try(engine.means, caller, name, address, task_id, stored)
        for name in config.channels
        for address in addresses(name, config, default_slack=default_slack)
    ]
    return TestOut(results=results)


async def _addresses_of(body: TestBody, caller: Caller) -> tuple[UUID, dict[str, Any]]:
    """A task's id and stored config; one that was sent is sealed as that of a task that there will never be."""
    if body.notification_config is not None:
        body.notification_config.check(caller.settings)
        made = new_id()
        return made, body.notification_config.stored(caller.engine.box, workspace=caller.workspace_id, task=made)
    query = select(Task).where(
        Task.workspace_id == caller.workspace_id, Task.id == body.task_id, Task.deleted_at.is_(None)
    )
    async with caller.transaction() as session:
        task = await session.scalar(query)
    if task is None:
        raise UnknownReference(f"there is no task {body.task_id}", field="task_id")
    if not task.notification_config:
        raise InvalidRequest("the task has no notification_config", field="task_id")
    return task.id, task.notification_config


async def _try(
    means: Means, caller: Caller, channel: str, address: Address, task_id: UUID, stored: dict[str, Any]
) -> Tried:
    started = time.perf_counter()
    ok, detail = False, address.problem
    if address.problem is None:
        notice = _sample(caller, "test", "Test message", SAMPLE, task_id=task_id)
        delivery_id = new_id()
        envelope = Envelope(delivery_id, address.label, message_id(str(delivery_id), notice.base_url), notice, stored)
        try:
            detail = (await CHANNELS[channel](means).send(envelope)).detail
            ok = True
        except ParleyError as error:
            detail = error.detail
    spent = round((time.perf_counter() - started) * 1000)
    return Tried(channel=channel, address=address.label, ok=ok, detail=detail, duration_ms=spent)


def _sample(
    caller: Caller, event: str, title: str, text: str, *, task_id: UUID, conversation_id: UUID | None = None
) -> Notice:
    return Notice(
        event=event,
        workspace_id=caller.workspace_id,
        conversation_id=conversation_id,
        run_id=None,
        event_seq=None,
        title=title,
        base_url=caller.settings.base_url,
        task_id=task_id,
        text=text,
        agent="assistant",
        finished_at=datetime.now(UTC),
    )


# --- preview ----------------------------------------------------------------------------------------


class PreviewBody(BaseModel):
    """A delivery there is, or a message made of these words."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"event": "failed", "title": "Report"}]})

    delivery_id: UUID | None = None
    event: EventName = "completed"
    title: str = Field("Daily report", max_length=300)
    text: str = Field(SAMPLE, max_length=200_000, description="Markdown.")


class PreviewOut(BaseModel):
    """One message as each channel shows it."""

    subject: str
    text: str
    html: str
    blocks: list[dict[str, Any]] = Field(description="For Slack.")
    payload: dict[str, Any] = Field(description="Of the webhook channel, in full.")


@router.post("/notifications/preview", summary="See a message as its receivers will")
async def preview(body: PreviewBody, caller: Reader) -> PreviewOut:
    """Sends nothing. Links that decide, answer or unsubscribe are shown with `TOKEN` where their receivers have one."""
    check_events([body.event], "event")
    delivery_id, address = body.delivery_id or new_id(), ""
    if body.delivery_id is None:
        notice = _sample(caller, EVENTS[body.event], body.title, body.text, task_id=new_id(), conversation_id=new_id())
    else:
        async with caller.transaction() as session:
            row = await find(session, caller.workspace_id, body.delivery_id)
            notice, address = Notice.of_row(vars(row)), row.address
    files = await Files.of(caller.database, notice)
    by_link = await decides(caller.database, caller.settings, notice, address)
    shown = await asyncio.to_thread(previewed, caller.settings, delivery_id, address, notice, files, decides=by_link)
    return PreviewOut.model_validate(shown, from_attributes=True)


# --- the rules of the workspace ------------------------------------------------------------------------


SET_RULES = "update workspaces set notification_rules = $2 where id = $1"


@router.get("/settings/notifications", summary="The workspace's rules for notifications")
async def get_rules(caller: Admin) -> WorkspaceRules:
    """What its tasks leave open, and which events are told at all."""
    async with caller.transaction() as session:
        stored = await session.scalar(select(Workspace.notification_rules).where(Workspace.id == caller.workspace_id))
    return WorkspaceRules.model_validate(stored or {})


@router.put("/settings/notifications", summary="Set the workspace's rules for notifications")
async def put_rules(body: WorkspaceRules, caller: Admin) -> WorkspaceRules:
    """In force for whatever is sent from now on; what is left out is not ruled."""
    check_events(body.on, "on")
    stored = body.model_dump(mode="json", exclude_none=True)
    # Of its own row a workspace may read all and write nothing: what may be written is here alone.
    async with caller.database.engine_tx() as connection:
        await connection.execute(SET_RULES, caller.workspace_id, stored or None)
        entry = caller.entry("notifications.rules", "workspace", caller.workspace_id, **stored)
        await audit.record_engine(connection, entry)
    return body
