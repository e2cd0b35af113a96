"""Cancelling and retrying many runs by a filter, with a dry run first."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import select

from app import agents, audit, conversations
from app.api.access import Caller, may
from app.api.runs import RunStateName
from app.api.strict import resource
from app.errors import Conflict, InvalidRequest
from app.models import Agent, Conversation, Run
from app.runs import TERMINAL_STATES

router = resource("runs")

MOST = 1000  # Runs of one call; call again for the rest.

Writer = Annotated[Caller, may("runs:write")]


class Filter(BaseModel):
    """Which runs; every field given must hold, and at least one must be given."""

    model_config = ConfigDict(extra="forbid")

    ids: list[UUID] | None = Field(None, min_length=1, max_length=MOST)
    state: RunStateName | None = None
    task_id: UUID | None = None
    conversation_id: UUID | None = None
    agent: str | None = Field(None, min_length=1, max_length=200, description="By name.")
    error_code: str | None = Field(None, min_length=1, max_length=100, description="Of the error it ended with.")

    @model_validator(mode="after")
    def _says_something(self) -> "Filter":
        if not self.model_dump(exclude_none=True):
            raise InvalidRequest("the filter must name something: it would mean every run", field="filter")
        return self


class BulkBody(BaseModel):
    """A filter, and whether to only count."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"filter": {"state": "queued"}, "dry_run": True}]}
    )

    filter: Filter
    dry_run: bool = Field(False, description="Count what would be done, and do nothing.")


class BulkRetryBody(BulkBody):
    """From where the runs are tried again."""

    origin: Literal["failed_step", "start", "fork"] = Field("failed_step", alias="from")


class BulkOut(BaseModel):
    """How many runs it is about; at most 1,000 in one call."""

    count: int


@router.post("/runs/cancel", summary="Cancel runs by filter")
async def cancel_runs(body: BulkBody, caller: Writer) -> BulkOut:
    """Cancels those that have not ended."""
    found = await _found(caller, body.filter, ended=False)
    if not body.dry_run:
        for run_id, conversation_id in found:
            reason = f"cancelled by {caller.principal.name}"
            await caller.engine.cancel(caller.workspace_id, run_id, conversation_id, reason)
        await _record(caller, "runs.cancel", body, len(found))
    return BulkOut(count=len(found))


@router.post("/runs/retry", summary="Retry runs by filter")
async def retry_runs(body: BulkRetryBody, caller: Writer) -> BulkOut:
    """Tries again those that failed or were cancelled; one that has moved on meanwhile is left out of the count."""
    found = await _found(caller, body.filter, ended=True)
    if body.dry_run:
        return BulkOut(count=len(found))
    count = sum([await _retried(caller, run_id, body.origin) for run_id, _ in found])
    await _record(caller, "runs.retry", body, count)
    return BulkOut(count=count)


async def _retried(caller: Caller, run_id: UUID, origin: str) -> bool:
    try:
        async with caller.database.engine_tx("retry") as connection:
            accepted = await conversations.retry(
                connection,
                caller.settings,
                caller.workspace_id,
                run_id,
                origin=origin,
                principal_id=caller.principal.id,
            )
    except Conflict:
        return False
    caller.engine.welcome(accepted)
    return True


async def _found(caller: Caller, wanted: Filter, *, ended: bool) -> list[tuple[UUID, UUID]]:
    """The runs of a filter, oldest first, among those the call can do something with."""
    terminal = [str(state) for state in TERMINAL_STATES]
    query = select(Run.id, Run.conversation_id).where(Run.workspace_id == caller.workspace_id)
    query = query.where(Run.state.in_(["failed", "cancelled"]) if ended else Run.state.not_in(terminal))
    if wanted.ids:
        query = query.where(Run.id.in_(wanted.ids))
    if wanted.agent:
        query = query.join(Conversation, Conversation.id == Run.conversation_id)
        query = query.join(Agent, Agent.id == Conversation.agent_id).where(Agent.name == wanted.agent)
    if wanted.error_code:
        query = query.where(Run.error["code"].as_string() == wanted.error_code)
    for column, value in (
        (Run.state, wanted.state),
        (Run.task_id, wanted.task_id),
        (Run.conversation_id, wanted.conversation_id),
    ):
        query = query.where(column == value) if value is not None else query
    async with caller.transaction() as session:
        if wanted.agent:
            await agents.check_known(session, caller.workspace_id, wanted.agent, field="filter.agent")
        return [(row[0], row[1]) for row in await session.execute(query.order_by(Run.id).limit(MOST))]


async def _record(caller: Caller, action: str, body: BulkBody, count: int) -> None:
    detail = body.model_dump(mode="json", exclude_none=True)
    async with caller.transaction() as session:
        audit.record(session, caller.entry(action, "runs", "bulk", count=count, **detail))
