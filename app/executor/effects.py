"""What tools may do beyond their run: tell people, keep files, store a task, remember.

Each in one transaction, once per effect key.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid5

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import artifacts, conversations, cron, tasks
from app.artifacts import NewArtifact
from app.db import Connection, Database, Row
from app.errors import LeaseLost, ParleyError, ToolError
from app.events import Bus, EventType, NewEvent, append
from app.executor.load import Loaded
from app.executor.toolbox import CallContext
from app.knowledge.embedding import Embedder
from app.knowledge.library import Library
from app.knowledge.memories import Memories, Owner, Scope
from app.knowledge.writer import Writer
from app.messages import clean_text
from app.models import Run
from app.notifications import Notice, NotificationConfig, plan
from app.notifications.deliver import insert as insert_deliveries
from app.notifications.registry import CHANNELS
from app.queue import Bell
from app.settings import Settings
from app.settle import announce_steps

ABOUT = """
select c.title, a.name as agent, r.task_id, r.model, t.notification_config, p.email
from runs r join conversations c on c.id = r.conversation_id join agents a on a.id = c.agent_id
left join tasks t on t.id = r.task_id left join principals p on p.id = r.principal_id
where r.id = $1
"""


# Invariant (G3): the row itself is locked, so a claim that was taken over plans nothing.
HELD = "select id from runs where id = $1 and fence = $2 and state = 'running' for no key update"


class Effects:
    """The engine's answer to `ToolContext.notify`, `keep`, `schedule_task` and `memories`."""

    def __init__(self, database: Database, bus: Bus, bell: Bell, embedder: Embedder) -> None:
        """Act on this database."""
        self._database = database
        self._bus = bus
        self._bell = bell
        self._embedder = embedder

    async def notify(self, context: CallContext, text: str, channel: str | None) -> str:
        """Append `run.progress` and plan its deliveries, in one transaction.

        Raises:
            LeaseLost: when the claim does not hold any more.
            ToolError: when there is nobody to tell.
        """
        loaded = context.loaded
        async with self._database.engine_tx("notify") as connection:
            await conversations.lock(connection, loaded.workspace_id, loaded.conversation_id)
            if await connection.fetchval(HELD, loaded.run_id, loaded.fence) is None:
                raise LeaseLost
            about = await connection.fetchrow(ABOUT, loaded.run_id)
            assert about is not None
            config = _config(about, channel, default_slack=context.settings.slack_webhook_url is not None)
            payload = {"text": clean_text(text, 20_000), "done": None, "total": None}
            progress = [NewEvent(EventType.RUN_PROGRESS, payload)]
            events = await append(connection, loaded.conversation_id, loaded.run_id, progress)
            planned = await _plan(connection, context, about, config, text, events[0].seq)
        self._bus.publish(events)
        self._bell.ring()
        return f"Planned: {planned}."

    async def tell_steps(self, settings: Settings, loaded: Loaded, *, after: int = 0) -> None:
        """Plan the deliveries of what a run did on its way, as far as its task asks for them; again, it changes nothing."""
        async with self._database.engine_tx() as connection:
            due = await announce_steps(connection, settings, loaded.run_id, loaded.conversation_id, after=after)
        if due:
            self._bell.ring()

    async def keep(self, context: CallContext, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        """Store an artifact under an id made of the effect key and its name, and append `artifact.created`.

        Raises:
            LeaseLost: when the claim does not hold any more.
            ToolError: when it can't be kept.
        """
        loaded = context.loaded
        artifact = NewArtifact(
            id=uuid5(context.effect_key, name),
            workspace_id=loaded.workspace_id,
            name=name,
            media_type=media_type,
            content=content,
            conversation_id=loaded.conversation_id,
            run_id=loaded.run_id,
            principal_id=loaded.principal_id,
        )
        try:
            artifacts.checked(artifact, context.settings)
        except ParleyError as error:
            raise ToolError(error.detail) from error
        created = [NewEvent(EventType.ARTIFACT_CREATED, artifact.shown)]
        async with self._database.engine_tx() as connection:
            await conversations.lock(connection, loaded.workspace_id, loaded.conversation_id)
            if await connection.fetchval(HELD, loaded.run_id, loaded.fence) is None:
                raise LeaseLost
            new = await artifacts.insert(connection, artifact)
            events = await append(connection, loaded.conversation_id, loaded.run_id, created) if new else []
        self._bus.publish(events)
        return artifact.shown

    async def schedule(self, context: CallContext, prompt: str, expression: str, timezone: str) -> str:
        """Store a scheduled task under an id made of the effect key; what a stranger may have asked for stays untrusted.

        Raises:
            LeaseLost: when the claim does not hold any more.
        """
        loaded = context.loaded
        body = tasks.TaskBody.model_validate(
            {
                "task_type": "scheduled",
                "prompt": prompt,
                "schedule_expression": expression,
                "timezone": timezone,
                "agent": loaded.agent,
            }
        )
        async with self._database.engine_tx() as connection:
            if await connection.fetchval(HELD, loaded.run_id, loaded.fence) is None:
                raise LeaseLost
            created = await tasks.create(
                connection,
                context.settings,
                loaded.workspace_id,
                body,
                principal_id=loaded.principal_id,
                task_id=context.effect_key,
                trusted=loaded.trusted,
            )
        words = cron.describe(expression, timezone)
        return f"Stored task {created.id}: {words}; it is first due {created.next_fire_at:%Y-%m-%d %H:%M} UTC."

    def documents(self, context: CallContext) -> Library:
        """The documents of the run's workspace; what a run adds is as trusted as its conversation."""
        loaded = context.loaded

        async def hold(connection: Connection) -> None:
            if await connection.fetchval(HELD, loaded.run_id, loaded.fence) is None:
                raise LeaseLost

        writer = Writer(loaded.principal_id, loaded.trusted, loaded.conversation_id, loaded.run_id)
        return Library(self._database, self._embedder, loaded.workspace_id, writer, hold)

    def memories(self, context: CallContext) -> Memories:
        """The memories of those the run belongs to: nothing that a model says can name others."""
        loaded = context.loaded

        async def hold(session: AsyncSession) -> None:
            ours = select(Run.id).where(Run.id == loaded.run_id, Run.fence == loaded.fence, Run.state == "running")
            if await session.scalar(ours.with_for_update(key_share=True)) is None:  # As `HELD`.
                raise LeaseLost

        writer = Writer(loaded.principal_id, loaded.trusted, loaded.conversation_id, loaded.run_id)
        return Memories(self._database, loaded.workspace_id, _owners(loaded), writer, hold)


def _owners(loaded: Loaded) -> dict[Scope, Owner]:
    """Whom a run remembers about: its person is who the application says it is, else who wrote or made the task.

    Where nobody of the workspace is behind the text, it has no person: a stranger must not read what is theirs.
    """
    owners: dict[Scope, Owner] = {"agent": Owner(agent_id=loaded.agent_id)}
    if task_id := loaded.task_id or loaded.conversation_task_id:
        owners["task"] = Owner(task_id=task_id)
    if loaded.trusted and (loaded.user or loaded.principal_id):
        owners["person"] = Owner(user=loaded.user) if loaded.user else Owner(principal_id=loaded.principal_id)
    return owners


async def _plan(
    connection: Connection, context: CallContext, about: Row, config: NotificationConfig, text: str, event_seq: int
) -> str:
    loaded = context.loaded
    notice = Notice(
        event=EventType.RUN_PROGRESS,
        workspace_id=loaded.workspace_id,
        conversation_id=loaded.conversation_id,
        run_id=loaded.run_id,
        task_id=about["task_id"],
        event_seq=event_seq,
        title=about["title"],
        base_url=context.settings.base_url,
        text=text,
        agent=about["agent"],
        model=about["model"] or "",
    )
    default_slack = context.settings.slack_webhook_url is not None
    planned = plan(notice, config, default_slack=default_slack)
    await insert_deliveries(connection, notice, planned)
    return ", ".join(f"{delivery.channel} to {delivery.address}" for delivery in planned)


def _config(about: Row, channel: str | None, *, default_slack: bool) -> NotificationConfig:
    """Where this conversation's people are: the task's addresses, else the person's own and the server's Slack.

    Raises:
        ToolError: when there is nobody to tell.
    """
    stored: Mapping[str, Any] | None = about["notification_config"]
    task = NotificationConfig.from_stored(stored) or NotificationConfig.model_validate({})
    addresses = task.email_address or about["email"]
    reached = {
        "email": addresses,
        "slack": default_slack or task.slack_webhook_url or task.slack_channel,
        "webhook": task.callback_url,
    }
    channels = [name for name in {*task.channels, *reached} if name in CHANNELS and reached.get(name, True)]
    if channel is not None:
        channels = [name for name in channels if name == channel]
    if not channels:
        raise ToolError("there is nobody to notify: the task names no address and the server has no default")
    values = {"channels": sorted(channels), "email_address": addresses, "on": ["progress"]}
    return NotificationConfig.model_validate(task.model_dump(exclude_none=True) | values)
