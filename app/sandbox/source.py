"""Reading people's Python without running it: the function, its parameters, and what is not allowed."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from app.errors import ImportNotAllowed, InvalidTool
from app.sandbox.schema import Annotations, Part, Undescribable, name_of

Function = ast.AsyncFunctionDef | ast.FunctionDef

# What the interpreter brings along and what is harmless. A usability rule: the boundary is the interpreter.
ALLOWED_IMPORTS = frozenset(
    [
        "asyncio",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "functools",
        "hashlib",
        "itertools",
        "json",
        "math",
        "random",
        "re",
        "time",
        "tomllib",
        "typing",
        "unicodedata",
    ]
)

NETWORK = frozenset(
    ["aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib", "urllib3", "websockets"]
)
MODELS = frozenset(["anthropic", "google", "langchain", "litellm", "ollama", "openai", "pydantic_ai"])
HOST = frozenset(
    [
        "builtins",
        "ctypes",
        "importlib",
        "io",
        "multiprocessing",
        "os",
        "pathlib",
        "pickle",
        "shutil",
        "signal",
        "subprocess",
        "sys",
    ]
)

DESCRIPTORS = frozenset({"property", "classmethod", "staticmethod"})


@dataclass(frozen=True)
class FunctionSpec:
    """What a piece of code offers: one function and its parameters.

    Attributes:
        name: The function's name in the code.
        parameters: JSON schema of its arguments.
        returns: JSON schema of its result, None when the code does not say or it can't be told.
        call: The expression that calls it with the dict `arguments`.
    """

    name: str
    parameters: dict[str, Any]
    returns: dict[str, Any] | None
    call: str


def read_function(
    code: str,
    name: str | None = None,
    allowed_imports: Iterable[str] | None = None,
    *,
    async_only: bool = False,
) -> FunctionSpec:
    """Find the function of a piece of code and describe it.

    Args:
        code: The source text.
        name: The function that is meant; the code's only async one, or only one, may be called otherwise.
        allowed_imports: The modules this code may import; all that the sandbox has when left out.
        async_only: Whether the function must be an `async def`.

    Raises:
        InvalidTool: with `line N` and what to do instead.
        ImportNotAllowed: with `line N` and the module.
    """
    tree = _read(code, allowed_imports)
    function = _find(tree, name, async_only)
    try:
        return _described(tree, function)
    except RecursionError as error:
        raise _refuse(function.lineno, "the signature is nested too deeply") from error


def check_source(code: str) -> None:
    """Refuse imports and syntax that the sandbox does not know.

    Raises:
        InvalidTool: with `line N` and what to do instead.
        ImportNotAllowed: with `line N` and the module.
    """
    _read(code, None)


def _read(code: str, allowed_imports: Iterable[str] | None) -> ast.Module:
    tree = _parse(code)
    _check_imports(tree, ALLOWED_IMPORTS if allowed_imports is None else ALLOWED_IMPORTS & set(allowed_imports))
    _check_syntax(tree)
    return tree


def _described(tree: ast.Module, function: Function) -> FunctionSpec:
    annotations, parts = Annotations(tree), _parts(function)
    return FunctionSpec(
        name=function.name,
        parameters=_parameters(annotations, function, parts),
        returns=_returns(annotations, function),
        call=_call(annotations, function, parts),
    )


def _refuse(line: int, message: str) -> InvalidTool:
    return InvalidTool(f"line {line}: {message}", field="code")


def _parse(code: str) -> ast.Module:
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise _refuse(error.lineno or 1, f"syntax error: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _refuse(1, f"the code can't be read: {error or 'it is nested too deeply'}") from error


# --- imports --------------------------------------------------------------------------------------


def _check_imports(tree: ast.Module, allowed: frozenset[str]) -> None:
    for node in ast.walk(tree):
        for module in _imported(node):
            if module.partition(".")[0] not in allowed:
                line = cast(ast.stmt, node).lineno
                raise ImportNotAllowed(f"line {line}: import of {module} {_instead(module, allowed)}", field="code")


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def _instead(module: str, allowed: frozenset[str]) -> str:
    top = module.partition(".")[0]
    if top in HOST:
        return "is not allowed: functions have no access to the machine"
    if top in NETWORK:
        return "is not allowed: functions have no network; use an HTTP tool"
    if top in MODELS:
        return "is not allowed: use the chatbot tool to ask a model"
    offered = ", ".join(sorted(allowed)) or "nothing"
    return f"is not allowed here (this function may import {offered}); for packages use a trusted extension"


# --- syntax ---------------------------------------------------------------------------------------


def _check_syntax(tree: ast.Module) -> None:
    found = ((node, _complaint(node)) for node in ast.walk(tree))
    complaints = [(_line(node), complaint) for node, complaint in found if complaint]
    if complaints:
        complaints.sort()
        detail = "; ".join(f"line {line}: {complaint}" for line, complaint in complaints[:10])
        raise InvalidTool(detail, field="code")


def _line(node: ast.AST) -> int:
    placed = node.target if isinstance(node, ast.comprehension) else node
    return cast(ast.stmt, placed).lineno


def _complaint(node: ast.AST) -> str | None:
    """What to write instead of syntax that the interpreter does not know."""
    match node:
        case ast.ClassDef(bases=[_, *_]) | ast.ClassDef(keywords=[_, *_]):
            return "classes with inheritance are not supported: use a dataclass or plain functions"
        case ast.Yield() | ast.YieldFrom():
            return "generators are not supported: return a list"
        case ast.Delete():
            return "del is not supported: use pop() or assign None"
        case ast.AsyncWith():
            return "async with is not supported: use try and finally"
        case ast.AsyncFor():
            return "async for is not supported: loop over a list and await inside"
        case ast.comprehension(is_async=1):
            return "async comprehensions are not supported: use asyncio.gather"
        case ast.TryStar():
            return "except* is not supported: use except"
        case ast.ImportFrom(names=[ast.alias(name="*")]):
            return "import * is not supported: name what you import"
        case ast.FunctionDef(decorator_list=decorators) if any(name_of(item) in DESCRIPTORS for item in decorators):
            return "property, classmethod and staticmethod are not supported: use a plain method or function"
        case _:
            return None


# --- the function ---------------------------------------------------------------------------------


def _find(tree: ast.Module, name: str | None, async_only: bool) -> Function:
    functions = {node.name: node for node in tree.body if isinstance(node, Function)}
    coroutines = {key: node for key, node in functions.items() if isinstance(node, ast.AsyncFunctionDef)}
    if async_only and not coroutines:
        hint = "; POST /tools with the kind python takes plain `def`, too" if functions else ""
        raise _refuse(1, f"the code must hold a function `async def name(...)` at its top level{hint}")
    if not functions:
        raise _refuse(1, "the code must hold a function, `async def name(...)` or `def name(...)`, at its top level")
    if name is not None and (named := (coroutines if async_only else functions).get(name)):
        return named
    meant = coroutines or functions
    if len(meant) > 1:
        raise _refuse(1, f"there are several functions and none is called {name or 'as the tool'}: name one like it")
    return next(iter(meant.values()))


def _parts(function: Function) -> list[Part]:
    arguments = function.args
    if arguments.posonlyargs:
        raise _refuse(function.lineno, "positional-only parameters are not supported: arguments are passed by name")
    if arguments.vararg or arguments.kwarg:
        raise _refuse(function.lineno, "*args and **kwargs are not supported: name each parameter")
    first_default = len(arguments.args) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * first_default + list(arguments.defaults) + list(arguments.kw_defaults)
    named = zip(arguments.args + arguments.kwonlyargs, defaults, strict=True)
    return [Part(argument.arg, argument.annotation, default) for argument, default in named]


def _parameters(annotations: Annotations, function: Function, parts: list[Part]) -> dict[str, Any]:
    try:
        return annotations.properties(parts)
    except Undescribable:
        for part in parts:
            _check_part(annotations, function, part)
        raise _refuse(function.lineno, "the signature has too many parts to describe") from None


def _check_part(annotations: Annotations, function: Function, part: Part) -> None:
    try:
        annotations.properties([part])
    except Undescribable as error:
        raise _refuse(
            part.annotation.lineno if part.annotation else function.lineno,
            f"parameter {part.name}: {error} has no JSON form: use str, int, float, bool, list[...], dict[str, ...], "
            "Literal[...], Annotated[..., 'text'], a dataclass of this code, Any or a union of these",
        ) from error


def _returns(annotations: Annotations, function: Function) -> dict[str, Any] | None:
    try:
        return annotations.schema(function.returns) if function.returns else None
    except Undescribable:
        return None


def _call(annotations: Annotations, function: Function, parts: list[Part]) -> str:
    awaited = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    return f"{awaited}{function.name}(**{annotations.made_parts(parts, 'arguments')})"
