"""Calls that a prompt writes out: `tool(name="text", count=3)`."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from pydantic_ai.tools import ToolDefinition

from app.providers.demo.turn import Call

# Brackets within texts are text.
_CALL = re.compile(r"""\b(?P<tool>\w+)\((?:[^()"']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*\)""")
_JSON_WORDS = {"true": True, "false": False, "null": None}


def written_out(text: str, tools: Mapping[str, ToolDefinition]) -> list[Call]:
    """The calls of tools in a text, as they stand, each once; values are those of Python and of JSON."""
    calls: list[Call] = []
    for match in _CALL.finditer(text):
        arguments = _arguments(match[0], tools[match["tool"]]) if match["tool"] in tools else None
        if arguments is not None and (call := Call(match["tool"], arguments)) not in calls:
            calls.append(call)
    return calls


def _arguments(text: str, tool: ToolDefinition) -> dict[str, Any] | None:
    """The arguments of a call; None when one is more than a plain value."""
    names = list(tool.parameters_json_schema.get("properties", {}))
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or len(call.args) > len(names):
            return None
        placed = {name: _value(each) for name, each in zip(names, call.args, strict=False)}
        return placed | {each.arg: _value(each.value) for each in call.keywords if each.arg}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _JSON_WORDS:
        return _JSON_WORDS[node.id]
    return ast.literal_eval(node)
