"""One call of any tool: its arguments and its result are held to their schemas here, and here it is tried again."""

import asyncio
from typing import Any

from app.errors import ToolError
from app.messages import as_file, clean_result
from app.tools.schema import fitting, result_fitting
from app.tools.tool import Tool, ToolContext

RESULT_TYPES = {"json": "application/json", "txt": "text/plain"}
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


async def kept(tool: Tool, context: ToolContext, value: Any) -> Any:
    """The result as it enters the history; one that is cut for it is kept whole as an artifact, where it may."""
    result, whole = clean_result(value), as_file(value)
    if whole is None or len(whole[1]) > context.settings.parley_artifact_bytes:
        return result
    file = await context.keep(f"{tool.name}.{whole[0]}", RESULT_TYPES[whole[0]], whole[1])
    return f"{result}\n[the whole result is the artifact {file['artifact_id']}]"


async def _tried(tool: Tool, context: ToolContext, arguments: dict[str, Any]) -> Any:
    for number in range(tool.retries if tool.idempotent else 0):
        try:
            return await tool.call(context, arguments)
        except ToolError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(max(PAUSE_SECONDS * 3**number, error.retry_after or 0))
    return await tool.call(context, arguments)
