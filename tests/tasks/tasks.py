"""Tasks in a few words, and time that passes at will: rows are moved into the past, PostgreSQL's clock stays."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from app import tasks
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Database, Row
from app.errors import RunFailed
from app.runs import RunState
from app.settings import Settings
from app.settle import Outcome, failed, settle
from app.tasks import Fired, Saved, TaskBody

SCHEDULED = {"task_type": "scheduled", "prompt": "Report.", "interval_seconds": 600}
STARTED = "select * from runs where task_id = $1 order by id"


class Desk:
    """Where tasks are stored, fired and looked at."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings

    async def create(self, **body: Any) -> Saved:
        values = body if "task_type" in body else SCHEDULED | body
        async with self.database.engine_tx() as connection:
            return await tasks.create(
                connection,
                self.settings,
                DEFAULT_WORKSPACE,
                TaskBody.model_validate(values),
                principal_id=SYSTEM_PRINCIPAL,
            )

    async def schedule(self, *, due: float, **body: Any) -> UUID:
        """A stored schedule that came due so many seconds ago."""
        saved = await self.create(**body)
        await self.database.execute(
            "update tasks set next_fire_at = now() - $2::interval where id = $1", saved.id, timedelta(seconds=due)
        )
        return saved.id

    async def fire(self, **options: Any) -> Fired:
        return await tasks.fire_due(self.database, self.settings, **options)

    async def fire_at_once(self, number: int) -> list[Fired]:
        return await asyncio.gather(*(self.fire() for _ in range(number)))

    async def task(self, task_id: UUID) -> Row:
        row = await self.database.fetchrow("select *, now() as now from tasks where id = $1", task_id)
        assert row is not None
        return row

    async def fires(self, task_id: UUID) -> list[Row]:
        return await self.database.fetch("select * from fires where task_id = $1 order by due_at, id", task_id)

    async def outcomes(self, task_id: UUID) -> list[str]:
        return [fire["outcome"] for fire in await self.fires(task_id)]

    async def runs(self, task_id: UUID) -> list[Row]:
        return await self.database.fetch(STARTED, task_id)

    async def input_of(self, run_id: UUID) -> dict[str, Any]:
        return await self.database.fetchval("select body from inputs where run_id = $1", run_id)

    async def end(self, run: Row, result: str | None = "Done.", *, fails: bool = False) -> None:
        """Settle a run as a worker would, without one."""
        error = failed(RunFailed("broke"))
        await self.database.execute(
            "update runs set state = 'running', owner = 'test', fence = 1, claimed_at = now(),"
            " lease_until = now() + interval '1 minute' where id = $1",
            run["id"],
        )
        outcome = error if fails else Outcome(RunState.COMPLETED, result=result)
        async with self.database.engine_tx() as connection:
            await settle(connection, self.settings, run["id"], run["conversation_id"], outcome)
