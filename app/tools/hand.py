"""Calls by hand: a person tries a tool, outside any run. They have a ledger row, and no conversation."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import structlog
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest

from app import artifacts
from app.artifacts import NewArtifact
from app.credentials import Credentials
from app.db import Database, dump_json
from app.egress import Egress
from app.errors import InvalidArguments, ParleyError, ToolError
from app.knowledge.library import Library
from app.knowledge.memories import Memories
from app.messages import clean_text
from app.models import new_id
from app.providers import Providers, cost_of, default_model
from app.redaction import without_known
from app.settings import Settings
from app.tools.clock import CallClock
from app.tools.invoke import invoke, kept, said_of_timeout
from app.tools.mcp_sessions import Sessions
from app.tools.tool import Park, Tool

log = structlog.stdlib.get_logger(__name__)

RECORD = """
insert into tool_calls (id, workspace_id, tool_call_id, tool, tool_version, arguments, args_sha256, state, idempotent,
    risk, fence, result, error, duration_ms, cost_usd, artifact_id, started_at, finished_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, $13, $14, $15, now() - make_interval(secs => $13::float / 1000), now())
"""


@dataclass
class HandContext:
    """The `ToolContext` of a call by hand."""

    workspace_id: UUID
    settings: Settings
    egress: Egress
    credentials: Credentials
    sessions: Sessions
    memories: Memories
    documents: Library
    providers: Providers
    effect_key: UUID
    database: Database
    tools: Mapping[str, Tool]
    clock: CallClock
    conversation_id: UUID | None = None
    run_id: UUID | None = None
    principal_id: UUID | None = None
    cost_usd: Decimal | None = Decimal(0)  # None once a price is unknown.
    artifact_id: UUID | None = None  # Of the last file it kept.

    async def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Nobody watches."""
        del text, done, total

    async def propose(self, patch: dict[str, Any]) -> None:
        """Refuse: there is no application to hand it to.

        Raises:
            ToolError: always.
        """
        del patch
        raise ToolError("propose_state works inside a sidekick conversation only")

    async def keep(self, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        """Keep a file as an artifact of the workspace.

        Raises:
            ToolError: when it can't be kept.
        """
        artifact = NewArtifact(
            id=uuid5(self.effect_key, name),
            workspace_id=self.workspace_id,
            name=name,
            media_type=media_type,
            content=content,
            principal_id=self.principal_id,
        )
        try:
            artifacts.checked(artifact, self.settings)
        except ParleyError as error:
            raise ToolError(error.detail) from error
        async with self.database.connection() as connection:
            await artifacts.insert(connection, artifact)
        self.artifact_id = artifact.id
        return artifact.shown

    @property
    def model_name(self) -> str:
        """The default model."""
        return default_model(self.settings)[0]

    async def complete(self, prompt: str) -> str:
        """Ask the default model once."""
        model = await self.providers.load(self.model_name)
        response = await model_request(model, [ModelRequest.user_text_prompt(prompt)])
        self.spend(cost_of(response))
        return "".join(part.content for part in response.parts if part.part_kind == "text")

    def spend(self, cost_usd: Decimal | None) -> None:
        """What the call cost, None where the price is unknown."""
        self.cost_usd = None if self.cost_usd is None or cost_usd is None else self.cost_usd + cost_usd

    async def notify(self, text: str, channel: str | None) -> str:
        """Refuse: a notification belongs to a conversation.

        Raises:
            ToolError: always.
        """
        del text, channel
        raise ToolError("notify works inside a conversation only")

    async def schedule_task(self, prompt: str, schedule_expression: str, timezone: str) -> str:
        """Refuse: a task made by a tool belongs to a conversation.

        Raises:
            ToolError: always.
        """
        del prompt, schedule_expression, timezone
        raise ToolError("schedule_task works inside a conversation only; use POST /tasks")

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call another tool from the code of this one, with a row of its own.

        Raises:
            ToolError: when the call failed.
        """
        tool = self.tools[name]
        inner = replace(self, effect_key=new_id(), tools={}, clock=CallClock(tool.timeout_seconds))
        with self.clock.standing_still():
            executed = await execute(inner, tool, arguments)
        if executed.error is not None:
            raise ToolError(executed.error)
        return executed.result


@dataclass(frozen=True)
class Executed:
    """How a call by hand ended."""

    result: Any
    duration_ms: float
    error: str | None


async def execute(
    context: HandContext, tool: Tool, arguments: dict[str, Any], *, version: int | None = None
) -> Executed:
    """Call a tool and write the call down.

    Raises:
        InvalidArguments: naming the argument; such a call is not written down.
    """
    began = time.monotonic()
    result, error, state = await _outcome(context, tool, arguments)
    executed = Executed(result, round((time.monotonic() - began) * 1000, 2), error)
    await context.database.execute(
        RECORD,
        context.effect_key,
        context.workspace_id,
        f"hand_{context.effect_key.hex}",
        tool.name,
        version,
        arguments,
        hashlib.sha256(dump_json(arguments).encode()).hexdigest(),
        state,
        tool.idempotent,
        tool.risk.value,
        executed.result,
        error,
        executed.duration_ms,
        context.cost_usd,
        context.artifact_id,
    )
    return executed


async def _outcome(context: HandContext, tool: Tool, arguments: dict[str, Any]) -> tuple[Any, str | None, str]:
    """Result, error, and the state of the ledger's row."""
    try:
        async with context.clock:
            result = await kept(tool, context, await invoke(tool, context, arguments))
            context.spend(tool.cost_usd)
            return result, None, "done"
    except InvalidArguments:
        raise
    except TimeoutError:
        said = said_of_timeout(tool)
        if tool.idempotent:
            return None, said, "failed"
        return None, f"{said}; whether it took effect is unknown", "unknown"
    except Park:
        return None, f"{tool.name} works inside a conversation only", "failed"
    except ParleyError as error:
        return None, clean_text(without_known(error.detail, context.workspace_id), 2000), "failed"
    except Exception as error:
        failure = context.providers.failure(error)
        log.warning("tool.broke", tool=tool.name, exc_info=error)
        return None, failure.detail, "failed"
