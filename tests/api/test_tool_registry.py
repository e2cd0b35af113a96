"""A name means the same tool in a run, in a call by hand and to whoever saves: the installation's own go first."""

from typing import Any

import httpx

from app.cli.checks import run_checks
from app.settings import Settings
from tests.api.test_tools import REVERSE
from tests.engine import tool, tools


async def by_hand(client: httpx.AsyncClient) -> Any:
    answer = await client.post("/tools/reverse_string/execute", json={"arguments": {"text": "hello"}})
    return answer.json()["result"]


async def in_a_run(client: httpx.AsyncClient) -> tuple[Any, int | None]:
    """The result of the run's call, and the version that the ledger has for it."""
    made = await client.post("/runs", json={"agent": "mirror", "message": "reverse hello"})
    assert made.json()["reply"], made.text
    call = (await client.get("/tools/reverse_string/calls")).json()["items"][0]
    return call["result"], call["version"]


async def test_a_run_and_a_call_by_hand_use_the_same_tool(client: httpx.AsyncClient, settings: Settings) -> None:
    assert (await client.post("/tools/register", json=REVERSE)).status_code == 201
    agent = {"name": "mirror", "model": "demo", "tools": ["reverse_string"]}
    assert (await client.post("/agents", json=agent)).status_code == 201
    assert (await by_hand(client), await in_a_run(client)) == ("olleh", ("olleh", 1))

    async def installed(context: Any, arguments: dict[str, Any]) -> str:
        return "the installation's"

    async with tools(tool("reverse_string", installed)):
        assert (await by_hand(client), await in_a_run(client)) == ("the installation's", ("the installation's", None))
        again = await client.post("/tools/register", json=REVERSE)
        assert (again.status_code, again.json()["field"]) == (409, "name")
        change = await client.patch("/tools/reverse_string", json={"description": "Another one"})
        assert change.status_code == 409
        [told] = [check for check in await run_checks(settings) if check.name == "tools"]
        assert (told.state, told.detail.partition(" is out of reach")[0]) == (
            "warning",
            "reverse_string of 1 workspaces",
        )
        assert (await client.delete("/tools/reverse_string")).status_code == 204
        assert (await client.delete("/tools/reverse_string")).status_code == 409
        assert [check for check in await run_checks(settings) if check.name == "tools"] == []
