"""Tools that people registered, made of their stored versions; a new kind is one line here."""

from collections.abc import Callable
from typing import Any

from app.tools.http import HttpSpec, http_tool
from app.tools.python import python_tool
from app.tools.tool import Tool

KINDS: dict[str, Callable[[dict[str, Any]], Tool]] = {
    "python": python_tool,
    "http": lambda stored: http_tool(HttpSpec.model_validate(stored)),
    "openapi": lambda stored: http_tool(HttpSpec.model_validate(stored)),
}


def stored_tool(stored: dict[str, Any]) -> Tool:
    """The tool of a stored version."""
    return KINDS[stored["kind"]](stored)
