"""The webhook channel: a call to `callback_url`, signed as Standard Webhooks 1.0 says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hmac
import time
from typing import Any

from app.db import dump_json
from app.errors import ConfigurationError, DeliveryRefused, Unreadable
from app.notifications.channel import Address, Envelope, Means, SendResult
from app.notifications.config import NotificationConfig, callback_secrets
from app.notifications.http import post
from app.notifications.text import cut, one_line
from app.notifications.words import headline
from app.verifiers import standard_key

MAX_RESULT = 20_000
DIGEST_IDS = ("event", "conversation_id", "run_id", "seq", "delivery_id")


class WebhookChannel:
    """Posts an event to a URL of the task's own."""

    def __init__(self, means: Means) -> None:
        """Post through the egress guard."""
        self._means = means

    @staticmethod
    def addresses(config: NotificationConfig, *, default_slack: bool) -> list[Address]:
        """The URL without its query, which may hold a secret."""
        del default_slack
        return [Address((config.callback_url or "").partition("?")[0])]

    async def send(self, envelope: Envelope) -> SendResult:
        """Post one event; a repeat has the same `webhook-id`."""
        config = envelope.config or {}
        url = config.get("callback_url")
        if not url or url.partition("?")[0] != envelope.address:
            raise DeliveryRefused("the task has no such callback_url any more")
        body = dump_json(event_of(envelope, thin=config.get("callback_payload") == "thin")).encode()
        headers = {"content-type": "application/json"}
        headers |= signed(f"msg_{envelope.delivery_id}", body, self._secrets(envelope))
        await post(self._means.egress, url, "the receiver", content=body, headers=headers)
        return SendResult()

    def _secrets(self, envelope: Envelope) -> list[str]:
        notice = envelope.notice
        if notice.task_id is None:
            return []
        try:
            return callback_secrets(
                envelope.config, self._means.box, workspace=notice.workspace_id, task=notice.task_id
            )
        except (Unreadable, ConfigurationError) as error:
            raise DeliveryRefused(f"the task's callback_secret can't be read: {error.detail}") from error


def event_of(envelope: Envelope, *, thin: bool) -> dict[str, Any]:
    """The call's body: `{type, timestamp, data}`."""
    notice = envelope.notice
    ids = {
        "conversation_id": notice.conversation_id,
        "run_id": notice.run_id,
        "task_id": notice.task_id,
        "delivery_id": envelope.delivery_id,
        "seq": notice.event_seq,
    }
    data: dict[str, Any] = {
        name: str(value) if name != "seq" else value for name, value in ids.items() if value is not None
    }
    told = [{name: each[name] for name in DIGEST_IDS if each.get(name) is not None} for each in notice.digest]
    if notice.digest:
        data["messages"] = told if thin else list(notice.digest)
    if not thin:
        data |= {
            "title": one_line(headline(notice), 300),
            "result": cut(notice.text, MAX_RESULT),
            "error": notice.error,
            "agent": notice.agent,
            "model": notice.model,
            "recovered": notice.recovered,
            "questions": list(notice.asked),
            "url": notice.read_url,
            "api_url": notice.api_url,
            "answer_url": notice.answer_url,
            "unsubscribe_url": envelope.unsubscribe_url,
            "files": [
                {"name": file.name, "media_type": file.media_type, "size": file.size, "url": file.url}
                for file in envelope.linked
            ],
        }
    at = notice.finished_at.isoformat().replace("+00:00", "Z") if notice.finished_at else None
    return {"type": notice.event, "timestamp": at, "data": data}


def signed(message_id: str, body: bytes, secrets: list[str], *, now: float | None = None) -> dict[str, str]:
    """The headers of a call; each secret signs, so that a receiver may know the old or the new one."""
    instant = str(int(time.time() if now is None else now))
    headers = {"webhook-id": message_id, "webhook-timestamp": instant}
    to_sign = f"{message_id}.{instant}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(standard_key(secret), to_sign, "sha256")).decode() for secret in secrets]
    return headers | ({"webhook-signature": " ".join(f"v1,{each}" for each in signatures)} if signatures else {})
