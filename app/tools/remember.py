"""remember: keep a fact for later conversations."""

from typing import Any

from pydantic import Field

from app.knowledge.memories import MAX_KEY, MAX_TEXT, Scope
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class Remember(Arguments):
    """The arguments of `remember`."""

    text: str = Field(min_length=1, max_length=MAX_TEXT, description="What to remember, in a sentence or a few.")
    about: Scope = Field(
        description="Whose it is: `person` (whom this conversation is with), `task` (this task's next runs) or `agent` "
        "(you, with everybody)."
    )
    key: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_KEY,
        description="A short name, such as `favourite colour`: what had the same name before is replaced.",
    )


async def remember(context: ToolContext, arguments: Remember) -> dict[str, Any]:
    """Keep it; a call that is made again after a crash keeps nothing twice."""
    kept = await context.memories.remember(context.effect_key, arguments.text, arguments.about, arguments.key)
    return {"id": str(kept.id), "about": arguments.about, "key": kept.key}


TOOL = Tool(
    name="remember",
    description="Keep a fact for later conversations, about the person, the task or yourself.",
    parameters=parameters_of(Remember),
    risk=Risk.WRITE,
    idempotent=True,
    call=validated(Remember, remember),
)
