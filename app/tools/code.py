"""What tools that run code have in common."""

from collections.abc import Iterable

from app.sandbox import Host
from app.tools.tool import ToolContext

MARGIN_SECONDS = 2.0  # on top of the code's own time, for getting a worker


def host_of(context: ToolContext, names: Iterable[str]) -> Host:
    """Let code call these of the tools at hand, as functions of their parameters."""
    functions = {name: list(context.tools[name].parameters.get("properties", {})) for name in names}
    return Host(functions, context.call_tool)
