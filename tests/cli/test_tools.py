"""`parley tools`, against a server on loopback."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import parley
from tests.api.test_tools import REVERSE
from tests.cli.test_agents import url

__all__ = ["url"]


@pytest.fixture(autouse=True)
async def _registered(client: httpx.AsyncClient) -> None:
    assert (await client.post("/tools/register", json=REVERSE)).status_code == 201


async def says(url: str, *arguments: str, code: int = 0, say: str | None = None) -> Result:
    whole = ["tools", *arguments, "--url", url]
    done = await asyncio.to_thread(CliRunner().invoke, parley, whole, input=say, catch_exceptions=False)
    assert done.exit_code == code, (arguments, done.output)
    return done


async def test_a_tool_is_called_by_hand_and_its_calls_are_listed(url: str, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"text": "file"}')
    for arguments, say, result in (
        (["--arguments", '{"text": "json"}'], None, "nosj"),
        (["-a", "text=5"], None, "5"),
        (["--arguments", f"@{given}"], None, "elif"),
        (["--arguments", "@-"], '{"text": "input"}', "tupni"),
    ):
        done = await says(url, "test", "reverse_string", *arguments, "--json", say=say)
        assert json.loads(done.stdout)["result"] == result
    calls = json.loads((await says(url, "calls", "reverse_string", "--json")).stdout)["items"]
    assert [call["result"] for call in calls] == ["tupni", "elif", "5", "nosj"]
    shown = await says(url, "calls", "reverse_string", "--limit", "1")
    assert "4 calls in the last seven days, 0.0% errors" in shown.stderr
    assert "--cursor" in shown.stderr


async def test_a_call_that_fails_has_the_exit_code_1(url: str) -> None:
    done = await says(url, "test", "calculator", "-a", "expression=1/0", code=1)
    assert "zero" in done.output
    refused = await says(url, "test", "reverse_string", code=1)
    assert "text" in refused.stderr
    await says(url, "test", "reverse_string", "-a", "text", code=2)
    await says(url, "test", "reverse_string", "--arguments", "[1]", code=2)
    await says(url, "test", "reverse_string", "--arguments", "@/nowhere", code=2)


async def test_tools_are_listed_and_shown(url: str) -> None:
    listed = await says(url, "list", "--kind", "python")
    assert "reverse_string" in listed.stdout
    assert "calculator" not in listed.stdout
    assert json.loads((await says(url, "show", "reverse_string", "--json")).stdout)["kind"] == "python"
    await says(url, "show", "nothing", code=1)
