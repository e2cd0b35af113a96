"""Slack's incoming webhook, played by a server on loopback."""

from collections.abc import Callable
from typing import Any

import pytest

from app.errors import DeliveryFailed, DeliveryRefused
from app.notifications import NotificationConfig
from app.notifications.channel import Envelope, Means
from app.notifications.slack import DEFAULT_LABEL, SlackChannel
from tests.notifications.conftest import TASK, WORKSPACE, make_envelope, make_notice
from tests.notifications.servers import SlackStandIn

MakeMeans = Callable[..., Means]


def own_webhook(means: Means, url: str, **values: Any) -> Envelope:
    config = NotificationConfig.model_validate({"channels": ["slack"], "slack_webhook_url": url})
    stored = config.stored(means.box, workspace=WORKSPACE, task=TASK)
    return make_envelope(make_notice(**values), "slack:****WXYZ", config=stored)


async def test_the_tasks_webhook_gets_the_blocks(means: MakeMeans, slack: SlackStandIn) -> None:
    sent_by = means(parley_egress_allow=f"127.0.0.1:{slack.port}")
    assert (await SlackChannel(sent_by).send(own_webhook(sent_by, slack.url))).detail is None
    (body,) = slack.received
    assert body["text"] == "Completed: Daily report"
    assert [block["type"] for block in body["blocks"]] == ["header", "section", "context"]


async def test_the_servers_webhook_is_the_default(means: MakeMeans, slack: SlackStandIn) -> None:
    sent_by = means(slack_webhook_url=slack.url)
    await SlackChannel(sent_by).send(make_envelope(make_notice(), DEFAULT_LABEL))
    assert len(slack.received) == 1


async def test_a_limit_is_tried_again_when_slack_says(means: MakeMeans, slack: SlackStandIn) -> None:
    slack.answers = [(429, {"Retry-After": "7"}, "ratelimited"), (503, {}, "down"), (408, {}, "")]
    sent_by = means(slack_webhook_url=slack.url)
    waits: list[float | None] = []
    for _ in range(3):
        with pytest.raises(DeliveryFailed) as caught:
            await SlackChannel(sent_by).send(make_envelope(make_notice(), DEFAULT_LABEL))
        waits.append(caught.value.retry_after)
    assert waits == [7.0, None, None]


@pytest.mark.parametrize(("status", "said"), [(400, "invalid_blocks"), (403, "no"), (404, "no_service"), (302, "")])
async def test_any_other_answer_is_final(means: MakeMeans, slack: SlackStandIn, status: int, said: str) -> None:
    slack.answers = [(status, {"Location": "http://127.0.0.1:1/"} if status == 302 else {}, said)]
    with pytest.raises(DeliveryRefused, match=f"Slack answered {status} {said}".strip()):
        await SlackChannel(means(slack_webhook_url=slack.url)).send(make_envelope(make_notice(), DEFAULT_LABEL))


async def test_a_refused_address_is_final_and_names_no_secret(means: MakeMeans, slack: SlackStandIn) -> None:
    sent_by = means()
    with pytest.raises(DeliveryRefused, match=r"egress: refused 127\.0\.0\.1") as caught:
        await SlackChannel(sent_by).send(own_webhook(sent_by, slack.url))
    assert "secret" not in caught.value.detail
    assert slack.received == []


async def test_a_server_that_is_away_is_tried_again(means: MakeMeans) -> None:
    async with SlackStandIn() as gone:
        pass
    with pytest.raises(DeliveryFailed) as caught:
        await SlackChannel(means(slack_webhook_url=gone.url)).send(make_envelope(make_notice(), DEFAULT_LABEL))
    assert "secret" not in caught.value.detail


async def test_a_webhook_that_is_gone_is_final(means: MakeMeans) -> None:
    sent_by = means()
    with pytest.raises(DeliveryRefused, match="SLACK_WEBHOOK_URL is not set"):
        await SlackChannel(sent_by).send(make_envelope(make_notice(), DEFAULT_LABEL))
    with pytest.raises(DeliveryRefused, match="no Slack URL any more"):
        await SlackChannel(sent_by).send(make_envelope(make_notice(), "slack:****WXYZ", config={"channels": ["slack"]}))
    moved = own_webhook(sent_by, "https://hooks.slack.com/services/x", workspace_id=TASK)
    with pytest.raises(DeliveryRefused, match="can't be read"):
        await SlackChannel(sent_by).send(moved)


def test_an_envelope_shows_no_secret(tmp_path: Any) -> None:
    assert "sealed" not in repr(make_envelope(make_notice(), config={"slack_webhook_url": {"sealed": "x"}}))
