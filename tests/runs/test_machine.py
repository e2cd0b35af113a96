"""Random walks of the run state machine against a small model of it: what may happen, happens; nothing else does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.approvals import Decision, NewApproval, decide, park
from app.db import DEFAULT_WORKSPACE
from app.errors import AlreadyDecided, LeaseLost
from app.events import EventType, NewEvent
from app.runs import Claim, Fenced, RunState, Write, release, retry_later
from app.runs.write import commit
from app.settle import Outcome, cancelled
from tests.engine import World

ERROR = {"code": "model_unavailable", "message": "away", "retryable": True}
# Claims come often, so that there is something to lose.
STEPS = (
    "say",
    "claim",
    "claim",
    "claim",
    "write",
    "finish",
    "retry",
    "release",
    "die",
    "cancel",
    "park",
    "approve",
    "stale_write",
    "stale_finish",
)


@dataclass
class Model:
    """One conversation as it should be: its runs in order, and who holds the one that runs."""

    states: dict[UUID, RunState] = field(default_factory=dict)
    held: Claim | None = None
    write_no: int = 0
    stale: list[Fenced] = field(default_factory=list)
    crashes: dict[UUID, int] = field(default_factory=dict)

    @property
    def first_open(self) -> UUID | None:
        ended = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
        return next((run for run, state in self.states.items() if state not in ended), None)

    @property
    def fenced(self) -> Fenced:
        assert self.held
        return Fenced(self.held.run_id, self.held.conversation_id, self.held.fence, self.write_no)

    def let_go(self, state: RunState) -> None:
        assert self.held
        self.states[self.held.run_id] = state
        self.stale.append(self.fenced)
        self.held = None


class Walk:
    """Takes steps in PostgreSQL and in the model alike."""

    def __init__(self, world: World, conversation: UUID) -> None:
        self.world = world
        self.conversation = conversation
        self.model = Model()

    async def take(self, step: str) -> None:
        act: Callable[[], Awaitable[None]] = getattr(self, step)
        await act()

    async def say(self) -> None:
        accepted = await self.world.say(self.conversation)
        self.model.states[accepted.run_id] = RunState.QUEUED

    async def claim(self) -> None:
        claims = [each for each in await self.world.claim() if each.conversation_id == self.conversation]
        first = self.model.first_open
        may = first is not None and self.model.states[first] is RunState.QUEUED
        assert [each.run_id for each in claims] == ([first] if may else [])
        if claims:
            self.model.held = claims[0]
            self.model.write_no = claims[0].write_no
            self.model.states[claims[0].run_id] = RunState.RUNNING

    async def write(self) -> None:
        if self.model.held:
            progress = NewEvent(EventType.RUN_PROGRESS, {"text": "step", "done": None, "total": None})
            await commit(self.world.database, self.model.fenced, Write(events=[progress]))
            self.model.write_no += 1

    async def finish(self) -> None:
        if self.model.held:
            who = self.model.fenced
            assert await self.world.settle(self.model.held, Outcome(RunState.COMPLETED, result="ok"), who=who)
            self.model.let_go(RunState.COMPLETED)

    async def retry(self) -> None:
        if self.model.held:
            assert await retry_later(self.world.database, self.model.fenced, delay_seconds=0, error=ERROR)
            self.model.let_go(RunState.QUEUED)

    async def release(self) -> None:
        if self.model.held:
            assert await release(self.world.database, self.model.fenced, reason="stop")
            self.model.let_go(RunState.QUEUED)

    async def die(self) -> None:
        if self.model.held:
            run = self.model.held.run_id
            await self.world.lapse(run)
            assert [each.run_id for each in await self.world.recover(cap=100)] == [run]
            self.model.let_go(RunState.QUEUED)
            self.model.crashes[run] = self.model.crashes.get(run, 0) + 1

    async def cancel(self) -> None:
        first = self.model.first_open
        if first and self.model.states[first] is not RunState.RUNNING:
            run = await self.world.run(first)
            settled = await self.world.settle(_of(run), cancelled("enough"))
            assert settled
            self.model.states[first] = RunState.CANCELLED

    async def park(self) -> None:
        if self.model.held:
            asked = [
                NewApproval("question", f"1:{n}", "ask_person", {"question": "?"}, "x", "read", 3600, "tell")
                for n in range(2)
            ]
            async with self.world.database.engine_tx() as connection:
                await park(connection, self.world.settings, self.model.fenced, asked)
            self.model.let_go(RunState.WAITING)

    async def approve(self) -> None:
        open_questions = await self.world.database.fetch(
            "select id, run_id from approvals where conversation_id = $1 and state = 'pending' order by id",
            self.conversation,
        )
        waiting = [run for run, state in self.model.states.items() if state is RunState.WAITING]
        assert {row["run_id"] for row in open_questions} == set(waiting)
        for row in open_questions:
            await self._decide(row["id"])
        for run in waiting:
            self.model.states[run] = RunState.QUEUED

    async def _decide(self, approval: UUID) -> None:
        said = Decision(approve=True, arguments={"answer": "yes"})
        async with self.world.database.engine_tx() as connection:
            await decide(connection, DEFAULT_WORKSPACE, approval, said, principal_id=None)
        try:
            async with self.world.database.engine_tx() as connection:
                await decide(connection, DEFAULT_WORKSPACE, approval, said, principal_id=None)
        except AlreadyDecided:
            return
        raise AssertionError("decided twice")

    async def stale_write(self) -> None:
        await self._late(lambda who: commit(self.world.database, who, Write(events=[])))

    async def stale_finish(self) -> None:
        async def settle(who: Fenced) -> object:
            late = Claim(who.run_id, who.conversation_id, DEFAULT_WORKSPACE, who.fence, who.write_no, [])
            return await self.world.settle(late, Outcome(RunState.COMPLETED, result="late"), who=who)

        await self._late(settle)

    async def _late(self, act: Callable[[Fenced], Awaitable[object]]) -> None:
        for who in self.model.stale:
            try:
                await act(who)
            except LeaseLost:
                continue
            raise AssertionError("a claim that was over has written")

    async def check(self) -> None:
        await self.world.check()
        rows = await self.world.database.fetch(
            "select id, state, crash_count from runs where conversation_id = $1 order by number", self.conversation
        )
        assert {row["id"]: RunState(row["state"]) for row in rows} == self.model.states
        assert {row["id"]: row["crash_count"] for row in rows if row["crash_count"]} == self.model.crashes


def _of(run: Any) -> Claim:
    return Claim(run["id"], run["conversation_id"], run["workspace_id"], run["fence"], run["write_no"], [])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.sampled_from(STEPS), min_size=30, max_size=60))
async def test_random_walks(world: World, steps: list[str]) -> None:
    walk = Walk(world, await world.conversation())
    for step in ["say", *steps]:
        await walk.take(step)
        await walk.check()
    await world.database.execute("delete from conversations where id = $1", walk.conversation)
