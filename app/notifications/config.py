"""Who wants to hear of what: the `notification_config` of a task.

A config is checked when it is written. What is stored holds the Slack URL sealed beside its mask, so
that showing a task opens no secret and sending the mask back changes nothing.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self, cast, get_args
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.credentials import Box, is_mask, mask
from app.egress import Policy
from app.errors import InvalidRequest, NotAvailable
from app.settings import Settings

FIELD = "notification_config"
SECRET_FIELD = f"{FIELD}.slack_webhook_url"
# Channels and fields of the contract that a later version brings.
LATER_CHANNELS = frozenset({"webhook"})
LATER_FIELDS = ("slack_channel", "callback_url", "callback_secret")
MAX_ADDRESSES = 20
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 500
SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)

Channel = Literal["email", "slack"]
EventName = Literal["started", "progress", "waiting", "completed", "failed", "cancelled", "recovered", "budget"]
DEFAULT_EVENTS: tuple[EventName, ...] = ("completed", "failed", "waiting")
EXTENDED: dict[str, None] = {}  # Channels that extensions add, in their order.

AllowsUrl = Callable[[str], bool]


def _refuse_later_channels(value: object) -> object:
    names = cast("list[object]", value if isinstance(value, list) else [])
    for position, name in enumerate(names):
        if isinstance(name, str) and name in LATER_CHANNELS:
            raise NotAvailable(
                f"the channel {name!r} is not offered yet; use email or slack", field=f"{FIELD}.channels.{position}"
            )
    return cast("object", value)


def _offered(name: str) -> str:
    """The name of a channel that there is."""
    known = [*get_args(Channel), *EXTENDED]
    if name not in known:
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": _either(known)})
    return name


def _either(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _listed(value: object) -> object:
    return cast("object", [value]) if isinstance(value, str) else value


def _address(value: str) -> str:
    """An e-mail address that can be put in a header as it stands."""
    local = value.rpartition("@")[0]
    if len(value) > 254 or len(local) > 64 or not ADDRESS.fullmatch(value):
        raise ValueError("not an e-mail address such as name@example.com (ASCII only)")
    return value


Address = Annotated[str, BeforeValidator(lambda value: _address(value) if isinstance(value, str) else value)]


ChannelName = Annotated[
    str, AfterValidator(_offered), WithJsonSchema({"type": "string", "enum": list(get_args(Channel))})
]


class NotificationConfig(BaseModel):
    """Which events of a task's runs are told to whom, and by which channels."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"channels": ["email"]}]})

    channels: Annotated[list[ChannelName], BeforeValidator(_refuse_later_channels), Field(max_length=10)] = Field(
        default_factory=list[str], description="Where to: email, slack. Left out: those with an address below."
    )
    email_address: Annotated[list[Address], BeforeValidator(_listed), Field(max_length=MAX_ADDRESSES)] | None = Field(
        None, description=f"One address, or a list of at most {MAX_ADDRESSES}."
    )
    slack_webhook_url: str | None = Field(
        None, max_length=MAX_URL, description="Incoming webhook; the server's default when left out. Shown masked."
    )
    slack_channel: str | None = Field(None, description="Not offered yet: needs a Slack bot token.")
    callback_url: str | None = Field(None, description="Not offered yet.")
    callback_secret: str | None = Field(None, description="Not offered yet.")
    on: list[EventName] = Field(
        default_factory=lambda: list(DEFAULT_EVENTS), description="Events; completed, failed and waiting by default."
    )

    @field_serializer("email_address")
    def _one_or_many(self, value: list[str] | None) -> str | list[str] | None:
        return value[0] if value and len(value) == 1 else value

    @model_validator(mode="before")
    @classmethod
    def _refuse_later_fields(cls, data: Any) -> Any:
        values = cast("dict[str, Any]", data if isinstance(data, dict) else {})
        for name in LATER_FIELDS:
            if values.get(name) is not None:
                raise NotAvailable(f"{name} is not offered yet", field=f"{FIELD}.{name}")
        return cast("Any", data)

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if "channels" not in self.model_fields_set:
            self.channels = [*_if(self.email_address, "email"), *_if(self.slack_webhook_url, "slack")]
        self.channels = list(dict.fromkeys(self.channels))
        self.on = list(dict.fromkeys(self.on))
        if self.email_address is not None:
            self.email_address = list({address.lower(): address for address in self.email_address}.values())
        if "email" in self.channels and not self.email_address:
            raise InvalidRequest("the email channel needs an address", field=f"{FIELD}.email_address")
        return self

    def check(self, *, default_slack: bool, allows_url: AllowsUrl) -> None:
        """Check what depends on the server's settings.

        Args:
            default_slack: Whether `SLACK_WEBHOOK_URL` is set.
            allows_url: Whether `PARLEY_EGRESS_ALLOW` lets a URL through that is not Slack's.

        Raises:
            InvalidRequest: naming the field.
        """
        url = self.slack_webhook_url
        if url is not None and not is_mask(url):
            _check_slack_url(url, allows_url)
        if "slack" in self.channels and url is None and not default_slack:
            raise InvalidRequest(
                "the slack channel needs slack_webhook_url, or SLACK_WEBHOOK_URL set on the server", field=SECRET_FIELD
            )

    def stored(
        self, box: Box, *, workspace: UUID, task: UUID, previous: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The config as a task row keeps it, its Slack URL sealed.

        Args:
            box: Seals the URL.
            workspace: The task's workspace.
            task: The task's id; the sealed URL opens only there.
            previous: What is stored now; a mask that was sent back keeps its URL.

        Raises:
            InvalidRequest: when the URL is a mask of nothing that is stored.
            ConfigurationError: when no encryption key is set.
        """
        data = self.model_dump(mode="json", exclude=set(LATER_FIELDS), exclude_none=True)
        url = self.slack_webhook_url
        if url is None:
            return data
        if is_mask(url):
            return data | {"slack_webhook_url": _kept(url, previous)}
        sealed = box.seal(url, table="tasks", workspace=workspace, row=task, field=SECRET_FIELD)
        return data | {"slack_webhook_url": {"sealed": sealed, "mask": mask(url)}}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """The config of a task row, its Slack URL masked; None when the task has none."""
        return cls.model_validate(shown(stored)) if stored is not None else None


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What may be shown of a stored config: everything but the secret."""
    secret = stored.get("slack_webhook_url")
    return dict(stored) | ({"slack_webhook_url": secret["mask"]} if secret else {})


def slack_url(stored: Mapping[str, Any] | None, box: Box, *, workspace: UUID, task: UUID) -> str | None:
    """The Slack URL of a stored config, or None when it has none of its own.

    Raises:
        Unreadable: when it can't be opened with the configured keys.
    """
    secret = (stored or {}).get("slack_webhook_url")
    if not secret:
        return None
    return box.open(secret["sealed"], table="tasks", workspace=workspace, row=task, field=SECRET_FIELD)


def operator_allows(settings: Settings) -> AllowsUrl:
    """The rule for Slack URLs that are not Slack's: http or https to what `PARLEY_EGRESS_ALLOW` lists."""
    policy = Policy.of(settings.egress_allow)

    def allows(url: str) -> bool:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or parts.hostname is None or parts.username is not None:
            return False
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        return policy.lists(parts.hostname, port) or _in_networks(policy, parts.hostname)

    return allows


def _in_networks(policy: Policy, host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in policy.networks)


def _if(present: object, channel: Channel) -> list[Channel]:
    return [channel] if present else []


def _kept(url: str, previous: Mapping[str, Any] | None) -> Mapping[str, Any]:
    secret = (previous or {}).get("slack_webhook_url")
    if not secret or secret["mask"] != url:
        raise InvalidRequest("this is a mask, not a URL: send the whole URL", field=SECRET_FIELD)
    return secret


def _check_slack_url(url: str, allows_url: AllowsUrl) -> None:
    try:
        if url.isascii() and url.isprintable() and " " not in url and (_is_slack(url) or allows_url(url)):
            return
    except ValueError:
        pass  # a URL that can't be read is answered like one that is not allowed
    raise InvalidRequest(
        "must be https://hooks.slack.com/services/..., or a host that PARLEY_EGRESS_ALLOW lets through",
        field=SECRET_FIELD,
    )


def _is_slack(url: str) -> bool:
    parts = urlsplit(url)
    return (
        parts.scheme == "https"
        and parts.hostname in SLACK_HOSTS
        and parts.port in (None, 443)
        and parts.username is None
        and parts.path.startswith("/services/")
    )
