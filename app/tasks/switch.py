"""Switching tasks off and on, one or many; what passed meanwhile is accounted for. In the caller's `engine_tx()`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import Connection, Row
from app.tasks.account import passed_over
from app.tasks.due import Rule
from app.tasks.rows import read, update


async def enable(connection: Connection, workspace_id: UUID, task_id: UUID) -> bool:
    """Let a task start again, from the next instant after now on; False when it was not disabled.

    Raises:
        NotFound: no such task.
        InvalidSchedule: when its rule can't be read any more.
    """
    task = await read(connection, workspace_id, task_id, lock=True)
    if task["enabled"]:
        return False
    await update(connection, task_id, await switched_on(connection, task))
    return True


async def switched_on(connection: Connection, task: Row) -> dict[str, Any]:
    """The columns of a locked task that is switched on again; its instants while it was off are accounted for."""
    columns: dict[str, Any] = {"enabled": True, "paused_reason": None, "consecutive_failures": 0}
    if task["enabled"] or task["task_type"] != "scheduled" or task["run_at"] is not None:
        return columns  # One that starts but once is made up for, by its policy.
    next_fire_at = _next(task)
    await passed_over(connection, task, why_passed_over(task))
    return columns | {"next_fire_at": next_fire_at}


def _next(task: Row) -> datetime | None:
    due, now = task["next_fire_at"], task["now"]
    if due is None or due > now:
        return due or Rule.of(task).first(now)
    return Rule.of(task).after(due, now)


def why_passed_over(task: Row) -> str:
    """Why nobody looked at the instants of a task that passed."""
    if task["enabled"]:
        return "the schedule was changed before it was started"
    return f"the task was disabled: {task['paused_reason']}" if task["paused_reason"] else "the task was disabled"


async def disable(connection: Connection, workspace_id: UUID, task_id: UUID, reason: str | None = None) -> bool:
    """Let nothing but a person's hand start a task; False when it was disabled already.

    Raises:
        NotFound: no such task.
    """
    task = await read(connection, workspace_id, task_id, lock=True)
    if not task["enabled"]:
        return False
    await update(connection, task_id, {"enabled": False, "paused_reason": reason})
    return True
