"""Pause, drain and resume: no run of a scope starts; what arrives meanwhile is accepted and queues."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app import audit
from app.api.access import Caller, may, server_only
from app.api.strict import resource
from app.conversations import find_agent
from app.db import Connection
from app.errors import InvalidRequest, UnknownReference
from app.runs import hold, holds, lift

router = resource("operation")

Operator = Annotated[Caller, may("admin")]
Scope = Literal["all", "workspace", "agent", "task"]


class HoldBody(BaseModel):
    """What is held, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"scope": "agent", "ref": "assistant", "reason": "new key"}]}
    )

    scope: Scope
    ref: str | None = Field(None, max_length=200, description="The agent's name or id, or the task's id.")
    reason: str | None = Field(None, max_length=1000, description="Shown on every held run.")


class HoldOut(BaseModel):
    """A hold in force."""

    scope: Scope
    ref: UUID | None
    mode: Literal["pause", "drain"]
    reason: str | None
    created_at: datetime


class HoldsOut(BaseModel):
    """Every hold in force."""

    items: list[HoldOut]


@router.post("/pause", summary="Pause")
async def pause(body: HoldBody, caller: Operator) -> HoldsOut:
    """No run of the scope starts; running ones go back to the queue at their next step."""
    return await _hold(body, caller, "pause")


@router.post("/drain", summary="Drain")
async def drain(body: HoldBody, caller: Operator) -> HoldsOut:
    """No run of the scope starts; running ones finish."""
    return await _hold(body, caller, "drain")


@router.post("/resume", summary="Resume")
async def resume(body: HoldBody, caller: Operator) -> HoldsOut:
    """Runs of the scope start again, in the order they queued."""
    async with caller.database.engine_tx() as connection:
        ref = await _ref(connection, caller, body)
        await lift(connection, caller.workspace_id, body.scope, ref)
        await audit.record_engine(connection, caller.entry("hold.resume", body.scope, ref or body.scope))
        rows = await holds(connection, caller.workspace_id)
    caller.engine.bell.ring()
    return HoldsOut(items=[HoldOut.model_validate(dict(row)) for row in rows])


async def _hold(body: HoldBody, caller: Caller, mode: Literal["pause", "drain"]) -> HoldsOut:
    async with caller.database.engine_tx() as connection:
        ref = await _ref(connection, caller, body)
        await hold(
            connection,
            caller.workspace_id,
            body.scope,
            ref,
            mode,
            reason=body.reason,
            principal_id=caller.principal.id,
        )
        entry = caller.entry(f"hold.{mode}", body.scope, ref or body.scope, reason=body.reason)
        await audit.record_engine(connection, entry)
        rows = await holds(connection, caller.workspace_id)
    return HoldsOut(items=[HoldOut.model_validate(dict(row)) for row in rows])


async def _ref(connection: Connection, caller: Caller, body: HoldBody) -> UUID | None:
    """The row a scope names.

    Raises:
        InvalidRequest: it is missing, or there is none to name.
        MissingScope: it is everything, and the caller has a workspace of many.
        UnknownReference: it names nothing.
    """
    if body.scope == "all":
        server_only(caller, "the scope all is about every workspace, workspace about yours")
    if body.scope in ("all", "workspace"):
        if body.ref is not None:
            raise InvalidRequest(f"the scope {body.scope} takes no ref", field="ref")
        return None
    if body.ref is None:
        raise InvalidRequest(f"the scope {body.scope} needs a ref", field="ref")
    if body.scope == "agent":
        return (await find_agent(connection, caller.workspace_id, body.ref, field="ref")).id
    found = await connection.fetchval(
        "select id from tasks where workspace_id = $1 and id::text = $2 and deleted_at is null",
        caller.workspace_id,
        body.ref.lower(),
    )
    if found is None:
        raise UnknownReference(f"there is no task {body.ref!r}", field="ref")
    return found
