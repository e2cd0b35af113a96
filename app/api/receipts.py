"""Receipts: the webhook calls of a task, and calls that are taken again."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from app import audit, tasks, triggers
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.models import new_id

router = resource("webhooks")


class ReceiptOut(BaseModel):
    """One inbound webhook call."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    task_id: UUID
    received_at: datetime
    outcome: Literal["run", "duplicate", "filtered", "refused"]
    reason: str | None
    run_id: UUID | None
    replay_of: UUID | None = Field(description="The receipt of the call that was taken again.")


class WholeReceipt(ReceiptOut):
    """One inbound webhook call with what it said."""

    payload: Any | None = Field(
        validation_alias="body", serialization_alias="payload", description="Null of a refused or repeated call."
    )


@router.get("/tasks/{task_id}/receipts", summary="The webhook calls of a task")
async def list_receipts(
    task_id: UUID, caller: Annotated[Caller, may("tasks:read")], page: Annotated[PageOf, paged("receipts")]
) -> Page[ReceiptOut]:
    """Newest first; of refused calls the last hundred. `refused_calls` of the task counts them all."""
    async with caller.transaction() as session:
        found = await tasks.receipts(session, caller.workspace_id, task_id, after=page.after, limit=page.fetch)
    return page.cut(found, ReceiptOut.model_validate)


@router.get("/tasks/{task_id}/receipts/{receipt_id}", summary="A webhook call")
async def get_receipt(task_id: UUID, receipt_id: UUID, caller: Annotated[Caller, may("tasks:read")]) -> WholeReceipt:
    """With its payload."""
    async with caller.transaction() as session:
        found = await tasks.receipt(session, caller.workspace_id, task_id, receipt_id)
    return WholeReceipt.model_validate(found)


@router.post(
    "/tasks/{task_id}/receipts/{receipt_id}/replay",
    status_code=202,
    summary="Replay a webhook call",
    responses={200: {"model": ReceiptOut, "description": "Nothing was started: filtered."}},
)
async def replay_receipt(
    task_id: UUID,
    receipt_id: UUID,
    response: Response,
    caller: Annotated[Caller, may("tasks:write")],
    key: Idempotent,
) -> ReceiptOut:
    """Takes an accepted or filtered call again, as the task is now, even when it is disabled. Answers the new receipt."""
    replay_id = new_id()
    async with caller.database.engine_tx("webhook") as connection:
        if repeat := await key.claim(connection, caller, "receipt", replay_id):
            replay_id, accepted = repeat.uuid, None
        else:
            who = {"principal_id": caller.principal.id, "replay_id": replay_id}
            received = await triggers.replay(
                connection, caller.settings, caller.workspace_id, task_id, receipt_id, **who
            )
            accepted = received.accepted
            entry = caller.entry("task.replay", "task", task_id, receipt_id=str(receipt_id))
            await audit.record_engine(connection, entry)
    if accepted:
        caller.engine.welcome(accepted)
    async with caller.transaction() as session:
        found = await tasks.receipt(session, caller.workspace_id, task_id, replay_id)
    if found.run_id:
        response.headers["Location"] = f"/runs/{found.run_id}"
    else:
        response.status_code = 200
    return ReceiptOut.model_validate(found)
