"""Changing a stored task. In the caller's `engine_tx()`."""

from typing import Any
from uuid import UUID

from app import artifacts
from app.conversations import find_agent
from app.db import Connection, Row
from app.settings import Settings
from app.tasks import dependencies
from app.tasks.account import passed_over
from app.tasks.due import Rule
from app.tasks.fields import TaskPatch
from app.tasks.inputs import check_for
from app.tasks.rows import Saved, columns_of, fields_of, first_due, own_conversation, read, update, version_of
from app.tasks.switch import switched_on, why_passed_over


async def patch(
    connection: Connection, settings: Settings, workspace_id: UUID, task_id: UUID, changes: TaskPatch
) -> Saved:
    """Change a task; its next instant is found anew when anything about its schedule changed.

    Raises:
        NotFound: no such task.
        InvalidRequest: naming the field.
    """
    task = await read(connection, workspace_id, task_id, lock=True)
    body = changes.merged(fields_of(task))
    kept = {"trigger_config", "notification_config"} - changes.model_fields_set
    sent = body.model_copy(update=dict.fromkeys(kept))
    values, secret = columns_of(sent, settings, workspace_id, task_id, task)
    values |= {name: task[name] for name in kept}  # As they are: only what was sent is checked and sealed again.
    if "agent" in changes.model_fields_set:
        agent = await find_agent(connection, workspace_id, body.agent)
        values |= {"agent_id": agent.id, "agent_version": agent.published_version}
    if changes.model_fields_set & {"agent", "input"}:
        now = {**task, **values}
        await check_for(connection, now["agent_id"], version_of(now), body.input, body.task_type)
    if "attachments" in changes.model_fields_set:
        values["attachments"] = await artifacts.references(connection, workspace_id, body.attachments)
    if "depends_on" in changes.model_fields_set:
        await dependencies.replace(connection, workspace_id, task_id, body.depends_on)
    if "prompt" in changes.model_fields_set:
        values["trusted"] = True  # Its words are now those of whoever changed them.
    values |= await _switched(connection, task, changes.enabled)
    if Rule.of(values) != Rule.of(task):
        await passed_over(connection, task, why_passed_over(task))
        values["next_fire_at"] = first_due(body, task["now"])
    await update(connection, task_id, values)
    await own_conversation(connection, workspace_id, task_id, "api")
    next_fire_at = values.get("next_fire_at", task["next_fire_at"])
    return Saved(task_id, next_fire_at, secret=secret)


async def _switched(connection: Connection, task: Row, enabled: bool | None) -> dict[str, Any]:
    if enabled is None:
        return {}
    return await switched_on(connection, task) if enabled else {"enabled": False}
