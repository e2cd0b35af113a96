"""Reading tasks, their fires and receipts, in a session of the workspace."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row as SqlRow
from sqlalchemy import Select, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.errors import NotFound
from app.models import Agent, Conversation, Fire, Receipt, Run, Task, TaskDependency

LATEST = select(Run).where(Run.task_id == Task.id).order_by(Run.id.desc()).limit(1).lateral()
LatestRun = aliased(Run, LATEST)
RunAgent = aliased(Agent)


@dataclass(frozen=True)
class Awaited:
    """A task that another one waits for."""

    task: UUID
    title: str
    on: str
    state: str


@dataclass(frozen=True)
class Shown:
    """A task with its agent's name, its latest run, and the name of that run's agent."""

    task: Task
    agent: str
    run: Run | None
    run_agent: str | None
    depends_on: Sequence[Awaited] = ()

    @property
    def id(self) -> UUID:
        """The task's id: its place in a list."""
        return self.task.id


def _selected(workspace_id: UUID) -> Select[Task, str, Run, str]:
    return (
        select(Task, Agent.name, LatestRun, RunAgent.name)
        .join(Agent, Agent.id == Task.agent_id)
        .outerjoin(LatestRun, true())
        .outerjoin(Conversation, Conversation.id == LatestRun.conversation_id)
        .outerjoin(RunAgent, RunAgent.id == Conversation.agent_id)
        .where(Task.workspace_id == workspace_id, Task.deleted_at.is_(None))
    )


async def get(session: AsyncSession, workspace_id: UUID, task_id: UUID) -> Shown:
    """A task.

    Raises:
        NotFound: when the workspace has none of that id.
    """
    row = (await session.execute(_selected(workspace_id).where(Task.id == task_id))).one_or_none()
    if row is None:
        raise NotFound(f"there is no task {task_id}")
    return (await _with_dependencies(session, workspace_id, [row]))[0]


async def page(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    task_type: str | None = None,
    state: str | None = None,
    enabled: bool | None = None,
    agent: str | None = None,
) -> Sequence[Shown]:
    """Tasks, newest first, from after one on."""
    query = _selected(workspace_id)
    given: tuple[tuple[Any, Any], ...] = (
        (Task.task_type, task_type),
        (LatestRun.state, state if state != "idle" else None),
        (Task.enabled, enabled),
        (Agent.name, agent),
    )
    for column, value in given:
        query = query.where(column == value) if value is not None else query
    if state == "idle":
        query = query.where(LatestRun.id.is_(None))
    query = query.where(Task.id < after) if after else query
    rows = await session.execute(query.order_by(Task.id.desc()).limit(limit))
    return await _with_dependencies(session, workspace_id, rows.all())


async def _with_dependencies(
    session: AsyncSession, workspace_id: UUID, rows: Sequence[SqlRow[Task, str, Run, str]]
) -> list[Shown]:
    query = (
        select(TaskDependency, Task.title, LatestRun.state)
        .join(Task, Task.id == TaskDependency.depends_on_id)
        .outerjoin(LatestRun, true())
        .where(TaskDependency.workspace_id == workspace_id, TaskDependency.task_id.in_([row[0].id for row in rows]))
        .order_by(Task.id)
    )
    found: defaultdict[UUID, list[Awaited]] = defaultdict(list)
    for each, title, state in await session.execute(query):
        found[each.task_id].append(Awaited(each.depends_on_id, title, each.on_outcome, state or "idle"))
    return [Shown(*row, depends_on=found[row[0].id]) for row in rows]


async def switchable(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    on: bool,
    limit: int,
    ids: Sequence[UUID] | None = None,
    task_type: str | None = None,
    agent: str | None = None,
    paused_reason: str | None = None,
) -> Sequence[UUID]:
    """The tasks of a filter that can be switched on, or off, oldest first."""
    query = select(Task.id).where(Task.workspace_id == workspace_id, Task.deleted_at.is_(None), Task.enabled != on)
    if agent:
        query = query.join(Agent, Agent.id == Task.agent_id).where(Agent.name == agent)
    query = query.where(Task.id.in_(ids)) if ids else query
    query = query.where(Task.task_type == task_type) if task_type else query
    query = query.where(Task.paused_reason == paused_reason) if paused_reason else query
    return (await session.scalars(query.order_by(Task.id).limit(limit))).all()


@dataclass(frozen=True)
class ShownFire:
    """A fire, and whether its run found nothing new."""

    fire: Fire
    unchanged: bool

    @property
    def id(self) -> UUID:
        """The fire's id: its place in a list."""
        return self.fire.id


async def fires(
    session: AsyncSession, workspace_id: UUID, task_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[ShownFire]:
    """The fires of a task, newest first.

    Raises:
        NotFound: when there is no such task.
    """
    await get(session, workspace_id, task_id)
    query = select(Fire, Run.unchanged).outerjoin(Run, Run.id == Fire.run_id).where(Fire.task_id == task_id)
    query = query.where(Fire.id < after) if after else query
    rows = await session.execute(query.order_by(Fire.id.desc()).limit(limit))
    return [ShownFire(fire, bool(unchanged)) for fire, unchanged in rows]


async def receipts(
    session: AsyncSession, workspace_id: UUID, task_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[Receipt]:
    """The webhook calls of a task, newest first.

    Raises:
        NotFound: when there is no such task.
    """
    await get(session, workspace_id, task_id)
    query = select(Receipt).where(Receipt.task_id == task_id)
    query = query.where(Receipt.id < after) if after else query
    return (await session.scalars(query.order_by(Receipt.id.desc()).limit(limit))).all()


async def receipt(session: AsyncSession, workspace_id: UUID, task_id: UUID, receipt_id: UUID) -> Receipt:
    """One webhook call of a task.

    Raises:
        NotFound: when there is no such task, or it has no such receipt.
    """
    await get(session, workspace_id, task_id)
    found = await session.scalar(select(Receipt).where(Receipt.task_id == task_id, Receipt.id == receipt_id))
    if found is None:
        raise NotFound(f"the task has no receipt {receipt_id}")
    return found
