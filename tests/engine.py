"""What the tests of the run engine share: a conversation in a few words, scripted models, and the invariants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from app.agents import AgentSpec
from app.conversations import Accepted, NewConversation, Turn, find_agent, reply, start
from app.db import DEFAULT_WORKSPACE, Database, Row
from app.events import StoredEvent, replay
from app.executor import Engine
from app.models import new_id
from app.patterns import PATTERNS
from app.providers import Providers
from app.runs import TERMINAL_STATES, Claim, Inline, Recovered, claim, recover
from app.settings import Settings
from app.settle import Outcome, Settled, settle
from app.tools import Risk, Tool
from app.tools.registry import INSTALLED

AGENT = """
with agent as (
    insert into agents (id, workspace_id, name, published_version, latest_version) values ($1, $2, $3, 1, 1)
    returning id
)
insert into agent_versions (agent_id, version, workspace_id, spec, sha256, published_at)
select id, 1, $2, $4, 'test', now() from agent
"""

Script = Callable[[list[ModelMessage], AgentInfo], Awaitable[ModelResponse] | ModelResponse]


class World:
    """A database with conversations in it, seen from outside."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings

    # --- making things happen ------------------------------------------------------------------------

    async def agent(self, name: str, **fields: Any) -> str:
        """An agent, saved past the checks of the API: scripted models and tools are nobody else's business."""
        spec = AgentSpec(name=name, **fields)
        await self.database.execute(AGENT, new_id(), DEFAULT_WORKSPACE, name, spec.model_dump(mode="json"))
        return name

    async def conversation(self, pattern: str = "chatbot", agent: str = "assistant", **fields: Any) -> UUID:
        async with self.database.engine_tx() as connection:
            ref = await find_agent(connection, DEFAULT_WORKSPACE, agent)
            new = NewConversation(DEFAULT_WORKSPACE, PATTERNS[pattern], ref, fields.pop("origin", "api"), **fields)
            return await start(connection, new)

    async def say(
        self, conversation_id: UUID, text: str | None = "Hello", *, inline: Inline | None = None, **turn: Any
    ) -> Accepted:
        async with self.database.engine_tx() as connection:
            return await reply(
                connection,
                self.settings,
                DEFAULT_WORKSPACE,
                conversation_id,
                Turn(text, **turn),
                inline=inline,
            )

    async def queued(self, text: str = "Hello", **turn: Any) -> Accepted:
        """A run waiting in a conversation of its own."""
        return await self.say(await self.conversation(), text, **turn)

    async def claim(
        self, limit: int = 100, owner: str = "worker:test", lease: float = 30, lane: str = "default"
    ) -> list[Claim]:
        return await claim(self.database, lane=lane, limit=limit, owner=owner, lease_seconds=lease)

    async def one(self, **turn: Any) -> Claim:
        """A claimed run in a conversation of its own."""
        accepted = await self.queued(**turn)
        return next(each for each in await self.claim() if each.run_id == accepted.run_id)

    async def settle(self, of: Claim | Accepted, outcome: Outcome, who: Any = None) -> Settled | None:
        async with self.database.engine_tx() as connection:
            return await settle(connection, self.settings, of.run_id, of.conversation_id, outcome, who=who)

    async def lapse(self, run_id: UUID) -> None:
        """Let a run's lease run out, as if its holder had died."""
        await self.database.execute(
            "update runs set lease_until = now() - interval '1 second' where id = $1 and state = 'running'", run_id
        )

    async def recover(self, *, cap: int = 3) -> list[Recovered]:
        return await recover(self.database, lease_seconds=0, crash_cap=cap)

    # --- looking -------------------------------------------------------------------------------------

    async def run(self, run_id: UUID) -> Row:
        row = await self.database.fetchrow("select * from runs where id = $1", run_id)
        assert row is not None
        return row

    async def head(self, conversation_id: UUID) -> Row:
        row = await self.database.fetchrow("select * from heads where conversation_id = $1", conversation_id)
        assert row is not None
        return row

    async def messages(self, conversation_id: UUID) -> list[Row]:
        return await self.database.fetch(
            "select * from messages where conversation_id = $1 order by seq", conversation_id
        )

    async def said(self, conversation_id: UUID) -> list[tuple[str, str]]:
        return [(row["role"], row["text"]) for row in await self.messages(conversation_id)]

    async def calls(self, conversation_id: UUID) -> list[Row]:
        return await self.database.fetch(
            "select * from tool_calls where conversation_id = $1 order by message_seq, call_index, sub_index",
            conversation_id,
        )

    async def events(self, conversation_id: UUID) -> list[StoredEvent]:
        return await replay(self.database, conversation_id, 0, limit=100_000)

    async def types(self, conversation_id: UUID) -> list[str]:
        return [str(event.type) for event in await self.events(conversation_id)]

    async def ended(self, run_id: UUID, seconds: float = 20) -> Row:
        """The run's row once it is terminal."""
        return await self.until(run_id, lambda row: row["state"] in TERMINAL_STATES, seconds)

    async def until(self, run_id: UUID, met: Callable[[Row], bool], seconds: float = 20) -> Row:
        async with asyncio.timeout(seconds):
            while not met(row := await self.run(run_id)):
                await asyncio.sleep(0.01)
        return row

    async def check(self) -> None:
        """What must hold of every conversation at any time between transactions."""
        for head in await self.database.fetch("select * from heads"):
            await self._check_numbers(head)
            await self._check_runs(head)

    async def _check_numbers(self, head: Row) -> None:
        for table in ("events", "messages"):
            rows = await self.database.fetch(
                f"select seq from {table} where conversation_id = $1 order by seq", head["conversation_id"]
            )
            last = head[f"{table[:-1]}_seq"]
            assert [row["seq"] for row in rows] == list(range(1, last + 1)), f"{table} of {head['conversation_id']}"

    async def _check_runs(self, head: Row) -> None:
        runs = await self.database.fetch(
            "select id, state, ready, number from runs where conversation_id = $1 order by number",
            head["conversation_id"],
        )
        live = [run for run in runs if run["state"] not in TERMINAL_STATES]
        assert head["open_runs"] == len(live)
        assert head["run_no"] == len(runs)
        assert len([run for run in live if run["ready"]]) == (1 if live else 0), live
        running = [run["id"] for run in live if run["state"] == "running"]
        assert [head["active_run_id"]] == (running or [None])
        assert [head["state"]] == ([run["state"] for run in live if run["ready"]] or ["idle"])
        ends = await self.database.fetch(
            "select run_id, count(*) as n from events where conversation_id = $1 "
            "and type in ('run.completed', 'run.failed', 'run.cancelled') group by run_id",
            head["conversation_id"],
        )
        terminal = {run["id"] for run in runs} - {run["id"] for run in live}
        assert {row["run_id"]: row["n"] for row in ends} == dict.fromkeys(terminal, 1)


# --- models and tools that do as they are told -----------------------------------------------------------


def scripted(name: str, script: Script, *, pause: float = 0.0) -> str:
    """Register a model; it streams the text of what the script answers in words."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        response = script(messages, info)
        return await response if asyncio.iscoroutine(response) else response  # type: ignore[return-value]

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        response = await answer(messages, info)
        for index, part in enumerate(response.parts):
            if part.part_kind == "text":
                for word in _pieces(part.content):
                    yield word
                    await asyncio.sleep(pause)
            elif part.part_kind == "tool-call":
                yield {
                    index: DeltaToolCall(
                        name=part.tool_name, json_args=part.args_as_json_str(), tool_call_id=part.tool_call_id
                    )
                }

    Providers.register(name, lambda: FunctionModel(answer, stream_function=stream, model_name=name))
    return f"scripted:{name}"


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)]


def in_turn(*responses: ModelResponse | Exception) -> Script:
    """A script that answers by how many responses the history holds since the last prompt."""

    def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        given = sum(isinstance(message, ModelResponse) for message in messages)
        response = responses[given]
        if isinstance(response, Exception):
            raise response
        return response

    return script


@asynccontextmanager
async def tools(*made: Tool) -> AsyncIterator[None]:
    """These tools are built in for a while."""
    before = dict(INSTALLED)
    INSTALLED.update({tool.name: tool for tool in made})
    try:
        yield
    finally:
        INSTALLED.clear()
        INSTALLED.update(before)


def tool(
    name: str,
    work: Callable[..., Awaitable[Any]],
    *,
    idempotent: bool = True,
    risk: Risk = Risk.READ,
    timeout_seconds: float = 5.0,
) -> Tool:
    """A tool with any arguments."""
    return Tool(
        name=name,
        description=name,
        parameters={"type": "object", "properties": {}, "additionalProperties": True},
        risk=risk,
        idempotent=idempotent,
        call=work,
        timeout_seconds=timeout_seconds,
    )


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    """An empty world."""
    return World(database, settings)


@pytest.fixture
async def engine(world: World, settings: Settings) -> AsyncIterator[Engine]:
    """A started engine, as the API process and the workers open one."""
    async with Engine.open(settings, kind="test") as opened:
        yield opened
