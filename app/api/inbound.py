"""Where Slack and the mail provider bring what people answer: signed, or with a secret of ours."""

import asyncio
import base64
import contextlib
import hmac
import time
from datetime import datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app import audit
from app.answers import (
    MAX_ADDRESS,
    Answered,
    Mailbox,
    NeutralMail,
    SlackDoor,
    answers_to,
    click_of,
    mail_of,
    message_of,
)
from app.api.access import Caller, count_forger, engine_of, may
from app.api.openapi import schema_of
from app.api.pages import Page, PageOf, paged
from app.api.strict import is_json, joined_headers, raw_body, read_json, resource
from app.conversations import lock
from app.errors import MalformedBody, NotAvailable, NotFound, UnsupportedMediaType, WebhookRefused
from app.executor import Engine
from app.notifications.replies import revoke_replies
from app.verifiers import Signed, slack

router = resource("answers")

Reads = Annotated[Caller, may("conversations:read")]
Writes = Annotated[Caller, may("conversations:write")]
Recipient = Annotated[str | None, Query(max_length=MAX_ADDRESS, description="Whose; all of them when it is left out.")]

PATHS = ("/slack/", "/email/inbound")
SLACK_BYTES = 1_000_000
MAIL_BYTES = 35_000_000  # The largest mail that Postmark posts.
REFUSED = "the call could not be verified"
JSON_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}
FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {"type": "object", "properties": {"payload": {"type": "string"}}, "required": ["payload"]}
            }
        },
    }
}
MAIL_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(NeutralMail)}}}
}


class AnsweredOut(BaseModel):
    """What became of an answer."""

    outcome: str = Field(
        description="message, decision, duplicate, refused; ignored: it is no answer to anything here."
    )
    reason: str | None = Field(default=None, description="Why it was refused.")
    run_id: UUID | None = Field(default=None, description="The run that answers it, or whose question it decides.")
    challenge: str | None = Field(default=None, description="Slack's, when it tries whether the URL is ours.")


class AnswerOut(BaseModel):
    """One answer from outside."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    conversation_id: UUID
    created_at: datetime
    channel: Literal["email", "slack"]
    sender: str = Field(description="The address, or the Slack id; `unknown` for a mail from none, or from several.")
    outcome: Literal["message", "decision", "refused"]
    reason: str | None = Field(description="Why it was refused.")
    told: bool = Field(description="Whether its sender was told so: once per conversation.")
    run_id: UUID | None


@router.get("/conversations/{conversation_id}/answers", summary="The answers to a conversation from mail and Slack")
async def list_answers(
    conversation_id: UUID, caller: Reads, page: Annotated[PageOf, paged("answers")]
) -> Page[AnswerOut]:
    """What became of each, newest first; of those that were refused the last hundred."""
    async with caller.transaction() as session:
        found = await answers_to(session, caller.workspace_id, conversation_id, after=page.after, limit=page.fetch)
    return page.cut(found, AnswerOut.model_validate)


@router.delete(
    "/conversations/{conversation_id}/reply-addresses", status_code=204, summary="Take no more answers by mail"
)
async def close_reply_addresses(conversation_id: UUID, caller: Writes, recipient: Recipient = None) -> None:
    """Closes the addresses that mails of this conversation are answered to, for good: later mails to the same people have none."""
    async with caller.database.engine_tx() as connection:
        await lock(connection, caller.workspace_id, conversation_id)
        await revoke_replies(connection, caller.workspace_id, conversation_id, recipient=recipient)
        done = caller.entry("conversation.close_replies", "conversation", conversation_id, recipient=recipient)
        await audit.record_engine(connection, done)


@router.post("/slack/events", summary="Take an event from Slack", openapi_extra=JSON_BODY)
async def slack_events(request: Request) -> AnsweredOut:
    """A person's message in a thread of ours becomes a message of its conversation; its answer goes to the same thread.

    Signed by `SLACK_SIGNING_SECRET`. Everything but such a message is `ignored`. Slack's retries are duplicates.
    """
    payload = read_json(await _from_slack(request, "application/json"))
    if not isinstance(payload, dict):
        raise MalformedBody("an event is a JSON object")
    event = cast("dict[str, Any]", payload)
    if event.get("type") == "url_verification":
        return AnsweredOut(outcome="ignored", challenge=str(event.get("challenge", ""))[:500])
    said, engine = message_of(event), engine_of(request)
    return await _done(engine, _slack(engine).message(said) if said else None)


@router.post("/slack/interactivity", summary="Take a click from Slack", openapi_extra=FORM_BODY)
async def slack_interactivity(request: Request) -> AnsweredOut:
    """A click on Approve or Deny decides the question; a second click finds it decided. Signed like events."""
    click = click_of(await _from_slack(request, "application/x-www-form-urlencoded"))
    engine = engine_of(request)
    return await _done(engine, _slack(engine).click(click) if click else None)


@router.post("/email/inbound", summary="Take a mail from the mail provider", openapi_extra=MAIL_BODY)
async def email_inbound(request: Request) -> AnsweredOut:
    """A mail to a reply address becomes a message of its conversation; its answer comes back in the same thread.

    With `EMAIL_INBOUND_SECRET` as password of HTTP Basic, or as bearer token. The body is Postmark's inbound webhook, or the
    form shown here.
    """
    engine = engine_of(request)
    secret = _configured(engine.settings.email_inbound_secret, "EMAIL_INBOUND_SECRET")
    if not _knows(request, secret):
        await _refuse(request)
    if not is_json(request.headers.get("content-type", "")):
        raise UnsupportedMediaType
    payload = await asyncio.to_thread(read_json, await raw_body(request, MAIL_BYTES))
    mail = await asyncio.to_thread(mail_of, payload)
    return await _done(engine, Mailbox(engine.database, engine.settings).take(mail))


def _slack(engine: Engine) -> SlackDoor:
    return SlackDoor(engine.database, engine.settings, engine.egress)


async def _done(engine: Engine, work: Any) -> AnsweredOut:
    """Do it, and what it asks for after its commit."""
    answered: Answered | None = None
    if work is not None:
        with contextlib.suppress(NotFound):  # The conversation was deleted meanwhile.
            answered = await work
    if answered is None:
        return AnsweredOut(outcome="ignored")
    if answered.accepted:
        engine.welcome(answered.accepted)
    if answered.settled:
        engine.tell(answered.settled)
    return AnsweredOut(outcome=answered.outcome, reason=answered.reason, run_id=answered.run_id)


async def _from_slack(request: Request, content_type: str) -> bytes:
    """The raw body of a call that Slack signed.

    Raises:
        WebhookRefused: when it did not.
    """
    secret = _configured(engine_of(request).settings.slack_signing_secret, "SLACK_SIGNING_SECRET")
    body = await raw_body(request, SLACK_BYTES)
    if not slack(Signed(joined_headers(request), body, time.time()), secret):
        await _refuse(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != content_type:
        raise UnsupportedMediaType(f"send {content_type}")
    return body


def _configured(secret: SecretStr | None, name: str) -> str:
    if secret is None:
        raise NotAvailable(f"answers are not taken here: {name} is not set")
    return secret.get_secret_value()


def _knows(request: Request, secret: str) -> bool:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    given = value.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # It is no base64, or not UTF-8.
            given = ""
    return hmac.compare_digest(given.encode(), secret.encode())


async def _refuse(request: Request) -> None:
    """Refuse a call, and count who makes such.

    Raises:
        WebhookRefused: always.
    """
    await count_forger(request)
    raise WebhookRefused(REFUSED)
