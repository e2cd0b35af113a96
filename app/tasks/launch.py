"""Starting a task: a conversation, or the task's own one, and a queued run in it, in the caller's transaction."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.agents.template import render_instructions
from app.conversations import Accepted, AgentRef, NewConversation, Turn, reply, start, task_run
from app.db import Connection, Row
from app.errors import RunFailed
from app.messages import Json, clean_text
from app.models import new_id
from app.patterns import PATTERNS
from app.settings import Settings

EXCERPT = 2000

# A task with its agent, and the last run that a fire of it started.
READ = """
select t.*, a.name as agent, a.published_version, now() as now, p.run_id as last_run_id,
    p.conversation_id as last_conversation_id, p.state as last_state, p.finished_at as last_finished_at,
    p.result as last_result, coalesce(p.state in ('queued', 'running', 'waiting'), false) as last_is_open,
    (select count(*) from task_dependencies d where d.task_id = t.id) as waits
from tasks t join agents a on a.id = t.agent_id
left join lateral (
    select f.run_id, r.conversation_id, r.state, r.finished_at, r.result from fires f join runs r on r.id = f.run_id
    where f.task_id = t.id and f.outcome = 'run' order by f.id desc limit 1) p on true
"""


@dataclass(frozen=True)
class Start:
    """One start of a task, with ids made beforehand so that its fire can name them."""

    task: Row
    origin: str
    due_at: datetime | None = None
    fire_id: UUID | None = None
    run_at: datetime | None = None
    principal_id: UUID | None = None
    trusted: bool = True
    run_id: UUID = field(default_factory=new_id)
    fresh_conversation_id: UUID = field(default_factory=new_id)

    @property
    def conversation_id(self) -> UUID:
        """The task's own conversation when it keeps to one, else a new one."""
        return self.task["conversation_id"] if self.task["conversation"] == "same" else self.fresh_conversation_id


async def begin(connection: Connection, task: Row, conversation_id: UUID, origin: str, **more: Any) -> None:
    """Begin a conversation of a task; it is idle."""
    pattern = PATTERNS[task["task_type"]]
    new = NewConversation(
        id=conversation_id,
        workspace_id=task["workspace_id"],
        # Who may be believed is said by the task, not by its pattern.
        pattern=replace(pattern, trusted=True),
        agent=AgentRef(task["agent_id"], task["agent"], task["published_version"]),
        agent_version=task["agent_version"],
        origin=origin,
        title=task["title"],
        principal_id=task["created_by"],
        context_data=task["context_data"],
        task_id=task["id"],
        **more,
    )
    await start(connection, new)


async def launch(connection: Connection, settings: Settings, begun: Start) -> Accepted:
    """Queue a run of the task.

    Needs an `engine_tx()`; a task that keeps to one conversation has its head locked here, if it is not yet.
    """
    task = begun.task
    if task["conversation"] != "same":
        await begin(connection, task, begun.conversation_id, begun.origin, fire_id=begun.fire_id, trusted=begun.trusted)
    turn = Turn(
        said(begun),
        context=context_of(begun),
        files=task["attachments"],
        on_message="interrupt" if begun.origin == "schedule" and task["overlap"] == "interrupt" else "enqueue",
        principal_id=begun.principal_id or task["created_by"],
        run=task_run(task) | {"fire_id": begun.fire_id, "run_at": begun.run_at},
        run_id=begun.run_id,
    )
    return await reply(connection, settings, task["workspace_id"], begun.conversation_id, turn)


def said(begun: Start) -> str:
    """The prompt; a scheduled one is a template that may name when it was due and how the last one ended.

    Raises:
        RunFailed: when the template stumbles over the values.
    """
    task = begun.task
    if task["task_type"] != "scheduled":
        return task["prompt"]
    fire = fire_of(begun)
    last: Json = fire["previous"] or {}
    values = {
        "fire": fire,
        "fire_time": fire["local"],
        "timezone": fire["timezone"],
        "last_outcome": last.get("outcome"),
        "last_result": last.get("result"),
        "input": task["input"],
        "context": task["context_data"],
    }
    try:
        return clean_text(render_instructions(task["prompt"], values))
    except RunFailed as error:
        raise RunFailed(f"the prompt can't be rendered: {error.__cause__}") from error


def context_of(begun: Start) -> Json | None:
    """The structured data the model gets beside the prompt."""
    given = given_with(begun.task)
    return {**fire_of(begun), **given} if begun.task["task_type"] == "scheduled" else given or None


def given_with(task: Row) -> Json:
    """The data that came with a task."""
    return {name: task[name] for name in ("input", "context_data") if task[name] not in (None, {})}


def fire_of(begun: Start) -> Json:
    """When it was due, and how the last one ended."""
    task = begun.task
    due_at: datetime = begun.due_at or task["now"]
    ended = task["last_finished_at"]
    previous = {
        "outcome": task["last_state"],
        "finished_at": ended.isoformat() if ended else None,
        "result": (task["last_result"] or "")[:EXCERPT] or None,
    }
    return {
        "due_at": due_at.isoformat(timespec="seconds"),
        "local": due_at.astimezone(ZoneInfo(task["timezone"])).isoformat(timespec="seconds"),
        "timezone": task["timezone"],
        "previous": previous if task["last_run_id"] else None,
    }
