"""`parley agents` for agents kept as files, against a server on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from app.cli import parley

Says = Callable[..., Awaitable[Result]]

REPORTER = "name: reporter\ninstructions: |\n  One.\n  Two.\ntools:\n- calculator\n"
WRITER = "name: writer\nlimits: {requests: 3}\n"


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The address of the started application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
def says(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Runs `parley agents ...` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str, code: int = 0, say: str | None = None) -> Result:
        whole = ["agents", *arguments, "--url", url]
        done = await asyncio.to_thread(CliRunner().invoke, parley, whole, input=say, catch_exceptions=False)
        assert done.exit_code == code, (arguments, done.output)
        return done

    return run


async def test_applying_twice_changes_nothing(says: Says, tmp_path: Path) -> None:
    (tmp_path / "reporter.yaml").write_text(REPORTER)
    (tmp_path / "writer.yml").write_text(WRITER)
    (tmp_path / "notes.txt").write_text("no agent")

    dry = await says("apply", "reporter.yaml", "writer.yml", "--dry-run")
    assert "nothing was stored" in dry.stderr
    assert "no agent" in (await says("show", "reporter", code=1)).stderr

    made = json.loads((await says("apply", ".", "--json")).stdout)
    assert [(each["agent"], each["applied"], each["version"]) for each in made] == [
        ("reporter", "created", 1),
        ("writer", "created", 1),
    ]
    again = await says("apply", "reporter.yaml", "writer.yml")
    assert "nothing to change" in again.stderr
    assert again.stdout.count("unchanged") == 2
    assert json.loads((await says("versions", "reporter", "--json")).stdout)["items"][0]["version"] == 1

    (tmp_path / "reporter.yaml").write_text(REPORTER.replace("Two", "Three"))
    both = json.loads((await says("apply", ".", "--json")).stdout)
    assert [(each["applied"], each["version"]) for each in both] == [("updated", 2), ("unchanged", 1)]


async def test_one_that_is_refused_stops_all(says: Says, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(f"{REPORTER}---\nname: broken\ntools: [teleport]\n---\nname: x\nnope: 1\n")
    told = (await says("apply", "all.yaml", code=1)).stderr
    assert "all.yaml: broken: there is no tool 'teleport' in this workspace (field tools.0, unknown_reference)" in told
    assert "there is no field 'nope' here" in told
    assert "2 of 3 agents refused; nothing was stored" in told
    assert "no agent" in (await says("show", "reporter", code=1)).stderr


async def test_all_fields_of_a_refused_agent_are_told(says: Says) -> None:
    told = (await says("apply", "-", code=1, say="name: x\ninstructons: Hi\nlimits: {requests: 0}\n")).stderr
    assert "standard input: x: instructons: there is no field 'instructons' here: use instructions" in told
    assert "standard input: x: limits.requests: should be greater than or equal to 1" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "this is not YAML"),
        ("- name: x", "an agent is a mapping"),
        ("model: demo", "an agent without a name"),
        ("name: x\n---\nname: x", "more than once"),
        ("name: x\ninput_schema: {default: .inf}", "JSON has not"),
        ("", "no agent in what was named"),
    ],
)
async def test_what_can_not_be_read_is_wrong_usage(says: Says, text: str, said: str) -> None:
    assert said in (await says("apply", "-", code=2, say=text)).stderr
    assert "can't be read" in (await says("apply", "missing.yaml", code=2)).stderr


async def test_files_are_compared_with_what_is_served(says: Says, tmp_path: Path) -> None:
    (tmp_path / "reporter.yaml").write_text(REPORTER)
    await says("apply", "-", say=REPORTER)
    assert "no difference" in (await says("diff", "reporter.yaml", "--exit-code")).stderr
    told = await says("diff", "-", "--exit-code", code=1, say=REPORTER.replace("Two", "Three") + "model: demo\n")
    assert told.stdout.splitlines() == [
        "reporter: model",
        "+demo",
        "reporter: instructions",
        " One.",
        "-Two.",
        "+Three.",
    ]
    await says("diff", "reporter.yaml", "reporter", code=2)


async def test_drafts_are_published_rolled_back_and_exported(says: Says) -> None:
    await says("apply", "-", say=REPORTER)
    await says("apply", "-", "--draft", say=REPORTER.replace("Two", "Three"))
    assert (await says("diff", "reporter")).stdout.splitlines()[1:] == [" One.", "-Two.", "+Three."]
    assert (await says("export", "reporter")).stdout == REPORTER
    await says("publish", "reporter")
    exported = (await says("export", "reporter")).stdout
    assert "Three" in exported
    assert "nothing to change" in (await says("apply", "-", say=exported)).stderr
    assert served(await says("rollback", "reporter", "--json")) == 1
    assert served(await says("publish", "reporter", "--version", "2", "--json")) == 2
    assert [each["lines"] for each in changes(await says("diff", "reporter", "--from", "2", "--to", "1", "--json"))]
    assert json.loads((await says("export", "reporter", "--json")).stdout)["tools"] == ["calculator"]
    assert "version" in (await says("publish", "reporter", "--version", "9", code=1)).stderr


def served(result: Result) -> int:
    return json.loads(result.stdout)["published_version"]


def changes(result: Result) -> list[dict[str, Any]]:
    return json.loads(result.stdout)[0]["changes"]
