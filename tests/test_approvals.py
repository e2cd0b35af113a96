"""Approvals below the API: what two transactions at once must not do to each other."""

import asyncio
from uuid import UUID

from app.approvals import Decision, NewApproval, decide, park
from app.db import DEFAULT_WORKSPACE
from app.runs import Claim
from app.settings import Settings
from tests.engine import World, world

__all__ = ["world"]


def question(index: int) -> NewApproval:
    return NewApproval(
        kind="tool",
        subject=f"2:{index}",
        tool="notify",
        arguments={},
        args_sha256="x",
        risk="write",
        expires_seconds=60,
        on_expiry="tell",
    )


async def parked(world: World, settings: Settings, questions: int) -> tuple[Claim, list[UUID]]:
    held = await world.one()
    async with world.database.engine_tx() as connection:
        await park(connection, settings, held.fenced, [question(index) for index in range(questions)])
    rows = await world.database.fetch("select id from approvals order by subject")
    return held, [row["id"] for row in rows]


async def test_the_last_of_two_answers_at_once_queues_the_run(world: World, settings: Settings) -> None:
    held, (one, other) = await parked(world, settings, 2)

    async def answer(approval_id: UUID) -> bool:
        async with world.database.engine_tx() as connection:
            yes = Decision(approve=True)
            decided = await decide(connection, DEFAULT_WORKSPACE, approval_id, yes, principal_id=None)
        return decided.work_is_due

    async with world.database.engine_tx() as connection:
        await decide(connection, DEFAULT_WORKSPACE, one, Decision(approve=True), principal_id=None)
        second = asyncio.create_task(answer(other))
        await asyncio.sleep(0.2)  # It has read what it reads before it must wait.
    assert await second
    assert (await world.run(held.run_id))["state"] == "queued"
    assert (await world.types(held.conversation_id)).count("run.queued") == 2
    await world.check()
