"""Python functions that people register: their definition, and the tool made of a stored version."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app import sandbox
from app.errors import InvalidTool, ToolError
from app.sandbox import Host, Limits
from app.tools.code import MARGIN_SECONDS, host_of
from app.tools.definition import RESERVED, Definition, defined
from app.tools.tool import Risk, Tool, ToolContext

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{2,30}")
DESCRIPTION_CHARACTERS = range(5, 121)
CODE_CHARACTERS = range(10, 2001)


class PythonSpec(BaseModel):
    """One version of a Python tool, as it is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["python"] = "python"
    name: str
    description: str
    code: str
    function: str
    parameters: dict[str, Any]
    returns: dict[str, Any] | None
    limits: Limits
    allowed_imports: list[str] | None = None
    tools: list[str] = []
    risk: Risk
    idempotent: bool
    timeout_seconds: float


async def define(
    name: str,
    description: str,
    code: str,
    *,
    limits: Limits = sandbox.DEFAULT_LIMITS,
    allowed_imports: list[str] | None = None,
    tools: list[str] | None = None,
    risk: Risk = Risk.CODE,
    idempotent: bool = True,
    timeout_seconds: float | None = None,
    async_only: bool = False,
) -> Definition:
    """Check a function that somebody registers.

    Args:
        name: What the model will call it.
        description: What the model is told about it.
        code: The source text; the tool is its function of this name, or its only one.
        limits: What one call may use.
        allowed_imports: The modules it may import; all that the sandbox has when left out.
        tools: The tools it may call, as async functions; those of them that its agent has.
        risk: What a call may do; a sandboxed function touches nothing outside itself.
        idempotent: Whether an interrupted call may be repeated; nothing outside the sandbox has changed.
        timeout_seconds: How long a call may take, waiting for a worker included.
        async_only: Whether the function must be an `async def`.

    Raises:
        InvalidTool: naming the field, and the line when it is the code.
        ImportNotAllowed: with the line and the module.
    """
    check_name(name)
    _check_length("description", description, DESCRIPTION_CHARACTERS)
    _check_length("code", code, CODE_CHARACTERS)
    called = sorted(set(tools or []))
    if called and not idempotent:
        # What it does outside the sandbox are calls with ledger rows of their own.
        raise InvalidTool("idempotent: a function that calls tools can always be repeated", field="idempotent")
    function = await sandbox.check(
        code, name=name, allowed_imports=allowed_imports, async_only=async_only, tools=called
    )
    return defined(
        PythonSpec(
            name=name,
            description=description,
            code=code,
            function=function.name,
            parameters=function.parameters,
            returns=function.returns,
            limits=limits,
            allowed_imports=allowed_imports,
            tools=called,
            risk=risk,
            idempotent=idempotent,
            timeout_seconds=timeout_seconds or limits.seconds + MARGIN_SECONDS,
        )
    )


def check_name(name: str) -> None:
    """Refuse a name that a tool can't have.

    Raises:
        InvalidTool: saying what a name looks like.
    """
    if not NAME.fullmatch(name):
        raise InvalidTool(
            "name: 3 to 31 letters, digits and underscores, beginning with a letter or underscore", field="name"
        )
    if name in RESERVED:
        raise InvalidTool(f"name: {name} is reserved", field="name")


def _check_length(field: str, text: str, allowed: range) -> None:
    if len(text) not in allowed:
        raise InvalidTool(
            f"{field}: must have {allowed.start} to {allowed.stop - 1} characters, not {len(text)}", field=field
        )


def python_tool(stored: dict[str, Any]) -> Tool:
    """The tool of a stored version."""
    spec = PythonSpec.model_validate(stored)

    async def call(context: ToolContext, arguments: dict[str, Any]) -> Any:
        return await execute(spec, context, arguments)

    return Tool(
        name=spec.name,
        description=spec.description,
        parameters=spec.parameters,
        risk=spec.risk,
        idempotent=spec.idempotent,
        call=call,
        timeout_seconds=spec.timeout_seconds,
        kind=spec.kind,
        output_schema=spec.returns,
    )


async def execute(spec: PythonSpec, context: ToolContext, arguments: dict[str, Any]) -> Any:
    """Call the function in the sandbox with arguments that fit its parameters.

    Raises:
        ToolError: the function failed or broke a limit.
    """
    host = _host(spec, context) if spec.tools else None
    outcome = await sandbox.run(
        spec.code, arguments, spec.limits, function=spec.function, owner=context.workspace_id, host=host
    )
    if outcome.error is not None:
        raise ToolError(outcome.error)
    return outcome.result


def _host(spec: PythonSpec, context: ToolContext) -> Host:
    """The tools that the function calls.

    Raises:
        ToolError: naming those that are not there.
    """
    missing = [name for name in spec.tools if name not in context.tools]
    if missing:
        raise ToolError(f"{spec.name} calls {', '.join(missing)}, which whoever calls it does not have")
    return host_of(context, spec.tools)
