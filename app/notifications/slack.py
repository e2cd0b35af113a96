"""Slack: by the bot token into a channel, else by an incoming webhook, the task's own or the server's default."""

from app.errors import ConfigurationError, DeliveryRefused, Unreadable
from app.notifications.channel import Address, Envelope, Means, SendResult
from app.notifications.config import NotificationConfig, slack_url
from app.notifications.http import post
from app.notifications.slack_bot import Bot
from app.notifications.slack_message import render_slack

WEBHOOK = "slack:"
DEFAULT_LABEL = f"{WEBHOOK}default"
ALERTS_LABEL = f"{WEBHOOK}alerts"


class SlackChannel:
    """Posts to a channel or to an incoming webhook. That URL is a secret: no row, log or error holds it."""

    def __init__(self, means: Means) -> None:
        """Post through the egress guard."""
        self._means = means
        self._bot = Bot(means)

    @staticmethod
    def addresses(config: NotificationConfig, *, default_slack: bool) -> list[Address]:
        """The task's channel, its webhook by its mask, else the server's."""
        if config.slack_channel:
            return [Address(config.slack_channel)]
        if config.slack_webhook_url:
            return [Address(f"{WEBHOOK}{config.slack_webhook_url}")]
        problem = None if default_slack else "the task has no slack_webhook_url and SLACK_WEBHOOK_URL is not set"
        return [Address(DEFAULT_LABEL, problem)]

    async def send(self, envelope: Envelope) -> SendResult:
        """Post one notice."""
        if not envelope.address.startswith(WEBHOOK):
            return await self._bot.send(envelope)
        url, is_default = self._url(envelope)
        body = render_slack(envelope.notice, envelope.linked, mute_url=envelope.unsubscribe_url)
        await post(self._means.egress, url, "Slack", json=body, operator_url=is_default)
        return SendResult()

    def _url(self, envelope: Envelope) -> tuple[str, bool]:
        notice, settings = envelope.notice, self._means.settings
        if envelope.address == DEFAULT_LABEL:
            if settings.slack_webhook_url is None:
                raise DeliveryRefused("SLACK_WEBHOOK_URL is not set any more")
            return settings.slack_webhook_url.get_secret_value(), True
        if envelope.address == ALERTS_LABEL:
            if settings.parley_alert_slack_webhook_url is None:
                raise DeliveryRefused("PARLEY_ALERT_SLACK_WEBHOOK_URL is not set any more")
            return settings.parley_alert_slack_webhook_url.get_secret_value(), True
        if notice.task_id is None:
            raise DeliveryRefused("no task is left to take the Slack URL from")
        try:
            url = slack_url(envelope.config, self._means.box, workspace=notice.workspace_id, task=notice.task_id)
        except (Unreadable, ConfigurationError) as error:
            raise DeliveryRefused(f"the task's Slack URL can't be read: {error.detail}") from error
        if url is None:
            raise DeliveryRefused("the task has no Slack URL any more")
        return url, False
