"""MCP servers that the operator's file names: started with the process, offered to every workspace, ended with it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.errors import ConfigurationError
from app.settings import Settings
from app.tools.mcp_servers import read_servers
from app.tools.registry import INSTALLED
from tests.api.conftest import serve

ROOT = Path(__file__).parents[2]


def written(path: Path, **servers: Any) -> Path:
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


THINGS = {"command": sys.executable, "args": ["-m", "tests.mcp_server"], "cwd": str(ROOT), "env": {"GREETING": "Hi."}}


async def called(client: httpx.AsyncClient, tool: str, **arguments: Any) -> Any:
    answer = await client.post(f"/tools/{tool}/execute", json={"arguments": arguments})
    assert answer.status_code == 200, answer.text
    assert answer.json()["error"] is None, answer.text
    return answer.json()["result"]


async def test_a_program_is_started_and_ended_with_the_process(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_SECRET", "key-secret-1")
    path = written(tmp_path / "mcp.json", here=THINGS, broken={"command": str(tmp_path / "nothing")})
    async with serve(settings.model_copy(update={"parley_mcp_servers": path})) as client:
        tool = (await client.get("/tools/here_add")).json()
        assert (tool["kind"], tool["risk"], tool["available"]) == ("mcp", "read", True)
        assert await called(client, "here_add", a=1, b=2) == {"total": 3}
        # The file's environment reaches the program, ours does not.
        assert await called(client, "here_greet", name="you") == "Hello, you! Hi."
        assert await called(client, "here_environment", name="OUR_SECRET") == ""
        pid = int(await called(client, "here_environment", name="pid"))
        agent = await client.post("/agents", json={"name": "adder", "tools": ["here_add"]})
        assert agent.status_code == 201, agent.text
        assert (await client.get("/tool-sources")).json()["items"] == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "here_add" not in INSTALLED


async def test_what_a_program_was_started_with_shows_in_no_answer(settings: Settings, tmp_path: Path) -> None:
    program = THINGS | {"env": {"UPSTREAM_TOKEN": "program-secret-1", "MODE": "fast"}}
    path = written(tmp_path / "mcp.json", here=program)
    async with serve(settings.model_copy(update={"parley_mcp_servers": path})) as client:
        assert await called(client, "here_environment", name="UPSTREAM_TOKEN") == "****"
        assert await called(client, "here_environment", name="MODE") == "fast"
        assert await called(client, "here_greet", name="program-secret-1") == "Hello, ****!"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no JSON of the form"),
        ("[]", "no JSON of the form"),
        ('{"mcpServers": {"a": {"url": "http://x"}}}', "a.command"),
        ('{"mcpServers": {"a": {"command": "x", "shell": true}}}', "a.shell"),
        (None, "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "mcp.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="PARLEY_MCP_SERVERS") as refused:
        read_servers(path)
    assert said in refused.value.detail
