"""Webhooks of tasks: where other systems call in, in their own ways."""

import contextlib
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app import triggers
from app.api.access import count_forger, edge_of, engine_of
from app.api.strict import is_json, joined_headers, raw_body, read_json, resource
from app.errors import ParleyError, Unauthenticated, UnsupportedMediaType, WebhookRefused
from app.executor import Engine
from app.identity import Principal
from app.triggers import Call, Received

router = resource("webhooks")

PATH = "/tasks/webhooks/"
MAX_BYTES = 1_000_000
SERVER_ERROR = 500
NOBODY = UUID(int=0)
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {}, "example": {"action": "opened", "number": 7}}},
    }
}


class ReceivedOut(BaseModel):
    """What became of a webhook call."""

    model_config = ConfigDict(from_attributes=True)

    receipt_id: UUID
    outcome: str = Field(description="run, duplicate or filtered.")
    run_id: UUID | None = Field(description="Null when the call was filtered.")
    conversation_id: UUID | None


@router.post(
    PATH + "{task_id}",
    status_code=202,
    summary="Call a task's webhook",
    response_model=ReceivedOut,
    responses={200: {"model": ReceivedOut, "description": "Nothing new was started: a repeat, or filtered."}},
    openapi_extra=BODY,
)
async def call_webhook(task_id: str, request: Request, response: Response) -> ReceivedOut | Response:
    """Takes any JSON that its task's `trigger_config` lets in: signed, with a secret, or unsigned.

    The verifiers `standard`, `github`, `stripe` and `slack` know where their senders put the id of a delivery; else it is
    looked for in `webhook-id`, `svix-id`, `X-GitHub-Delivery`, `X-Gitlab-Event-UUID`, `X-Shopify-Webhook-Id`,
    `X-Delivery-Id`, `X-Event-Id` or `Idempotency-Key`. A repeat finds the same run.
    """
    engine, task = engine_of(request), _task_id(task_id)
    try:
        received = await _receive(engine, task, request)
    except ParleyError as error:
        await _refused(request, task, error)
        raise
    if received.challenge is not None:
        return JSONResponse({"challenge": received.challenge})
    if received.accepted:
        engine.welcome(received.accepted)
        response.headers["Location"] = f"/runs/{received.run_id}"
    else:
        response.status_code = 200
    return ReceivedOut.model_validate(received)


async def _receive(engine: Engine, task_id: UUID, request: Request) -> Received:
    """Verify the raw body; only what came from the sender is read as JSON."""
    call = await _read(request)
    task = await triggers.admit(engine.database, engine.settings, task_id, call)
    return await triggers.receive(engine.database, engine.settings, task, call, read_json(call.body))


async def _read(request: Request) -> Call:
    headers = joined_headers(request)
    if not is_json(headers.get("content-type", "")):
        raise UnsupportedMediaType
    return Call(
        headers=headers,
        token=",".join(request.query_params.getlist("token")),
        body=await raw_body(request, MAX_BYTES),
        principal=await _principal(request),
    )


async def _refused(request: Request, task_id: UUID, error: ParleyError) -> None:
    """Keep a receipt of a call that was refused, and count who makes them: of too many, none is kept."""
    if error.status >= SERVER_ERROR:
        return
    unverified = isinstance(error, WebhookRefused)
    if unverified:
        await count_forger(request)
    reason = "the call could not be verified" if unverified else error.detail
    await triggers.refuse(engine_of(request).database, task_id, reason)


async def _principal(request: Request) -> Principal | None:
    """Whose API key came along; without authentication there are none, and a secret is no key."""
    engine = engine_of(request)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not engine.settings.auth_on or scheme.lower() != "bearer":
        return None
    with contextlib.suppress(Unauthenticated):
        return await edge_of(request).doorkeeper.authenticate(key.strip())
    return None


def _task_id(text: str) -> UUID:
    # What is no id at all gets the answer of an unknown one.
    try:
        return UUID(text)
    except ValueError:
        return NOBODY
