"""forget: delete something that was remembered."""

from uuid import UUID

from pydantic import Field

from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class Forget(Arguments):
    """The arguments of `forget`."""

    id: UUID = Field(description="Which memory, by the id that `recall` shows.")


async def forget(context: ToolContext, arguments: Forget) -> str:
    """Delete it, and say whether it was there."""
    if await context.memories.forget(arguments.id):
        return f"Forgot {arguments.id}."
    return f"There is no memory {arguments.id} about this person, task or agent, or it is forgotten already."


TOOL = Tool(
    name="forget",
    description="Delete something that was remembered about the person, the task or yourself.",
    parameters=parameters_of(Forget),
    risk=Risk.WRITE,
    idempotent=True,
    call=validated(Forget, forget),
)
