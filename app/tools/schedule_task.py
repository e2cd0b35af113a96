"""schedule_task: propose a prompt that runs later, again and again; a person approves it first."""

from collections.abc import Callable
from functools import partial

from pydantic import Field, field_validator

from app import cron
from app.errors import InvalidRequest
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, read_arguments, validated


class Schedule(Arguments):
    """The arguments of `schedule_task`."""

    prompt: str = Field(min_length=1, max_length=50_000, description="What to do each time.")
    schedule_expression: str = Field(
        min_length=1, max_length=200, description="Crontab expression such as `0 9 * * mon-fri`, or @daily."
    )
    timezone: str = Field("UTC", min_length=1, max_length=100, description="IANA time zone of the expression.")

    @field_validator("schedule_expression")
    @classmethod
    def _is_due(cls, value: str) -> str:
        return _checked(cron.parse, value)

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        return _checked(cron.zone, value)


def _checked(read: Callable[[str], object], value: str) -> str:
    try:
        read(value)
    except InvalidRequest as error:
        raise ValueError(error.detail) from error
    return value


async def store(context: ToolContext, arguments: Schedule) -> str:
    """Store the task and say when it runs."""
    return await context.schedule_task(arguments.prompt, arguments.schedule_expression, arguments.timezone)


TOOL = Tool(
    name="schedule_task",
    description="Propose a task that runs a prompt on a crontab schedule. It is stored once a person has approved it.",
    parameters=parameters_of(Schedule),
    risk=Risk.WRITE,
    idempotent=False,
    call=validated(Schedule, store),
    asks=True,
    check=partial(read_arguments, Schedule),
)
