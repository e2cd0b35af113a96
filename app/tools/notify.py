"""notify: send a message to people."""

from pydantic import Field

from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class Notification(Arguments):
    """The arguments of `notify`."""

    text: str = Field(min_length=1, max_length=10_000, description="The message, in Markdown.")
    channel: str | None = Field(
        None, max_length=50, description="email, slack or webhook; as configured when left out."
    )


async def plan(context: ToolContext, arguments: Notification) -> str:
    """Plan the delivery and say so."""
    return await context.notify(arguments.text, arguments.channel)


TOOL = Tool(
    name="notify",
    description="Send a message to the people this task reports to, by e-mail, Slack or webhook.",
    parameters=parameters_of(Notification),
    risk=Risk.EXTERNAL,
    idempotent=False,
    call=validated(Notification, plan),
)
