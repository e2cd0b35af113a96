"""Extensions: installed or named, loaded by every process, used by a real run; and told apart when they are wrong."""

import asyncio
import hmac
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart

from app import agents, extensions
from app.agents import rows
from app.errors import ConfigurationError, InvalidArguments
from app.executor import Engine
from app.extensions import ToolContext, tool
from app.notifications import config as notification_config
from app.notifications.registry import CHANNELS
from app.providers import names, scripted
from app.settings import Settings
from app.tools import Risk
from app.tools.registry import INSTALLED
from app.verifiers import VERIFIERS
from tests.engine import World, engine, in_turn, world
from tests.engine import scripted as scripted_model
from tests.tools.context import Context

__all__ = ["engine", "world"]

ROOT = Path(__file__).parents[1]
SHOP = ROOT / "examples" / "parley-shop"
REGISTRIES: list[dict[str, Any]] = [
    INSTALLED,
    CHANNELS,
    notification_config.EXTENDED,
    names.SOURCES,
    scripted.extended,
    rows.OFFERED,
    VERIFIERS,
]


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a test loads is gone after it."""
    before = [dict(registry) for registry in REGISTRIES]
    known = set(sys.modules)
    monkeypatch.setenv("SHOP_FOLDER", str(tmp_path))
    yield
    for registry, was in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(was)
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed from its folder into one of its own."""
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".uv" / "bin")
    assert uv, "uv, with which dev.py sets the project up, is neither on the PATH nor in .uv"
    target = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(SHOP, tmp_path_factory.mktemp("source") / "parley-shop")
    command = [uv, "pip", "install", "--no-deps", "--offline", "--quiet", "--no-config", "--no-cache"]
    done = subprocess.run(
        [*command, "--python", sys.executable, "--target", str(target), str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A module that the settings name."""
    (folder / f"{name}.py").write_text(f"from app.extensions import *\n{text}")
    monkeypatch.syspath_prepend(folder)
    return Settings.of(parley_extensions=name)


# --- the example --------------------------------------------------------------------------------------


async def test_the_installed_example_is_found_and_used_by_a_run(
    installed: Path, world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(installed)
    assert extensions.load(world.settings) == ["parley_shop"]
    assert extensions.load(world.settings) == ["parley_shop"], "loading again changes nothing"
    await agents.seed(world.database)
    asks = ToolCallPart("stock_level", {"sku": "lamp"}), ToolCallPart("reserve", {"sku": "lamp", "pieces": 2})
    script = in_turn(ModelResponse([asks[0]]), ModelResponse([asks[1]]), ModelResponse([TextPart("Reserved.")]))
    await world.agent("salesman", model=scripted_model("salesman", script), tools=["stock_level", "reserve"])
    conversation = await world.conversation(agent="salesman")
    accepted = await world.say(conversation, "Two lamps, please", inline=engine.inline)
    engine.welcome(accepted)
    run = await world.ended(accepted.run_id)
    assert (run["state"], run["result"], run["error"]) == ("completed", "Reserved.", None)
    calls = await world.calls(conversation)
    assert [(call["tool"], call["state"], call["risk"], call["result"]) for call in calls] == [
        ("stock_level", "done", "read", 12),
        ("reserve", "done", "write", {"sku": "lamp", "reserved": 2, "left": 10}),
    ]
    with sqlite3.connect(tmp_path / "stock.sqlite") as shop:
        assert shop.execute("select sku, pieces from reservations").fetchall() == [("lamp", 2)]
    shop.close()


async def test_its_verifier_says_who_may_call_a_webhook(
    installed: Path, world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    extensions.load(world.settings)
    config = {"verifier": "till", "secret": "the till's own secret".replace(" ", "-")}
    body = {"task_type": "triggered", "prompt": "Count", "trigger_config": config}
    made = await client.post("/tasks", json=body)
    assert made.status_code == 201, made.text
    task = made.json()
    assert (task["trigger_config"]["verifier"], "token=" in task["webhook_url"]) == ("till", False)
    payload = b'{"sold": "lamp"}'
    seal = hmac.new(config["secret"].encode(), payload, "sha256").hexdigest()

    async def call(sealed: str, content: bytes = payload) -> int:
        headers = {"X-Till-Seal": sealed, "Content-Type": "application/json"}
        return (await client.post(f"/tasks/webhooks/{task['id']}", content=content, headers=headers)).status_code

    assert await call(seal) == 202
    assert await call(seal, b'{"sold": "chair"}') == 401
    assert await call("") == 401
    with monkeypatch.context() as broken:
        broken.setitem(VERIFIERS, "till", lambda headers, body, secrets: 1 / 0)
        assert await call(seal) == 401, "one that breaks says no"
    del VERIFIERS["till"]
    assert await call(seal) == 401, "one that is gone says no"
    refused = await client.post("/tasks", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, "trigger_config.verifier")


async def test_its_agent_its_provider_and_its_channel_work(
    installed: Path, world: World, engine: Engine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    extensions.load(world.settings)
    for _ in range(2):
        await agents.seed(world.database)
    clerk = (await client.get("/agents/clerk")).json()
    assert clerk["tools"] == ["stock_level", "reserve", "calculator"]
    assert (await client.get("/tools/reserve")).json()["kind"] == "extension"
    listed = (await client.get("/tools", params={"kind": "extension"})).json()["items"]
    assert [each["name"] for each in listed] == ["reserve", "stock_level"]
    body = {"name": "bird", "model": "parrot:polly"}
    assert (await client.post("/agents", json=body)).status_code == 201
    conversation = await world.conversation(agent="bird")
    accepted = await world.say(conversation, "Who are you?", inline=engine.inline)
    engine.welcome(accepted)
    assert (await world.ended(accepted.run_id))["result"] == "I am polly."
    task = {"task_type": "delegation", "prompt": "Hello", "notification_config": {"channels": ["logbook"]}}
    assert (await client.post("/tasks", json=task)).status_code == 201
    task["notification_config"] = {"channels": ["sms"]}
    refused = await client.post("/tasks", json=task)
    assert refused.status_code == 422
    assert "'email', 'slack', 'webhook' or 'logbook'" in refused.text
    default = (await client.get("/agents/assistant")).json()
    assert "reserve" not in default["tools"]


async def test_a_deleted_agent_of_an_extension_stays_deleted(
    installed: Path, world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(installed)
    extensions.load(world.settings)
    await agents.seed(world.database)
    assert (await client.delete("/agents/clerk")).status_code == 204
    await agents.seed(world.database)
    assert (await client.get("/agents/clerk")).status_code == 404


# --- signatures ---------------------------------------------------------------------------------------


class Point(BaseModel):
    x: float
    y: float = 0.0


async def test_a_signature_becomes_a_schema_and_results_become_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tool(risk="read", name="measure", timeout_seconds=9)
    async def work(point: Point, context: ToolContext, *, unit: str = "m") -> list[Any]:
        """Measure a point."""
        return [point, unit, {1, 2}, context.effect_key, tmp_path]

    made = extensions._tool_of(work, risk="read", name="measure", timeout_seconds=9)
    assert (made.name, made.description, made.risk, made.idempotent, made.timeout_seconds, made.kind) == (
        "measure",
        "Measure a point.",
        Risk.READ,
        False,
        9,
        "extension",
    )
    assert made.parameters["required"] == ["point"]
    assert made.parameters["properties"]["unit"]["default"] == "m"
    assert set(made.parameters["$defs"]) == {"Point"}
    context = Context.of()
    assert await made.call(context, {"point": {"x": 1}}) == [
        {"x": 1.0, "y": 0.0},
        "m",
        [1, 2],
        str(context.effect_key),
        str(tmp_path),
    ]
    with pytest.raises(InvalidArguments, match=r"point\.x"):
        await made.call(context, {"point": {"x": "far"}})
    with pytest.raises(InvalidArguments, match="there is no such argument"):
        await made.call(context, {"point": {"x": 1}, "colour": "red"})


async def test_a_plain_function_does_not_hold_the_event_loop() -> None:
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    @tool(risk="read")
    def work() -> bool:
        """Wait for the loop."""
        return asyncio.run_coroutine_threadsafe(released.wait(), loop).result(5)

    made = extensions._tool_of(work, risk="read")
    call = asyncio.ensure_future(made.call(Context.of(), {}))
    await asyncio.sleep(0)
    released.set()
    assert await call is True


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_that_name", "extension wrong can't be loaded: ModuleNotFoundError: .*nothing_of_that_name"),
        ("def (", "extension wrong can't be loaded: SyntaxError"),
        ("x = 1 / 0", "extension wrong can't be loaded: ZeroDivisionError"),
        ("x = 1", "extension wrong registers nothing"),
        ("@tool\ndef f(x):\n    'Do.'", "extension wrong: the tool f: the parameter x has no type"),
        ("@tool\ndef f(*x: int):\n    'Do.'", r"the tool f: \*x: int must be a parameter"),
        ("@tool\ndef f(x: int): ...", "the tool f has no docstring"),
        ("@tool(risk='wild')\ndef f(x: int):\n    'Do.'", "risk must be one of read, write"),
        ("@tool(timeout_seconds=0)\ndef f(x: int):\n    'Do.'", "timeout_seconds must be"),
        ("@tool\ndef calculator(x: int):\n    'Do.'", "there is a tool called calculator already"),
        ("@channel('email')\nclass C: ...", "there is a channel called email already"),
        ("@provider('openai')\ndef p(name): ...", "there is a provider called openai already"),
        ("@provider('Big One')\ndef p(name): ...", "'Big One' can't be a provider's name"),
        ("a = AgentSpec(name='assistant')", "there is an agent called assistant already"),
        ("a = AgentSpec(name='x', tools=['gone'])", "there is no tool 'gone'"),
        ("a = AgentSpec(name='x', host='shell')", "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_an_extension_is_told_with_its_name(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        extensions.load(module(tmp_path, "wrong", text, monkeypatch))
    assert "extension wrong" in refused.value.detail
    assert refused.value.field == "PARLEY_EXTENSIONS"


@pytest.mark.parametrize("role", ["serve", "worker", "scheduler"])
def test_every_process_loads_them_and_says_in_one_line_what_is_wrong(role: str, tmp_path: Path) -> None:
    given = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "PARLEY_HOME": str(tmp_path),
        "PARLEY_EXTENSIONS": "absent_extension",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", role], cwd=tmp_path, env=given, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "the extension absent_extension can't be loaded: ModuleNotFoundError" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
