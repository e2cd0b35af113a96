"""schedule_task: have a prompt run later, again and again."""

from pydantic import Field

from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class Schedule(Arguments):
    """The arguments of `schedule_task`."""

    prompt: str = Field(min_length=1, max_length=50_000, description="What to do each time.")
    schedule_expression: str = Field(
        min_length=1, max_length=200, description="Crontab expression such as `0 9 * * mon-fri`, or @daily."
    )
    timezone: str = Field("UTC", min_length=1, max_length=100, description="IANA time zone of the expression.")


async def store(context: ToolContext, arguments: Schedule) -> str:
    """Store the task and say when it runs."""
    return await context.schedule_task(arguments.prompt, arguments.schedule_expression, arguments.timezone)


TOOL = Tool(
    name="schedule_task",
    description="Store a task that runs a prompt on a crontab schedule.",
    parameters=parameters_of(Schedule),
    risk=Risk.WRITE,
    idempotent=False,
    call=validated(Schedule, store),
)
