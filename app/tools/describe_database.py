"""describe_database: what is in the database that query_database asks."""

from typing import Any

from pydantic import Field

from app import sql
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class DescribeDatabase(Arguments):
    """The arguments of `describe_database`."""

    table: str | None = Field(
        None, max_length=200, description="A table or view, such as orders or shop.orders; all when left out."
    )


async def describe(context: ToolContext, arguments: DescribeDatabase) -> dict[str, Any]:
    """The tables with their columns, or one table in detail."""
    return await sql.describe(context.settings, arguments.table, context.workspace_id)


TOOL = Tool(
    name="describe_database",
    description=(
        "Show the tables and views that query_database can read, with their columns and types; for one table also its "
        "keys, defaults, comments and the values of enum columns."
    ),
    parameters=parameters_of(DescribeDatabase),
    risk=Risk.READ,
    idempotent=True,
    call=validated(DescribeDatabase, describe),
    timeout_seconds=20.0,
    available=sql.available,
)
