"""Pausing and resuming many tasks by a filter, with a dry run first."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app import agents, audit, tasks
from app.api.access import Caller, may
from app.api.strict import resource
from app.errors import InvalidRequest, NotFound
from app.tasks.fields import TaskType

router = resource("tasks")

MOST = 1000  # Tasks of one call; call again for the rest.

Writer = Annotated[Caller, may("tasks:write")]


class TaskFilter(BaseModel):
    """Which tasks; every field given must hold, and at least one must be given."""

    model_config = ConfigDict(extra="forbid")

    ids: list[UUID] | None = Field(None, min_length=1, max_length=MOST)
    task_type: TaskType | None = None
    agent: str | None = Field(None, min_length=1, max_length=200, description="By name.")
    paused_reason: str | None = Field(None, min_length=1, max_length=1000, description="Paused for this very reason.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise InvalidRequest("the filter must name something: it would mean every task", field="filter")
        return self


class TaskBulkBody(BaseModel):
    """A filter, and whether to only count."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"filter": {"task_type": "scheduled"}, "dry_run": True}]}
    )

    filter: TaskFilter
    dry_run: bool = Field(False, description="Count what would be done, and do nothing.")


class TaskPauseBody(TaskBulkBody):
    """Why they are paused, too."""

    reason: str | None = Field(None, min_length=1, max_length=1000, description="Shown on each of them.")


class TaskBulkOut(BaseModel):
    """How many tasks it is about; at most 1,000 in one call."""

    count: int


@router.post("/tasks/pause", summary="Pause tasks by filter")
async def pause_tasks(body: TaskPauseBody, caller: Writer) -> TaskBulkOut:
    """Disables those that are enabled, with the reason; what is running goes on."""
    return await _switch(caller, body, on=False, reason=body.reason)


@router.post("/tasks/resume", summary="Resume tasks by filter")
async def resume_tasks(body: TaskBulkBody, caller: Writer) -> TaskBulkOut:
    """Enables those that are disabled; their schedules go on from the next instant, and what passed has a row."""
    return await _switch(caller, body, on=True)


async def _switch(caller: Caller, body: TaskBulkBody, *, on: bool, reason: str | None = None) -> TaskBulkOut:
    wanted = body.filter.model_dump(exclude_none=True)
    async with caller.transaction() as session:
        if body.filter.agent:
            await agents.check_known(session, caller.workspace_id, body.filter.agent, field="filter.agent")
        found = await tasks.switchable(session, caller.workspace_id, on=on, limit=MOST, **wanted)
    if body.dry_run:
        return TaskBulkOut(count=len(found))
    count = sum([await _switched(caller, task_id, on=on, reason=reason) for task_id in found])
    async with caller.transaction() as session:
        action, detail = "tasks.resume" if on else "tasks.pause", body.model_dump(mode="json", exclude_none=True)
        audit.record(session, caller.entry(action, "tasks", "bulk", count=count, **detail))
    return TaskBulkOut(count=count)


async def _switched(caller: Caller, task_id: UUID, *, on: bool, reason: str | None) -> bool:
    """Each in a transaction of its own; one that is gone, or whose schedule can't be read, is left out of the count."""
    try:
        async with caller.database.engine_tx() as connection:
            if on:
                return await tasks.enable(connection, caller.workspace_id, task_id)
            return await tasks.disable(connection, caller.workspace_id, task_id, reason)
    except (NotFound, InvalidRequest):
        return False
