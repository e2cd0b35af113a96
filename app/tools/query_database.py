"""query_database: ask the operator's database one question in SQL."""

from typing import Any

from pydantic import Field

from app import sql
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class QueryDatabase(Arguments):
    """The arguments of `query_database`."""

    query: str = Field(
        min_length=1,
        max_length=20_000,
        description="One PostgreSQL statement that reads: SELECT, WITH ... SELECT, VALUES or EXPLAIN. "
        "At most 200 rows come back, so aggregate and sort in SQL.",
    )


async def query(context: ToolContext, arguments: QueryDatabase) -> dict[str, Any]:
    """The first rows of the answer, decimals as texts."""
    return await sql.query(context.settings, sql.parse(arguments.query), context.workspace_id)


TOOL = Tool(
    name="query_database",
    description=(
        "Ask the PostgreSQL database one question in SQL and get columns and rows. It can only be read. "
        "Call describe_database first to see its tables."
    ),
    parameters=parameters_of(QueryDatabase),
    risk=Risk.READ,
    idempotent=True,
    call=validated(QueryDatabase, query),
    timeout_seconds=20.0,
    available=sql.available,
)
