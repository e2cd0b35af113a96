"""What became of a tool's calls: the ledger's rows of its name, newest first, and their numbers."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database, Row
from app.models import ToolCall

# Ids begin with the time in milliseconds (RFC 9562, UUIDv7): the index of the calls' ids is one of their times, too.
TIME_BITS = 48

NUMBERS = """
select count(*) as calls,
    coalesce((select json_object_agg(state, n) from (select state, count(*) as n from tool_calls
        where workspace_id = $1 and tool = $2 and id >= $3 group by state) s), '{}') as states,
    count(*) filter (where state in ('failed', 'unknown'))::float
        / nullif(count(*) filter (where state in ('done', 'failed', 'unknown')), 0) as error_rate,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (order by duration_ms) as percentiles,
    coalesce(sum(cost_usd), 0) as cost_usd,
    coalesce(bool_or(cost_usd is null and state in ('done', 'failed')), false) as cost_unknown
from tool_calls where workspace_id = $1 and tool = $2 and id >= $3
"""


def first_id(at: datetime) -> UUID:
    """The least id that is made at that time."""
    milliseconds = max(0, min(int(at.timestamp() * 1000), (1 << TIME_BITS) - 1))
    return UUID(int=milliseconds << (128 - TIME_BITS))


async def calls(
    session: AsyncSession, workspace_id: UUID, tool: str, *, before: UUID | None, limit: int, state: str | None = None
) -> list[ToolCall]:
    """Calls of a tool, newest first."""
    query = select(ToolCall).where(ToolCall.workspace_id == workspace_id, ToolCall.tool == tool)
    query = query.where(ToolCall.state == state) if state else query
    query = query.where(ToolCall.id < before) if before else query
    return list(await session.scalars(query.order_by(ToolCall.id.desc()).limit(limit)))


async def numbers(database: Database, workspace_id: UUID, tool: str, since: datetime) -> Row:
    """How many calls there were, how they ended, how long they took and what they cost."""
    row = await database.fetchrow(NUMBERS, workspace_id, tool, first_id(since))
    assert row is not None, "an aggregate has one row"
    return row
