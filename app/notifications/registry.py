"""The channels there are. A new one is a file beside this and a line here."""

from app.notifications.channel import Channel
from app.notifications.email import EmailChannel
from app.notifications.slack import SlackChannel

CHANNELS: dict[str, type[Channel]] = {
    "email": EmailChannel,
    "slack": SlackChannel,
}
