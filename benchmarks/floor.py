"""The floor: the least that accepts, runs and streams with our stack, and keeps none of our promises.

FastAPI, asyncpg, ARQ and `Agent.run`: a row on submit, a commit at the start, a commit at the end. `/tasks` goes through
ARQ to a worker; `/chat` (*floor-inline*) is the same as a task of the API process, with two tools that compute what
Parley's do. There are no events, leases, retries, histories, ledgers, keys or limits.

    python -m benchmarks.floor api PORT | worker
"""

import ast
import asyncio
import operator
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import uvicorn
import uvloop
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_ai import Agent
from redis.asyncio import Redis

from benchmarks import leash, sampler
from benchmarks.model import zero_model

SCHEMA = """
create table floor_runs (id uuid primary key, prompt text not null, state text not null default 'queued', result text,
    created_at timestamptz not null default now(), started_at timestamptz, finished_at timestamptz)
"""
SUBMIT = "insert into floor_runs (id, prompt) values ($1, $2)"
START = "update floor_runs set state = 'running', started_at = now() where id = $1 returning prompt"
FINISH = "update floor_runs set state = 'completed', result = $2, finished_at = now() where id = $1"
DONE = "floor:done"

agent = Agent(zero_model())
tooled = Agent(zero_model())  # An agent of its own: one without tools shall not pay for those of another.
OPERATORS: dict[type[ast.operator], Any] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


@tooled.tool_plain
async def calculator(expression: str) -> str:
    """Calculate + - * and parentheses."""
    return str(_value(ast.parse(expression, mode="eval").body))


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    assert isinstance(node, ast.Constant)
    return int(str(node.value))


@tooled.tool_plain
async def current_time(timezone: str) -> dict[str, str]:
    """Tell the time in a time zone."""
    now = datetime.now(ZoneInfo(timezone))
    utc = now.astimezone(UTC).isoformat(timespec="seconds")
    return {"timezone": timezone, "time": now.isoformat(timespec="seconds"), "weekday": f"{now:%A}", "utc": utc}


class Ask(BaseModel):
    """The body of a submit."""

    prompt: str
    tools: bool = False


class Floor:
    """A process's connections, and who waits for which run."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[None]] = {}

    async def open(self) -> "Floor":
        self.redis_url = os.environ["FLOOR_REDIS"]
        options = {"synchronous_commit": "on", "jit": "off"}
        self.pool: Any = await asyncpg.create_pool(
            os.environ["FLOOR_DSN"], min_size=1, max_size=10, server_settings=options
        )
        self.arq = await create_pool(RedisSettings.from_dsn(self.redis_url))
        self.listener = asyncio.create_task(self._listen())
        return self

    async def _listen(self) -> None:
        pubsub = Redis.from_url(self.redis_url).pubsub()
        await pubsub.subscribe(DONE)
        async for message in pubsub.listen():
            if message["type"] == "message" and (future := self.waiting.pop(message["data"].decode(), None)):
                future.set_result(None)

    async def submit(self, prompt: str) -> UUID:
        run_id = uuid4()
        await self.pool.execute(SUBMIT, run_id, prompt)
        return run_id

    async def run(self, run_id: UUID, *, tools: bool = False) -> str:
        prompt = await self.pool.fetchval(START, run_id)
        result = await (tooled if tools else agent).run(prompt)
        await self.pool.execute(FINISH, run_id, result.output)
        return result.output

    async def wait(self, run_id: UUID) -> str:
        future = self.waiting[str(run_id)] = asyncio.get_running_loop().create_future()
        while (result := await self.pool.fetchval("select result from floor_runs where id = $1", run_id)) is None:
            await future
        self.waiting.pop(str(run_id), None)
        return result

    async def stream(self, run_id: UUID) -> AsyncIterator[bytes]:
        prompt = await self.pool.fetchval(START, run_id)
        yield b'event: start\ndata: {"id":"%s"}\n\n' % str(run_id).encode()
        async with agent.run_stream(prompt) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield b"data: %s\n\n" % orjson.dumps({"delta": text})
            await self.pool.execute(FINISH, run_id, await result.get_output())
        yield b"event: end\ndata: {}\n\n"


floor = Floor()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await floor.open()
    yield


api = FastAPI(lifespan=lifespan)


@api.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@api.post("/tasks", status_code=201)
async def submit(ask: Ask) -> dict[str, str]:
    run_id = await floor.submit(ask.prompt)
    await floor.arq.enqueue_job("work", str(run_id))
    return {"id": str(run_id)}


@api.get("/tasks/{run_id}/wait")
async def wait(run_id: UUID) -> dict[str, str]:
    return {"result": await floor.wait(run_id)}


@api.post("/chat")
async def chat(ask: Ask) -> dict[str, str]:
    run_id = await floor.submit(ask.prompt)
    return {"id": str(run_id), "result": await asyncio.create_task(floor.run(run_id, tools=ask.tools))}


@api.post("/stream")
async def stream(ask: Ask) -> StreamingResponse:
    return StreamingResponse(floor.stream(await floor.submit(ask.prompt)), media_type="text/event-stream")


async def work(context: dict[str, Any], run_id: str) -> None:
    """The one ARQ job."""
    await floor.run(UUID(run_id))
    await floor.arq.publish(DONE, run_id)


async def run_worker() -> None:
    await floor.open()
    redis = RedisSettings.from_dsn(floor.redis_url)
    await Worker(functions=[work], redis_settings=redis, poll_delay=0.02, max_jobs=50, keep_result=0).async_run()


if __name__ == "__main__":
    leash.hold()
    sampler.install()
    if sys.argv[1] == "api":
        uvicorn.run(api, port=int(sys.argv[2]), loop="uvloop", http="httptools", log_level="warning", access_log=False)
    else:
        uvloop.run(run_worker())
