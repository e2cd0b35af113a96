"""Webhooks of tasks: where other systems call in, in their own ways."""

import contextlib
from typing import Any
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app import triggers
from app.api.access import edge_of, engine_of
from app.api.limits import STRANGERS
from app.api.strict import is_json, read_json, resource
from app.errors import BodyTooLarge, Unauthenticated, UnsupportedMediaType, WebhookRefused
from app.identity import Principal
from app.triggers import Call

router = resource("webhooks")

MAX_BYTES = 1_000_000
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
    "/tasks/webhooks/{task_id}",
    status_code=202,
    summary="Call a task's webhook",
    responses={200: {"model": ReceivedOut, "description": "Nothing new was started: a repeat, or filtered."}},
    openapi_extra=BODY,
)
async def call_webhook(task_id: str, request: Request, response: Response) -> ReceivedOut:
    """Takes any JSON, as its task's `trigger_config` says: a bearer secret, a token in the URL or a header, or unsigned.

    A delivery id in `webhook-id`, `svix-id`, `X-GitHub-Delivery`, `X-Gitlab-Event-UUID`, `X-Shopify-Webhook-Id`,
    `X-Delivery-Id`, `X-Event-Id` or `Idempotency-Key` makes a repeat find the same run.
    """
    engine, call = engine_of(request), await _read(request)
    try:
        received = await triggers.receive(engine.database, engine.settings, _task_id(task_id), call)
    except WebhookRefused:
        await _count_stranger(request)
        raise
    if received.accepted:
        engine.welcome(received.accepted)
        response.headers["Location"] = f"/runs/{received.run_id}"
    else:
        response.status_code = 200
    return ReceivedOut.model_validate(received)


async def _read(request: Request) -> Call:
    if not is_json(request.headers.get("content-type", "")):
        raise UnsupportedMediaType
    body = await request.body()
    if len(body) > MAX_BYTES:
        raise BodyTooLarge(f"a webhook's body may have {MAX_BYTES} bytes")
    return Call(
        headers={name.lower(): value for name, value in request.headers.items()},
        token=request.query_params.get("token", ""),
        body=body,
        payload=read_json(body),
        principal=await _principal(request),
    )


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


async def _count_stranger(request: Request) -> None:
    if engine_of(request).settings.auth_on:
        address = request.client.host if request.client else "unknown"
        await edge_of(request).limits.check(STRANGERS, address)
