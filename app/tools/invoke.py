"""One call of any tool: its arguments and its result are held to their schemas here, and here it is tried again."""

import asyncio
from typing import Any

from app.errors import ToolError
from app.tools.schema import fitting, result_fitting
from app.tools.tool import Tool, ToolContext

PAUSE_SECONDS = 0.2  # Before the first retry; three times as long before each further one.


async def invoke(tool: Tool, context: ToolContext, arguments: dict[str, Any]) -> Any:
    """Call a tool; whoever calls this keeps the time.

    Raises:
        InvalidArguments: naming the argument that does not fit; the tool was not called.
        ToolError: the tool failed, or its result is not what it says.
        Park: the call waits for a person.
    """
    result = await _tried(tool, context, fitting(tool.parameters, arguments))
    return result if tool.output_schema is None else result_fitting(tool.output_schema, result)


async def _tried(tool: Tool, context: ToolContext, arguments: dict[str, Any]) -> Any:
    for number in range(tool.retries if tool.idempotent else 0):
        try:
            return await tool.call(context, arguments)
        except ToolError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(max(PAUSE_SECONDS * 3**number, error.retry_after or 0))
    return await tool.call(context, arguments)
