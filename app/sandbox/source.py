"""Reading people's Python without running it: the function, its parameters, and what is not allowed."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from app.errors import ImportNotAllowed, InvalidTool

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
NAMES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "None": {"type": "null"},
    "list": {"type": "array"},
    "List": {"type": "array"},
    "dict": {"type": "object"},
    "Dict": {"type": "object"},
    "Any": {},
    "object": {},
}
SEQUENCES = frozenset({"list", "List", "Sequence", "Iterable"})
MAPPINGS = frozenset({"dict", "Dict", "Mapping"})


@dataclass(frozen=True)
class FunctionSpec:
    """What a piece of code offers: one async function and its parameters.

    Attributes:
        name: The function's name in the code.
        parameters: JSON schema of its arguments.
        returns: JSON schema of its result, None when the code does not say or it can't be told.
    """

    name: str
    parameters: dict[str, Any]
    returns: dict[str, Any] | None


class _Undescribable(Exception):
    """An annotation that has no JSON schema."""


def read_function(code: str, name: str | None = None, allowed_imports: Iterable[str] | None = None) -> FunctionSpec:
    """Find the function of a piece of code and describe it.

    Args:
        code: The source text.
        name: The function that is meant; with one async function in the code it may be called otherwise.
        allowed_imports: The modules this code may import; all that the sandbox has when left out.

    Raises:
        InvalidTool: with `line N` and what to do instead.
        ImportNotAllowed: with `line N` and the module.
    """
    tree = _parse(code)
    _check_imports(tree, ALLOWED_IMPORTS if allowed_imports is None else ALLOWED_IMPORTS & set(allowed_imports))
    _check_syntax(tree)
    function = _find(tree, name)
    return FunctionSpec(function.name, _parameters(function), _returns(function))


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
    complaints = [(cast(ast.stmt, node).lineno, complaint) for node, complaint in found if complaint]
    if complaints:
        complaints.sort()
        detail = "; ".join(f"line {line}: {complaint}" for line, complaint in complaints[:10])
        raise InvalidTool(detail, field="code")


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
        case ast.TryStar():
            return "except* is not supported: use except"
        case ast.ImportFrom(names=[ast.alias(name="*")]):
            return "import * is not supported: name what you import"
        case ast.FunctionDef(decorator_list=decorators) if any(_name(item) in DESCRIPTORS for item in decorators):
            return "property, classmethod and staticmethod are not supported: use a plain method or function"
        case _:
            return None


# --- the function ---------------------------------------------------------------------------------


def _find(tree: ast.Module, name: str | None) -> ast.AsyncFunctionDef:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    if not functions:
        raise _refuse(1, "the code must hold a function `async def name(...)` at its top level")
    if name in functions:
        return functions[name]
    if len(functions) > 1:
        meant = f" called {name}" if name else ""
        raise _refuse(1, f"there are several async functions and none{meant} says which one is the tool")
    return next(iter(functions.values()))


def _parameters(function: ast.AsyncFunctionDef) -> dict[str, Any]:
    arguments = function.args
    _check_kinds(arguments, function.lineno)
    positional = arguments.args
    first_default = len(positional) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * first_default + list(arguments.defaults) + list(arguments.kw_defaults)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for argument, default in zip(positional + arguments.kwonlyargs, defaults, strict=True):
        properties[argument.arg] = _described(argument) | _default(default)
        if default is None:
            required.append(argument.arg)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _check_kinds(arguments: ast.arguments, line: int) -> None:
    if arguments.posonlyargs:
        raise _refuse(line, "positional-only parameters are not supported: arguments are passed by name")
    if arguments.vararg or arguments.kwarg:
        raise _refuse(line, "*args and **kwargs are not supported: name each parameter")


def _described(argument: ast.arg) -> dict[str, Any]:
    try:
        return _schema(argument.annotation) if argument.annotation else {}
    except _Undescribable as error:
        raise _refuse(
            argument.lineno,
            f"parameter {argument.arg}: {error} has no JSON form: use str, int, float, bool, list[...], dict[str, ...], "
            "Literal[...], Annotated[..., 'text'], Any or a union of these",
        ) from error


def _default(default: ast.expr | None) -> dict[str, Any]:
    """The default for the schema, when it is a plain literal."""
    if isinstance(default, ast.Constant) and isinstance(default.value, str | int | float | None):
        return {"default": default.value}
    return {}


def _returns(function: ast.AsyncFunctionDef) -> dict[str, Any] | None:
    try:
        return _schema(function.returns) if function.returns else None
    except _Undescribable:
        return None


# --- annotations ----------------------------------------------------------------------------------


def _name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=None):
            return "None"
        case _:
            return ""


def _schema(node: ast.expr) -> dict[str, Any]:
    """The JSON schema of an annotation."""
    match node:
        case ast.Constant(value=str(text)):
            return _schema(_quoted(text))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union([left, right])
        case ast.Subscript(value=value, slice=inner):
            return _generic(_name(value), _items(inner), node)
        case _ if _name(node) in NAMES:
            return dict(NAMES[_name(node)])
        case _:
            raise _Undescribable(ast.unparse(node))


def _quoted(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _Undescribable(repr(text)) from error


def _items(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _generic(name: str, items: list[ast.expr], whole: ast.expr) -> dict[str, Any]:
    match name, items:
        case "Optional", [item]:
            return _union([item, ast.Constant(value=None)])
        case "Union", _:
            return _union(items)
        case "Literal", _:
            return {"enum": [_literal(item) for item in items]}
        case "Annotated", [item, *notes]:
            return _schema(item) | _description(notes)
        case _, [item] if name in SEQUENCES:
            return {"type": "array", "items": _schema(item)}
        case _, [ast.Name(id="str"), item] if name in MAPPINGS:
            return {"type": "object", "additionalProperties": _schema(item)}
        case _:
            raise _Undescribable(ast.unparse(whole))


def _union(items: list[ast.expr]) -> dict[str, Any]:
    options: list[dict[str, Any]] = []
    for item in items:
        schema = _schema(item)
        options.extend(schema["anyOf"] if set(schema) == {"anyOf"} else [schema])
    return {"anyOf": options}


def _literal(node: ast.expr) -> str | int | bool | None:
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise _Undescribable(ast.unparse(node)) from error
    if not isinstance(value, str | int | None):
        raise _Undescribable(ast.unparse(node))
    return value


def _description(notes: list[ast.expr]) -> dict[str, Any]:
    texts = [note.value for note in notes if isinstance(note, ast.Constant) and isinstance(note.value, str)]
    return {"description": texts[0]} if texts else {}
