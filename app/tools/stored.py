"""Tools that people registered, made of their stored versions; a new kind is one line here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from app.tools.approval import rules_of
from app.tools.http import HttpSpec, http_tool
from app.tools.mcp import McpSpec, mcp_tool
from app.tools.python import python_tool
from app.tools.tool import Tool

KINDS: dict[str, Callable[[dict[str, Any]], Tool]] = {
    "python": python_tool,
    "http": lambda stored: http_tool(HttpSpec.model_validate(stored)),
    "openapi": lambda stored: http_tool(HttpSpec.model_validate(stored)),
    "mcp": lambda stored: mcp_tool(McpSpec.model_validate(stored)),
}


def stored_tool(stored: dict[str, Any]) -> Tool:
    """The tool of a stored version."""
    return KINDS[stored["kind"]](stored)


def registered_tool(record: Mapping[str, Any]) -> Tool:
    """The tool of a version's `spec` together with the `approval` of its name."""
    return replace(stored_tool(record["spec"]), approval=rules_of(record["approval"]))
