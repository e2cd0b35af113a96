"""The webhook channel, against a receiver on loopback and the checks that receivers really use."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from openai import InvalidWebhookSignatureError, OpenAI

from app.errors import DeliveryFailed, DeliveryRefused
from app.notifications import NotificationConfig
from app.notifications.channel import Envelope, Means
from app.notifications.webhook import WebhookChannel, signed
from tests.loopback import Site, answer, serving
from tests.notifications.conftest import CONVERSATION, DELIVERY, RUN, TASK, WORKSPACE, make_envelope, make_notice

MakeMeans = Callable[..., Means]
NEW = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OLD = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba98").decode()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        site.answers["/hook"] = answer(b"thanks")
        site.answers["/hook?token=abc"] = answer(b"thanks")
        yield site


def envelope(means: Means, site: Site, path: str = "/hook", **values: Any) -> Envelope:
    config = NotificationConfig.model_validate({"callback_url": site.url(path), **values})
    stored = config.stored(means.box, workspace=WORKSPACE, task=TASK)
    [address] = WebhookChannel.addresses(config, default_slack=False)
    return make_envelope(make_notice(), address.label, config=stored)


def headers_of(site: Site) -> dict[str, str]:
    lines = site.heads[-1].split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def allowed(means: MakeMeans, site: Site) -> Means:
    return means(parley_egress_allow=f"127.0.0.1:{site.port}")


async def test_the_call_says_what_happened(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    await WebhookChannel(sent_by).send(envelope(sent_by, site, callback_secret=NEW))
    body = json.loads(site.bodies[0])
    assert list(body) == ["type", "timestamp", "data"]
    assert body["type"] == "run.completed"
    assert body["data"]["run_id"] == str(RUN)
    assert body["data"]["conversation_id"] == str(CONVERSATION)
    assert body["data"]["result"] == "All is **well**."
    assert site.heads[0].startswith("POST /hook ")
    assert headers_of(site)["webhook-id"] == f"msg_{DELIVERY}"
    assert headers_of(site)["content-type"] == "application/json"


async def test_a_thin_call_has_the_ids_alone(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    await WebhookChannel(sent_by).send(envelope(sent_by, site, callback_payload="thin"))
    data = json.loads(site.bodies[0])["data"]
    assert sorted(data) == ["conversation_id", "delivery_id", "run_id", "seq", "task_id"]


@pytest.mark.parametrize("thin", [False, True])
async def test_a_digest_tells_its_receiver_of_every_message(means: MakeMeans, site: Site, thin: bool) -> None:
    sent_by = allowed(means, site)
    entry = {"event": "run.failed", "conversation_id": str(CONVERSATION), "run_id": str(RUN), "seq": 7}
    entry |= {
        "delivery_id": str(TASK),
        "title": "Failed: Report",
        "text": "no",
        "url": "https://x",
        "at": "2026-11-20T09:05:00Z",
    }
    of = envelope(sent_by, site, callback_payload="thin" if thin else "full")
    at = datetime(2026, 11, 20, 9, 10, tzinfo=UTC)
    notice = replace(of.notice, event="digest", text="", run_id=None, digest=(entry, entry), finished_at=at)
    await WebhookChannel(sent_by).send(replace(of, notice=notice))
    body = json.loads(site.bodies[0])
    assert (body["type"], body["timestamp"]) == ("digest", "2026-11-20T09:10:00Z")
    ids = {name: entry[name] for name in ("event", "conversation_id", "run_id", "seq", "delivery_id")}
    assert body["data"]["messages"] == [ids if thin else entry] * 2


async def test_a_long_page_is_no_success_of_a_call_that_failed(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    site.answers["/hook"] = answer(b"x" * 600_000)
    assert (await WebhookChannel(sent_by).send(envelope(sent_by, site))).detail is None
    site.answers["/hook"] = answer(b"x" * 600_000, status="500 Oops")
    with pytest.raises(DeliveryFailed, match="the receiver answered 500"):
        await WebhookChannel(sent_by).send(envelope(sent_by, site))


async def test_receivers_accept_the_signature_of_the_new_and_of_the_old_secret(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    await WebhookChannel(sent_by).send(envelope(sent_by, site, callback_secret=[NEW, OLD]))
    headers, body = headers_of(site), site.bodies[0]
    for secret in (NEW, OLD):
        assert standardwebhooks.Webhook(secret).verify(body, headers)["type"] == "run.completed"
        with OpenAI(api_key="none", webhook_secret=secret) as client:
            assert client.webhooks.unwrap(body.decode(), headers).type == "run.completed"
    other = "whsec_" + base64.b64encode(b"another secret altogether").decode()
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(other).verify(body, headers)
    with OpenAI(api_key="none", webhook_secret=other) as client, pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.verify_signature(body.decode(), headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(NEW).verify(body + b" ", headers)


def test_the_published_vector_of_standard_webhooks() -> None:
    """The example of the specification's libraries: secret, id, timestamp, payload and signature."""
    headers = signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        now=1614265330,
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_without_a_secret_the_call_is_not_signed(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    await WebhookChannel(sent_by).send(envelope(sent_by, site))
    assert "webhook-signature" not in headers_of(site)


async def test_a_query_is_called_and_not_shown(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    sent = envelope(sent_by, site, "/hook?token=abc")
    assert sent.address == site.url("/hook")
    await WebhookChannel(sent_by).send(sent)
    assert site.heads[0].startswith("POST /hook?token=abc ")


@pytest.mark.parametrize("status", ["408 Timeout", "425 Early", "429 Slow", "500 Broken", "503 Away"])
async def test_what_may_work_later_is_tried_again(means: MakeMeans, site: Site, status: str) -> None:
    site.answers["/hook"] = answer(b"not now", status, Retry_After="9")
    sent_by = allowed(means, site)
    with pytest.raises(DeliveryFailed, match=f"the receiver answered {status[:3]} not now") as caught:
        await WebhookChannel(sent_by).send(envelope(sent_by, site))
    assert caught.value.retry_after == 9


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "400 Bad", "401 No", "404 Not Found", "410 Gone"])
async def test_what_never_will_is_final_and_no_redirect_is_followed(means: MakeMeans, site: Site, status: str) -> None:
    site.answers["/hook"] = answer(b"", status, Location=site.url("/elsewhere"))
    sent_by = allowed(means, site)
    with pytest.raises(DeliveryRefused, match=f"the receiver answered {status[:3]}"):
        await WebhookChannel(sent_by).send(envelope(sent_by, site))
    assert len(site.heads) == 1


async def test_the_guard_stands_before_the_call(means: MakeMeans, site: Site) -> None:
    sent_by = means()
    with pytest.raises(DeliveryRefused, match=r"egress: refused 127\.0\.0\.1"):
        await WebhookChannel(sent_by).send(envelope(sent_by, site))
    assert site.heads == []


async def test_a_receiver_that_drops_or_hangs_is_tried_again(
    means: MakeMeans, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.notifications.http.TIMEOUT_SECONDS", 0.2)
    sent_by = allowed(means, site)
    with pytest.raises(DeliveryFailed, match="did not answer within"):
        await WebhookChannel(sent_by).send(envelope(sent_by, site, "/slow"))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        gone = Site(port=server.sockets[0].getsockname()[1])
        with pytest.raises(DeliveryFailed):
            await WebhookChannel(allowed(means, gone)).send(envelope(sent_by, gone))


async def test_a_url_that_was_changed_since_is_not_called(means: MakeMeans, site: Site) -> None:
    sent_by = allowed(means, site)
    sent = make_envelope(make_notice(), "https://example.com/before", config=envelope(sent_by, site).config)
    with pytest.raises(DeliveryRefused, match="no such callback_url any more"):
        await WebhookChannel(sent_by).send(sent)
