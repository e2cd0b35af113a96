"""Tasks that start at once: stored, begun and noted in one statement that many may share."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from app import audit
from app.audit import Entry
from app.coalesce import Coalescer
from app.conversations import Beginning, Turn, given_with, task_run
from app.conversations.begin import Begun, accepted_as, begun, landed, record
from app.db import Database, UniqueViolation
from app.errors import UnknownReference
from app.models import Task
from app.patterns import PATTERNS
from app.runs.begin import ALL, BEGINNINGS, ROWS
from app.settings import Settings
from app.tasks.fields import TaskBody
from app.tasks.inputs import check, schemas_of
from app.tasks.rows import FIRES_AT_ONCE, PLAIN, Saved, columns_of

COLUMNS = (*PLAIN, "title", "notification_config", "concurrency_key", "concurrency_limit", "created_by")

TASKS = f""", task as (
    insert into tasks (id, workspace_id, task_type, agent_id, agent_version, retry, {", ".join(COLUMNS)})
    select t.id, t.workspace_id, t.task_type, x.agent_id, x.published_version, t.retry,
        {", ".join(f"t.{name}" for name in COLUMNS)}
    from json_populate_recordset(null::tasks, $2::json) t join x on x.task_id = t.id
)"""
NOTE = f", note as ({audit.INSERT_RECORDS} where subject_id in (select task_id::text from x))"
NEW = BEGINNINGS + ALL + TASKS + NOTE + ROWS


@dataclass(frozen=True)
class NewTask:
    """A delegation or research task about to be stored and started.

    Attributes:
        entry: What the audit log keeps of it.
    """

    id: UUID
    workspace_id: UUID
    principal_id: UUID
    body: TaskBody
    settings: Settings
    entry: Entry

    @cached_property
    def columns(self) -> dict[str, Any]:
        """Its row, without its agent."""
        columns, _ = columns_of(self.body, self.settings, self.workspace_id, self.id, None)
        return columns | {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "task_type": self.body.task_type,
            "created_by": self.principal_id,
        }

    @cached_property
    def beginning(self) -> Beginning:
        """Its first run, in a conversation of its own."""
        task = self.columns
        turn = Turn(
            task["prompt"],
            context=given_with(task) or None,
            principal_id=self.principal_id,
            run=task_run(task | {"agent_version": None, "waits": 0}) | {"run_at": task["run_at"]},
        )
        return Beginning(
            self.workspace_id,
            PATTERNS[self.body.task_type],
            self.body.agent,
            turn,
            title=task["title"],
            principal_id=self.principal_id,
            context_data=task["context_data"],
        )

    def row(self, begun: Begun) -> Task:
        """Its row as it was stored."""
        return Task(
            **self.columns,
            agent_id=begun.agent_id,
            agent_version=begun.agent_version,
            attachments=[],
            trusted=True,
            refused_calls=0,
            enabled=True,
            version=1,
            created_at=begun.at,
            updated_at=begun.at,
        )


class NewTasks:
    """The seam behind which the tasks that this process accepts are put together."""

    def __init__(self, database: Database) -> None:
        """Store through this database's engine pool."""
        self._database = database
        self._seam = Coalescer(self._together, self._alone, key=lambda new: new.id)

    @staticmethod
    def takes(body: TaskBody) -> bool:
        """Whether a task is of the kind that is stored here."""
        return (
            body.task_type in FIRES_AT_ONCE and body.conversation == "new" and not (body.attachments or body.depends_on)
        )

    async def store(self, new: NewTask) -> Saved:
        """Store a task and begin its first run; returns when it is on disk.

        Raises:
            UnknownReference: no such agent.
            InvalidRequest: naming the field.
            DatabaseUnavailable: when PostgreSQL is away; whether it landed is then unknown.
        """
        _ = new.beginning  # A task that can't be stored is refused here, before it spoils a batch.
        return await self._seam.do(new)

    async def _together(self, news: Sequence[NewTask]) -> dict[Hashable, Saved]:
        async with self._database.connection("task") as connection:
            takes = await schemas_of(connection, [(new.workspace_id, new.body.agent) for new in news])
            for new in news:
                check(takes.get((new.workspace_id, new.body.agent)), new.body.input, new.body.task_type)
            rows = await connection.fetch(
                NEW,
                [record(new.beginning) for new in news],
                [new.columns for new in news],
                [audit.record_of(new.entry) for new in news],
            )
        by_run = {row["run_id"]: row for row in rows}
        found = [(new, by_run[new.beginning.turn.run_id]) for new in news if new.beginning.turn.run_id in by_run]
        return {new.id: _saved(new, begun(new.beginning, row)) for new, row in found}

    async def _alone(self, new: NewTask) -> Saved:
        try:
            done = await self._together([new])
        except UniqueViolation:
            if not await landed(self._database, new.beginning):
                raise
            return Saved(new.id, None, accepted_as(new.beginning, None))
        if not done:
            raise UnknownReference(f"there is no agent {new.body.agent!r}", field="agent")
        return done[new.id]


def _saved(new: NewTask, begun: Begun) -> Saved:
    return Saved(new.id, None, begun.accepted, row=new.row(begun), begun=begun)
