"""Every pattern to its end through the real provider classes, on a provider that speaks their protocols."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from pydantic_ai import models

from app.executor import Engine
from app.settings import Settings
from app.tasks import fire_due
from tests.provider_server import KEY, ProviderServer, provider_server
from workers.resident import Resident

PROTOCOLS = {
    "openai-chat:three-tools": "chat",
    "openai-responses:three-tools": "responses",
    "anthropic:three-tools": "messages",
}
TOOLS = ["calculator", "current_time", "ask_person"]


@pytest.fixture(scope="module")
def loopback() -> Iterator[ProviderServer]:
    with provider_server() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, loopback: ProviderServer) -> Settings:
    loopback.reset()
    return settings.model_copy(
        update={
            "openai_base_url": f"{loopback.url}/v1",
            "anthropic_base_url": loopback.url,
            "openai_api_key": SecretStr(KEY),
            "anthropic_api_key": SecretStr(KEY),
        }
    )


@pytest.fixture
async def engine(app: FastAPI) -> AsyncIterator[Engine]:
    """The API's engine with a worker's resident on it, allowed to ask the loopback provider."""
    engine: Engine = app.state.engine
    resident = Resident(engine)
    with models.override_allow_model_requests(True):
        resident.start()
        yield engine
        await resident.stop()


@pytest.fixture(params=PROTOCOLS, ids=PROTOCOLS.values())
async def agent(request: pytest.FixtureRequest, client: httpx.AsyncClient, engine: Engine) -> str:
    made = await client.post(
        "/agents",
        json={"name": "wired", "model": request.param, "tools": TOOLS[:2], "instructions": "Use your tools."},
    )
    assert made.status_code == 201, made.text
    return "wired"


def protocols(loopback: ProviderServer) -> set[tuple[str, bool]]:
    return {(ask.protocol, ask.stream) for ask in loopback.asked}


async def ended(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    for _ in range(500):
        run = (await client.get(f"/runs/{run_id}")).json()
        if run["state"] in ("completed", "failed", "cancelled"):
            return run
        await asyncio.sleep(0.02)
    raise AssertionError(run)


def check(run: dict[str, Any], loopback: ProviderServer) -> None:
    """It was answered over the wire, with tools, and counted."""
    assert run["state"] == "completed", run["error"]
    assert run["usage"]["requests"] == len(loopback.asked) >= 2
    assert run["usage"]["input_tokens"] > 0
    assert run["model"].endswith("three-tools")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("pattern", ["chatbot", "sidekick"])
async def test_inline(
    client: httpx.AsyncClient, loopback: ProviderServer, agent: str, pattern: str, streamed: bool
) -> None:
    body = {"pattern_type": pattern, "agent": agent, "context_data": {"cart": 3}}
    conversation = (await client.post("/conversations", json=body)).json()["id"]
    answer = await client.post(
        f"/conversations/{conversation}/messages", json={"message": "Work it out.", "stream": streamed}
    )
    assert answer.status_code == 200
    run = (await client.get("/runs", params={"conversation_id": conversation})).json()["items"][0]
    check(run, loopback)
    if streamed:
        assert "event: text.delta" in answer.text
        assert answer.text.count("event: tool.completed") == 2
        assert answer.text.rstrip().splitlines()[-2] == "event: run.completed"
    else:
        assert answer.json()["reply"] == run["result"]
    if pattern == "sidekick":
        assert all("app_state" in ask.prompt for ask in loopback.asked)


async def test_delegation(client: httpx.AsyncClient, loopback: ProviderServer, agent: str) -> None:
    task = await client.post("/tasks", json={"task_type": "delegation", "prompt": "Work it out.", "agent": agent})
    check(await ended(client, task.json()["latest_run"]["id"]), loopback)


async def test_scheduled(client: httpx.AsyncClient, loopback: ProviderServer, engine: Engine, agent: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    body = {"task_type": "scheduled", "prompt": "It is {{ fire_time }}.", "run_at": soon, "agent": agent}
    task = (await client.post("/tasks", json=body)).json()["id"]
    await asyncio.sleep(0.5)
    for accepted in (await fire_due(engine.database, engine.settings)).accepted:
        engine.welcome(accepted)
    (fire,) = (await client.get(f"/tasks/{task}/fires")).json()["items"]
    check(await ended(client, fire["run_id"]), loopback)


async def test_triggered(client: httpx.AsyncClient, loopback: ProviderServer, agent: str) -> None:
    body = {"task_type": "triggered", "prompt": "React.", "trigger_config": {}, "agent": agent}
    task = (await client.post("/tasks", json=body)).json()["id"]
    call = await client.post(f"/tasks/webhooks/{task}", json={"action": "opened"})
    assert call.status_code == 202
    check(await ended(client, call.json()["run_id"]), loopback)
    assert all("webhook_payload" in ask.prompt for ask in loopback.asked)


async def test_research(client: httpx.AsyncClient, loopback: ProviderServer, agent: str) -> None:
    body = {"task_type": "research", "prompt": "What do tides do?", "agent": agent}
    run_id = (await client.post("/tasks", json=body)).json()["latest_run"]["id"]
    run = await ended(client, run_id)
    check(run, loopback)
    assert run["output"] == {"sources": []}
    log = await client.get(f"/runs/{run_id}/events", headers={"Accept": "application/json"})
    names = [event["event"] for event in log.json()["items"]]
    assert names.count("plan.updated") == 1
    assert names.count("run.progress") >= 2


async def test_each_agent_speaks_its_own_protocol(
    client: httpx.AsyncClient, loopback: ProviderServer, engine: Engine
) -> None:
    for model, protocol in PROTOCOLS.items():
        loopback.reset()
        name = protocol
        await client.post("/agents", json={"name": name, "model": model, "tools": TOOLS[:2]})
        answer = await client.post("/runs", json={"agent": name, "message": "Work it out."})
        assert answer.json()["state"] == "completed", answer.text
        assert {ask.protocol for ask in loopback.asked} == {protocol}
