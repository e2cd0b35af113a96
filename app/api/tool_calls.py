"""The history of a tool: its calls in runs and by hand, and their numbers."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import AwareDatetime, BaseModel, Field

from app.api.access import Caller, may
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.models import ToolCall
from app.tools import history
from app.tools import registered as rows
from app.tools.registry import INSTALLED

router = resource("tools")

Reads = Annotated[Caller, may("tools:read")]
State = Literal["proposed", "started", "done", "failed", "denied", "unknown"]
USUAL = timedelta(days=7)


class CallOut(BaseModel):
    """A call of a tool, as the ledger has it."""

    id: UUID
    tool: str
    version: int | None = Field(description="Of a registered tool.")
    state: State
    run_id: UUID | None = Field(description="Null for a call by hand.")
    conversation_id: UUID | None
    arguments: Any
    result: Any
    error: str | None
    artifact_id: UUID | None
    risk: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: float | None
    cost_usd: float | None = Field(description="Null when it has not ended or its price is unknown.")


class LatencyOut(BaseModel):
    """How long the calls took that were made."""

    p50: float | None
    p95: float | None
    p99: float | None


class StatsOut(BaseModel):
    """The numbers of a tool's calls."""

    tool: str
    since: datetime
    calls: int = Field(description="All calls asked for, however they ended.")
    states: dict[str, int] = Field(description="How many are in each state.", examples=[{"done": 40, "failed": 2}])
    error_rate: float | None = Field(description="Failed and unknown among the calls that were made; null without any.")
    duration_ms: LatencyOut
    cost_usd: float
    cost_unknown: bool = Field(description="Whether the price of some call is not known.")


@router.get("/tools/{name}/calls", summary="List a tool's calls")
async def list_calls(
    name: str,
    caller: Reads,
    page: Annotated[PageOf, paged("tool calls")],
    state: Annotated[State | None, Query(description="In this state.")] = None,
) -> Page[CallOut]:
    """Calls in runs and by hand, newest first; of a tool's name, whatever its version was."""
    async with caller.transaction() as session:
        found = await history.calls(
            session, caller.workspace_id, name, before=page.after, limit=page.fetch, state=state
        )
        if not found and name not in INSTALLED:
            await rows.get(session, caller.workspace_id, name)
    return page.cut(found, _shown)


def _shown(row: ToolCall) -> CallOut:
    return CallOut(
        id=row.id,
        tool=row.tool,
        version=row.tool_version,
        state=row.state,  # pyright: ignore[reportArgumentType]
        run_id=row.run_id,
        conversation_id=row.conversation_id,
        arguments=row.arguments,
        result=row.result,
        error=row.error,
        artifact_id=row.artifact_id,
        risk=row.risk,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        duration_ms=row.duration_ms,
        cost_usd=None if row.cost_usd is None else float(row.cost_usd),
    )


@router.get("/tools/{name}/stats", summary="Show a tool's numbers")
async def show_stats(
    name: str,
    caller: Reads,
    since: Annotated[
        AwareDatetime | None, Query(description="Calls from then on; the last seven days when left out.")
    ] = None,
) -> StatsOut:
    """How many calls there were, how they ended, how long they took and what they cost."""
    since = since or datetime.now(UTC) - USUAL
    row = await history.numbers(caller.database, caller.workspace_id, name, since)
    if not row["calls"] and name not in INSTALLED:
        async with caller.transaction() as session:
            await rows.get(session, caller.workspace_id, name)
    p50, p95, p99 = row["percentiles"] or (None, None, None)
    return StatsOut(
        tool=name,
        since=since,
        calls=row["calls"],
        states=row["states"],
        error_rate=row["error_rate"],
        duration_ms=LatencyOut(p50=p50, p95=p95, p99=p99),
        cost_usd=float(row["cost_usd"]),
        cost_unknown=row["cost_unknown"],
    )
