"""Starting a task: a conversation, or the task's own one, and a queued run in it, in the caller's transaction."""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.conversations import Accepted, AgentRef, NewConversation, Turn, reply, start, task_run
from app.db import Connection, Row
from app.models import new_id
from app.patterns import PATTERNS
from app.settings import Settings
from app.tasks import say

SEEN_SECONDS = 30  # Schedulers say each ten seconds that they are here, unless they can't look.

# A task with its agent, the run of its last fire, and the run whose report the next start is told: the last one that had
# something to tell. The one that found nothing new, or failed, was itself told of it. A start that is trusted is told no
# report of one that is not: that would speak with its trust.
# `watched_since`: since when schedulers have been running; not for what was switched on after its only instant.
READ = f"""
select t.*, a.name as agent, a.published_version, now() as now, p.run_id as last_run_id,
    p.conversation_id as last_conversation_id, p.outcome as last_outcome, p.finished_at as last_finished_at,
    coalesce(p.state in ('queued', 'running', 'waiting'), false) as last_is_open,
    own.id is null and t.conversation = 'same' as lacks_conversation, p.told_run_id,
    case when c.trusted or not coalesce(own.trusted, t.trusted) then told.result end as told_result,
    coalesce(c.trusted, true) as told_is_trusted, e.earlier,
    (select count(*) from task_dependencies d where d.task_id = t.id) as waits,
    case when t.run_at is null or t.updated_at <= t.run_at then (select min(w.started_at) from workers w
        where w.kind = 'scheduler' and w.seen_at > now() - interval '{SEEN_SECONDS} s') end as watched_since
from tasks t join agents a on a.id = t.agent_id
left join conversations own on own.id = t.conversation_id and t.conversation = 'same'
left join lateral (
    select f.id, f.run_id, r.conversation_id, r.state, r.finished_at,
        case when r.unchanged then 'no_change' else r.state end as outcome,
        case when r.state = 'completed' and not r.unchanged then r.id else f.told_run_id end as told_run_id
    from fires f join runs r on r.id = f.run_id
    where f.task_id = t.id and f.outcome = 'run' order by f.id desc limit 1) p on true
left join runs told on told.id = p.told_run_id
left join conversations c on c.id = told.conversation_id
left join lateral (
    select json_agg(json_build_object('due_at', x.due_at, 'outcome', x.outcome)) as earlier from (
        select f.due_at, case when r.unchanged then 'no_change' else r.state end as outcome
        from fires f join runs r on r.id = f.run_id
        where f.task_id = t.id and f.outcome = 'run' and f.id < p.id order by f.id desc limit 5) x) e on true
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


def on_schedule(task: Row, instant: datetime) -> Start:
    """The start of a locked task at an instant it was due at."""
    late = random.uniform(0, task["jitter_seconds"]) if task["jitter_seconds"] else 0.0
    return Start(
        task,
        "schedule",
        due_at=instant,
        fire_id=new_id(),
        trusted=task["trusted"],
        run_at=max(instant, task["now"]) + timedelta(seconds=late) if late else None,
    )


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
    return await reply(connection, settings, task["workspace_id"], begun.conversation_id, turn_of(begun))


def turn_of(begun: Start) -> Turn:
    """What a start says.

    Raises:
        RunFailed: when the prompt's template can't be rendered.
    """
    task = begun.task
    due_at: datetime = begun.due_at or task["now"]
    return Turn(
        say.said(task, due_at),
        context=say.data_of(task, due_at),
        files=task["attachments"],
        on_message="enqueue",
        principal_id=begun.principal_id or task["created_by"],
        run=task_run(task) | {"fire_id": begun.fire_id, "run_at": begun.run_at},
        run_id=begun.run_id,
    )
