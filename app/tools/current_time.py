"""current_time: what time it is somewhere."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field

from app.errors import InvalidArguments
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class CurrentTime(Arguments):
    """The arguments of `current_time`."""

    timezone: str = Field("UTC", max_length=100, description="IANA time zone, such as Europe/Berlin.")


async def tell(context: ToolContext, arguments: CurrentTime) -> dict[str, Any]:
    """The time in a zone."""
    del context
    now = datetime.now(find_zone(arguments.timezone))
    return {
        "timezone": arguments.timezone,
        "time": now.isoformat(timespec="seconds"),
        "weekday": f"{now:%A}",
        "utc": now.astimezone(UTC).isoformat(timespec="seconds"),
    }


def find_zone(name: str) -> ZoneInfo:
    """The zone of this name.

    Raises:
        InvalidArguments: there is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidArguments(
            f"timezone: {name!r} is not in the IANA database; use a name such as Europe/Berlin or UTC",
            field="timezone",
        ) from error


TOOL = Tool(
    name="current_time",
    description="Tell the current date, time and weekday in a time zone.",
    parameters=parameters_of(CurrentTime),
    risk=Risk.READ,
    idempotent=True,
    call=validated(CurrentTime, tell),
)
