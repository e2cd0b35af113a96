"""propose_state: suggest a change to the app's state; the application decides what becomes of it."""

from typing import Any

from pydantic import Field

from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class Proposal(Arguments):
    """The arguments of `propose_state`."""

    patch: dict[str, Any] = Field(min_length=1, description="The fields to change, with their new values.")


async def propose(context: ToolContext, arguments: Proposal) -> str:
    """Tell the application."""
    await context.propose(arguments.patch)
    return "Proposed to the application."


TOOL = Tool(
    name="propose_state",
    description="Propose a change to the application's state shown in app_state. The user decides whether it is made.",
    parameters=parameters_of(Proposal),
    risk=Risk.READ,
    idempotent=True,
    call=validated(Proposal, propose),
)
