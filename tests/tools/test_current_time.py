from datetime import UTC, datetime

import pytest

from app.errors import InvalidArguments
from app.tools import BUILT_IN
from tests.tools.context import Context

CALL = BUILT_IN["current_time"].call


async def test_tells_the_time_in_a_zone() -> None:
    told = await CALL(Context.of(), {"timezone": "Asia/Kathmandu"})
    assert told["time"].endswith("+05:45")
    assert abs((datetime.fromisoformat(told["time"]) - datetime.now(UTC)).total_seconds()) < 5
    assert datetime.fromisoformat(told["time"]) == datetime.fromisoformat(told["utc"])
    assert told["weekday"] == f"{datetime.fromisoformat(told['time']):%A}"


async def test_utc_is_the_default() -> None:
    assert (await CALL(Context.of(), {}))["timezone"] == "UTC"


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "Europe", "../../etc/passwd", "/etc/localtime", "a\x00b", "x" * 90]
)
async def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidArguments, match=r"timezone: .* not in the IANA database") as caught:
        await CALL(Context.of(), {"timezone": zone})
    assert caught.value.field == "timezone"
