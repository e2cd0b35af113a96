"""What a tool call through Parley costs over the same call on a bare agent, in one interleaved run.

    python -m benchmarks.registry [ROUNDS [CALLS]]

Both ask for the same trivial tool, by a model that answers at once: one call per model response, then all calls in one
response. Bare is Pydantic AI's `Agent` with a plain function, nothing stored. Ours is an inline run: schemas, policy, the
ledger's rows, events, messages, each step committed. A run without calls is taken away from both. Quote the ratios.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from app import agents, identity
from app.conversations import NewConversation, Turn, find_agent, reply, start
from app.db import DEFAULT_WORKSPACE
from app.executor import Engine
from app.models import new_id
from app.patterns import PATTERNS
from app.providers import Providers
from app.settings import Settings
from app.tools import Risk, Tool, ToolContext
from app.tools.registry import INSTALLED
from benchmarks.figure import Figure, tell
from benchmarks.ground import prepared
from benchmarks.machine import cpu_ms

CALLS = 40
ROUNDS = 15
ONE_EACH, AT_ONCE = "one per response", "all in one response"
PARAMETERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AGENT = """
with a as (insert into agents (id, workspace_id, name, published_version, latest_version) values ($1, $2, $3, 1, 1))
insert into agent_versions (agent_id, version, workspace_id, spec, sha256) values ($1, 1, $2, $4, 'benchmark')
"""
Run = Callable[[], Awaitable[None]]


def model(responses: int, each: int) -> FunctionModel:
    """A model that asks for the tool in so many responses, so often in each."""

    def calls(messages: list[ModelMessage]) -> list[ToolCallPart]:
        given = sum(isinstance(message, ModelResponse) for message in messages)
        return [ToolCallPart("double", {"n": n}, f"{given}-{n}") for n in range(each)] if given < responses else []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        return ModelResponse(calls(messages) or [TextPart("Done.")])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        del info
        asked = calls(messages)
        for index, part in enumerate(asked):
            yield {index: DeltaToolCall(part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id)}
        if not asked:
            yield "Done."

    return FunctionModel(answer, stream_function=stream)


def bare(asks: FunctionModel) -> Run:
    agent = Agent(asks)

    @agent.tool_plain
    async def double(n: int) -> int:
        return 2 * n

    async def run() -> None:
        async with agent.run_stream_events("Double") as events:
            async for _ in events:
                pass

    return run


async def ours(engine: Engine, name: str, asks: FunctionModel, calls: int) -> Run:
    Providers.register(name, lambda: asks)
    limits = {"requests": calls + 10}
    spec = agents.AgentSpec.model_validate(
        {"name": name, "model": f"scripted:{name}", "tools": ["double"], "limits": limits}
    )
    await engine.database.execute(AGENT, new_id(), DEFAULT_WORKSPACE, name, spec.model_dump(mode="json"))

    async def run() -> None:
        async with engine.database.engine_tx() as connection:
            ref = await find_agent(connection, DEFAULT_WORKSPACE, name)
            made = await start(connection, NewConversation(DEFAULT_WORKSPACE, PATTERNS["chatbot"], ref, "api"))
            turn = Turn("Double")
            accepted = await reply(connection, engine.settings, DEFAULT_WORKSPACE, made, turn, inline=engine.inline)
        engine.welcome(accepted)
        while accepted.run_id in engine.running:
            task = engine.running[accepted.run_id].task
            await asyncio.wait([task] if task else [], timeout=1)
            await asyncio.sleep(0)
        end = await engine.database.fetchrow("select state, error from runs where id = $1", accepted.run_id)
        assert end, "there is no such run"
        assert end["state"] == "completed", end["error"]

    return run


async def double_it(context: ToolContext, arguments: dict[str, Any]) -> int:
    del context
    return 2 * arguments["n"]


async def measure(rounds: int = ROUNDS, calls: int = CALLS) -> list[Figure]:
    INSTALLED["double"] = Tool("double", "Doubles a number.", PARAMETERS, Risk.READ, idempotent=True, call=double_it)
    with tempfile.TemporaryDirectory() as home:
        async with prepared(Path(home)) as ground:
            dsn = await ground.database("registry")
            settings = Settings.of(**ground.settings(dsn, ground.redis))
            async with Engine.open(settings, kind="benchmark") as engine:
                await identity.seed(engine.database)
                shapes = {"none": (0, 0), ONE_EACH: (calls, 1), AT_ONCE: (1, calls)}
                runs = {
                    (who, shape): bare(model(*size))
                    if who == "bare"
                    else await ours(engine, shape.replace(" ", "-"), model(*size), calls)
                    for shape, size in shapes.items()
                    for who in ("bare", "Parley")
                }
                found = await interleaved(runs, rounds, {"postgres": ground.stores["postgres"]})
                del INSTALLED["double"]
                return [figure for shape in (ONE_EACH, AT_ONCE) for figure in of_shape(found, shape, calls)]


async def interleaved(
    runs: dict[tuple[str, str], Run], rounds: int, stores: dict[str, list[int]]
) -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """Wall, our CPU and PostgreSQL's CPU of each run, in milliseconds."""
    for run in runs.values():
        await run()
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            store, cpu, wall = cpu_ms(stores)["postgres"], time.process_time(), time.perf_counter()
            await run()
            took = (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000
            found[name].append((*took, cpu_ms(stores)["postgres"] - store))
    return found


def of_shape(found: dict[tuple[str, str], list[tuple[float, float, float]]], shape: str, calls: int) -> list[Figure]:
    def per_call(who: str, what: int) -> float:
        runs = statistics.median(each[what] for each in found[who, shape])
        none = statistics.median(each[what] for each in found[who, "none"])
        return (runs - none) / calls

    said = f"registry: call, {shape},"
    return [
        Figure(f"{said} ms", per_call("Parley", 0), per_call("bare", 0)),
        Figure(f"{said} cpu ms process", per_call("Parley", 1), per_call("bare", 1)),
        Figure(f"{said} cpu ms postgres", per_call("Parley", 2)),
    ]


if __name__ == "__main__":
    tell(asyncio.run(measure(*map(int, sys.argv[1:3]))))
