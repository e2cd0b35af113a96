"""execute_code: run a few lines of Python in the sandbox."""

from typing import Any

from pydantic import ConfigDict, Field

from app import sandbox
from app.errors import ToolError
from app.sandbox import Limits
from app.tools.code import MARGIN_SECONDS, host_of
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

LIMITS = Limits(seconds=10, memory_mb=128, output_bytes=50_000, recursion_depth=200)
SAID_CHARACTERS = 1_000


class ExecuteCode(Arguments):
    """The arguments of `execute_code`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    code: str = Field(
        min_length=1,
        max_length=20_000,
        description="Python. The value of the last line, when it is an expression, and what is printed come back.",
    )


async def execute(context: ToolContext, arguments: ExecuteCode) -> dict[str, Any]:
    """Run the code; nothing of it is left for the next call."""
    host = host_of(context, context.tools)
    outcome = await sandbox.run_script(arguments.code, LIMITS, owner=context.workspace_id, host=host)
    if outcome.error is not None:
        said = f"; printed before: {outcome.printed[-SAID_CHARACTERS:]}" if outcome.printed else ""
        raise ToolError(outcome.error + said)
    return {"result": outcome.result, "printed": outcome.printed}


TOOL = Tool(
    name="execute_code",
    description=(
        "Run Python in a sandbox and get the value of its last line and what it printed. It has the standard library's "
        "math, json, re, datetime, decimal, itertools, collections, random and their like; no files, network or packages. "
        "Your other tools are async functions in it: `await calculator(expression='2 + 3')`."
    ),
    parameters=parameters_of(ExecuteCode),
    risk=Risk.CODE,
    idempotent=True,
    call=validated(ExecuteCode, execute),
    timeout_seconds=LIMITS.seconds + MARGIN_SECONDS,
)
