"""Every operation under requests made from its own schema: nothing breaks, and every answer is as it is described."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from pydantic_ai.messages import ModelResponse, ToolCallPart
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.executor import Engine
from app.main import create_app
from app.settings import Settings
from tests import databases
from tests.engine import World, in_turn, scripted
from workers.resident import Resident

T = TypeVar("T")

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SECONDS = 10.0
# These need things of their own.
USED_UP = ("DELETE", "/decision", "/retry", "/rollback")
# Nothing made at random is a tool's code, its arguments, an agent's YAML or a form with a file.
NOT_BY_CHANCE = (
    "/tools/register",
    "/tools/execute",
    "/agents/import",
    "POST /artifacts",
    "POST /documents]",
    "PUT /documents",
    "/tools/import",
    "/tool-sources/{source}/read",
    "POST /tools]",
    "/slack/",
    "/email/inbound",
    "/decisions/",
    "/unsubscribe/",
    "/notifications/test",
)
OPENAPI = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://shop.example"}],
    "paths": {"/things": {"get": {"operationId": "list"}}},
}
PYTHON = "async def shout(text: str) -> str:\n    return text.upper()"

config = SchemathesisConfig.from_dict(
    {
        "generation": {"mode": "all", "with-security-parameters": False},
        "phases": {"coverage": {"unexpected-methods": []}, "stateful": {"enabled": False}},
    }
)
schema = schemathesis.openapi.from_path(DOCUMENT, config=config)


class Live:
    """A server and a worker in a thread of their own, and what is in their database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.session = requests.Session()
        self.url = ""
        self.world: World

    def __enter__(self) -> "Live":
        self._thread.start()
        assert self._ready.wait(30), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = create_app(self._settings)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with Engine.open(self._settings, kind="worker") as engine:
            resident = Resident(engine)
            resident.start()
            self.world = World(engine.database, self._settings)
            self._ready.set()
            await self._stop.wait()
            await resident.stop()
        server.should_exit = True
        await serving

    # --- what requests may name --------------------------------------------------------------------

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.session.post(self.url + path, json=body, timeout=SECONDS)
        assert answer.ok, answer.text
        return answer.json()

    def upload(self) -> str:
        answer = self.session.post(self.url + "/artifacts", files={"file": ("a.txt", b"text")}, timeout=SECONDS)
        return answer.json()["id"]

    def get(self, path: str) -> Any:
        return self.session.get(self.url + path, timeout=SECONDS).json()

    def until(self, path: str) -> Any:
        """The first item of a list that will have one."""
        for _ in range(500):
            if items := self.get(path)["items"]:
                return items[0]
            time.sleep(0.02)
        raise AssertionError(f"nothing at {path}")

    def resume(self) -> None:
        """Lift every hold but those of tasks."""
        for scope in ({"scope": "all"}, {"scope": "workspace"}, {"scope": "agent", "ref": "assistant"}):
            self.post("/resume", scope)

    def things(self) -> dict[str, str]:
        """One of everything, by the name its id has in paths."""
        number = time.monotonic_ns()
        answer = self.post("/runs", {"message": "What is 6*7?"})
        mail = {"channels": ["email"], "email_address": "user@example.com"}
        told = self.post("/tasks", {"task_type": "delegation", "prompt": "Hello", "notification_config": mail})
        task = self.post("/tasks", {"task_type": "triggered", "prompt": "Look.", "trigger_config": {}})
        asking = self.post("/runs", {"agent": "asks", "message": "Ask me."})
        return {
            "conversation_id": answer["conversation_id"],
            "run_id": answer["run_id"],
            "task_id": task["id"],
            "receipt_id": self.post(f"/tasks/webhooks/{task['id']}", {"n": 7})["receipt_id"],
            "delivery_id": self.until(f"/deliveries?task_id={told['id']}")["id"],
            "approval_id": self.until(f"/approvals?run_id={asking['run_id']}")["id"],
            "agent": self.post("/agents", {"name": f"agent-{number}"})["name"],
            "name": self.post(
                "/tools/register", {"name": f"t{number}", "description": "Shouts a text", "code": PYTHON}
            )["name"],
            "artifact_id": self.upload(),
            "source": self.post("/tools/import", {"name": f"s{number}", "document": OPENAPI})["name"],
            "document_id": self.post("/documents", {"text": "A text to be found."})["id"],
            "memory_id": self.post("/memories", {"text": "Likes tea.", "user": "alice"})["id"],
            "ref": self.post("/credentials", {"name": f"c{number}", "kind": "bearer", "token": "a token for tests"})[
                "name"
            ],
            "key_id": self.post("/keys", {"name": "made", "scopes": ["runs:read"]})["id"],
        }


@pytest.fixture(scope="module")
def live(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    asyncio.run(databases.empty(database_url))
    scripted("asks", in_turn(ModelResponse(parts=[ToolCallPart("ask_person", {"question": "Which?"})])))
    settings = Settings.of(
        database_url=database_url,
        redis_url=redis_url,
        parley_home=tmp_path_factory.mktemp("home"),
        parley_secret="a secret for tests",
        parley_encryption_keys="k1:" + "A" * 43 + "=",
        parley_pool_size=5,
        default_model="demo",
    )
    with Live(settings) as made:
        made.run(made.world.agent("asks", model="scripted:asks", tools=["ask_person"]))
        yield made
    asyncio.run(databases.empty(database_url))


@pytest.fixture(scope="module")
def shared(live: Live) -> dict[str, str]:
    return live.things()


@pytest.fixture
def things(live: Live, shared: dict[str, str], request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    yield live.things() if any(each in request.node.name for each in USED_UP) else shared
    if "[POST /pause]" in request.node.name or "[POST /drain]" in request.node.name:
        live.resume()


@pytest.fixture
def statuses(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    """What was answered; something must have been done, or the requests say nothing of the answers that matter."""
    seen: list[int] = []
    yield seen
    assert min(seen) < 300 or any(each in request.node.name for each in NOT_BY_CHANCE), seen


def point(case: Case, things: dict[str, str]) -> None:
    """Lead a case to what there is: ids and names made up at random name nothing."""
    case.path_parameters.update({name: things[name] for name in case.path_parameters if name in things})
    case.query.pop("cursor", None)
    if isinstance(case.body, dict):
        known = {"agent": "assistant", "tool": "calculator", **things, "ref": things["task_id"]}
        case.body.update({name: known[name] for name in case.body if name in known and name != "name"})


# The server lives in a thread of this process: when it draws a number for a jitter while a request is made up, that looks
# as if the making did.
@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module inside strategies:hypothesis.errors.HypothesisDeprecationWarning"
)
@schema.parametrize()
@hypothesis_settings(
    max_examples=4,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: Case, live: Live, things: dict[str, str], statuses: list[int]) -> None:
    if len(statuses) % 4 < 3:
        point(case, things)
    headers = {"Prefer": "wait=0"}
    if case.path == "/conversations/{conversation_id}/events":
        headers["Accept"] = "application/json"  # The stream of a conversation does not end.
    response = case.call(base_url=live.url, session=live.session, timeout=SECONDS, headers=headers)
    statuses.append(response.status_code)
    case.validate_response(response, checks=CHECKS)
