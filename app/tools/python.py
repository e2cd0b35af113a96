"""Python functions that people register: their definition, and the tool made of a stored version."""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, cast

from jsonschema import Draft202012Validator, exceptions, validators
from pydantic import BaseModel, ConfigDict
from referencing.jsonschema import EMPTY_REGISTRY

from app import sandbox
from app.errors import InvalidTool, ToolError
from app.sandbox import Host, Limits
from app.tools.tool import Risk, Tool, ToolContext

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{2,30}")
RESERVED = frozenset({"register", "import", "execute"})
DESCRIPTION_CHARACTERS = range(5, 121)
CODE_CHARACTERS = range(10, 2001)
DIGITS_OF_64_BITS = 18
BEYOND = re.compile(r"-?(0x[0-9a-f]+|[0-9]+)")
MARGIN_SECONDS = 2.0  # on top of the function's own time, for getting a worker


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


@dataclass(frozen=True)
class Definition:
    """A checked definition, ready to be stored as a version.

    Attributes:
        spec: The version's content as JSON.
        sha256: Names the content: equal content is the same version.
    """

    spec: dict[str, Any]
    sha256: str


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
    spec = PythonSpec(
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
    content = spec.model_dump(mode="json")
    return Definition(content, content_sha256(content))


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


def content_sha256(content: dict[str, Any]) -> str:
    """The hash that names a version's content."""
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
    )


async def execute(spec: PythonSpec, context: ToolContext, arguments: dict[str, Any]) -> Any:
    """Call the function in the sandbox with arguments that fit its parameters.

    Raises:
        ToolError: the function failed, broke a limit, or answered something else than its signature says.
    """
    host = _host(spec, context) if spec.tools else None
    outcome = await sandbox.run(
        spec.code, arguments, spec.limits, function=spec.function, owner=context.workspace_id, host=host
    )
    if outcome.error is not None:
        raise ToolError(outcome.error)
    _check_result(spec, outcome.result)
    return outcome.result


def _host(spec: PythonSpec, context: ToolContext) -> Host:
    """The tools that the function calls.

    Raises:
        ToolError: naming those that are not there.
    """
    missing = [name for name in spec.tools if name not in context.tools]
    if missing:
        raise ToolError(f"{spec.name} calls {', '.join(missing)}, which whoever calls it does not have")
    functions = {name: list(context.tools[name].parameters.get("properties", {})) for name in spec.tools}
    return Host(functions, context.call_tool)


def _check_result(spec: PythonSpec, result: Any) -> None:
    """Refuse a result that is not what the signature says.

    Raises:
        ToolError: saying where it differs.
    """
    if spec.returns is None:
        return
    error: Any = cast(Any, exceptions).best_match(Results(spec.returns, registry=EMPTY_REGISTRY).iter_errors(result))
    if error is not None:
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        raise ToolError(f"the result{where} is not what the function's signature says: {error.message[:300]}")


def _is_integer(checker: Any, value: Any) -> bool:
    """An integer, also one that is text because JSON's readers could not hold it."""
    del checker
    return (isinstance(value, int) and not isinstance(value, bool)) or _is_beyond(value)


def _is_number(checker: Any, value: Any) -> bool:
    """A number, also one that JSON has no word for."""
    return isinstance(value, float) or value in ("nan", "inf", "-inf") or _is_integer(checker, value)


def _is_beyond(value: Any) -> bool:
    return isinstance(value, str) and len(value) > DIGITS_OF_64_BITS and BEYOND.fullmatch(value) is not None


Results: Any = cast(Any, validators).extend(
    Draft202012Validator,
    type_checker=cast(Any, Draft202012Validator).TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)
