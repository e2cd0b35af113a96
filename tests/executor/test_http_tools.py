"""HTTP tools in the hands of agents."""

import base64
import re
from typing import Any

import pytest
from pydantic import SecretStr

from app.credentials import Box, rows
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL
from app.executor import Engine
from app.models import new_id
from app.runs import reasons
from app.settings import Settings
from app.tools import registered
from app.tools.http import define_http
from tests.engine import World, in_turn
from tests.executor.test_turns import calls, done, run_of, spawn, text
from tests.services import Service, service


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"parley_egress_allow": "127.0.0.0/8"})


async def agent_with_tool(world: World, there: Service, box: Box, **fields: Any) -> None:
    definition = define_http("call_it", "Call the service", there.url("/echo?q={q}"), credential="c", **fields)
    async with world.database.transaction(DEFAULT_WORKSPACE) as session:
        values = {"token": "key-secret-1"}
        await rows.create(session, box, DEFAULT_WORKSPACE, "c", "bearer", values, row_id=new_id())
        await registered.create(session, DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, definition)


async def test_an_agent_calls_a_service_and_sees_no_secret(world: World, engine: Engine) -> None:
    async with service() as there:
        await agent_with_tool(world, there, engine.box)
        script = in_turn(calls(("call_it", {"q": "tea"})), text("done"))
        conversation = await spawn(world, engine, script, tools=["call_it"])
        row = await done(world, conversation)
        assert there.asked[0].headers["authorization"] == "Bearer key-secret-1"
    assert row["state"] == "completed"
    [call] = await world.calls(conversation)
    assert (call["state"], call["result"]["query"]) == ("done", {"q": ["tea"]})
    said = [[dict(each) for each in await world.messages(conversation)], await world.events(conversation), dict(call)]
    assert "key-secret-1" not in str(said)


@pytest.mark.parametrize(("method", "begun"), [("GET", "started"), ("POST", "proposed")])
async def test_a_run_waits_for_an_unreadable_credential_and_begins_no_call(
    world: World, engine: Engine, method: str, begun: str
) -> None:
    keys = SecretStr(f"k1:{base64.b64encode(bytes([9]) * 32).decode()}")
    other = Box.from_settings(world.settings.model_copy(update={"parley_encryption_keys": keys}))
    async with service() as there:
        await agent_with_tool(world, there, other, method=method)
        script = in_turn(calls(("call_it", {"q": "tea"})), text("done"))
        conversation = await spawn(world, engine, script, tools=["call_it"])
        run = (await run_of(world, conversation))["id"]
        row = await world.until(run, lambda row: row["state"] == "queued")
        assert there.asked == []
    assert "the credential c is unreadable" in str(await world.events(conversation))
    assert (row["attempt"], [call["state"] for call in await world.calls(conversation)]) == (1, [begun])
    why = (await reasons(world.database, [run]))[run]
    assert why.reason is not None
    assert re.match(r"the credential c is unreadable: .*; next try 20.*UTC", why.reason)
    assert why.waiting_for == ("credential",)
