"""The channels there are. A new one is a file beside this and a line here."""

from app.errors import ConfigurationError
from app.notifications import config
from app.notifications.channel import Address, Channel
from app.notifications.config import NotificationConfig
from app.notifications.email import EmailChannel
from app.notifications.slack import SlackChannel
from app.notifications.webhook import WebhookChannel

CHANNELS: dict[str, type[Channel]] = {
    "email": EmailChannel,
    "slack": SlackChannel,
    "webhook": WebhookChannel,
}


def addresses(channel: str, config: NotificationConfig, *, default_slack: bool) -> list[Address]:
    """Where a config sends to by a channel; by one whose extension was taken away nowhere, and that is said."""
    if channel not in CHANNELS:
        return [Address(channel, f"this version has no channel {channel!r}")]
    return CHANNELS[channel].addresses(config, default_slack=default_slack)


def add_channel(name: str, kind: type[Channel]) -> None:
    """Offer a channel of an extension to every task.

    Raises:
        ConfigurationError: when there is another of that name.
    """
    if CHANNELS.setdefault(name, kind) is not kind:
        raise ConfigurationError(f"there is a channel called {name} already")
    config.EXTENDED[name] = None
