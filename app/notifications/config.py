"""Who wants to hear of what: the `notification_config` of a task.

A config is checked when it is written. What is stored holds its secrets sealed beside their masks, so
that showing a task opens no secret and sending a mask back changes nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
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
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.credentials import Box, is_mask, mask
from app.egress import Policy
from app.errors import EgressRefused, InvalidRequest, NotAvailable
from app.settings import Settings
from app.verifiers import standard_key

FIELD = "notification_config"
SLACK_URL, SLACK_CHANNEL, CALLBACK_URL, CALLBACK_SECRET = (
    "slack_webhook_url",
    "slack_channel",
    "callback_url",
    "callback_secret",
)
# All sealed values of a task's config are bound to this one name, so that moving them to another key finds them.
SECRET_FIELD = f"{FIELD}.{SLACK_URL}"
MAX_SECRETS = 2  # The new one and the one before it: both sign while the receiver changes over.
MAX_ADDRESSES = 20
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 500
SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)

# Slack's names and ids of channels and people: what it would read as markup or a list is none.
SLACK_NAME = re.compile(r"#?[^\s#@<>&|,\x00-\x1f]{1,80}")

Channel = Literal["email", "slack", "webhook"]
EventName = Literal["started", "progress", "waiting", "completed", "failed", "cancelled", "recovered", "budget"]
DEFAULT_EVENTS: tuple[EventName, ...] = ("completed", "failed", "waiting")
LATER_EVENTS: tuple[EventName, ...] = ("budget",)  # With the budgets of runs and tasks.
BURST = 20  # Messages of one task to one address within DIGEST_SECONDS: nobody reads more one by one.
DIGEST_SECONDS = 300
EXTENDED: dict[str, None] = {}  # Channels that extensions add, in their order.
STORED = {"stored": True}  # Says to the validation that a config was checked when it was written.

AllowsUrl = Callable[[str], bool]


def _offered(name: str, info: ValidationInfo) -> str:
    """The name of a channel that there is, or that there was when the config was stored."""
    known = [*get_args(Channel), *EXTENDED]
    if name not in known and info.context is not STORED:
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


class Rules(BaseModel):
    """When something that was asked for is told later, together with others, or not at all."""

    model_config = ConfigDict(extra="forbid")

    cooldown_seconds: int | None = Field(
        None,
        ge=0,
        le=604_800,
        description="For so long after a message its like is not sent again to the same address.",
    )
    only_changes: bool | None = Field(
        None, description="Tell an outcome only when it differs from the one that was told last."
    )
    digest_after: int | None = Field(
        None,
        ge=0,
        le=1000,
        description=f"More messages than this within digest_seconds become one digest; 0 for never. Left out, it is {BURST} "
        "for people, and never for the webhook channel.",
    )
    digest_seconds: int | None = Field(None, ge=1, le=86_400, description="How long a digest collects; 300 by default.")


class WorkspaceRules(Rules):
    """The rules of a workspace: what its tasks leave open, and which events are told at all."""

    on: list[EventName] | None = Field(
        None, max_length=20, description="The only events that are told, whatever tasks ask for; all when left out."
    )


class NotificationConfig(Rules):
    """Which events of a task's runs are told to whom, by which channels, and how often."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"channels": ["email"]}]})

    channels: Annotated[list[ChannelName], Field(max_length=10)] = Field(
        default_factory=list[str], description="Where to: email, slack, webhook. Left out: those with an address below."
    )
    email_address: Annotated[list[Address], BeforeValidator(_listed), Field(max_length=MAX_ADDRESSES)] | None = Field(
        None, description=f"One address, or a list of at most {MAX_ADDRESSES}."
    )
    slack_webhook_url: str | None = Field(
        None, max_length=MAX_URL, description="Incoming webhook; the server's default when left out. Shown masked."
    )
    slack_channel: str | None = Field(
        None, max_length=81, description="Channel for the bot of SLACK_BOT_TOKEN: a name such as #ops, or an id."
    )
    callback_url: str | None = Field(None, max_length=MAX_URL, description="Where the webhook channel posts to.")
    callback_secret: Annotated[list[str], BeforeValidator(_listed), Field(max_length=MAX_SECRETS)] | None = Field(
        None,
        description="Signs the calls: whsec_ and base64 of at least 16 bytes. Two, newest first, both sign. Shown masked.",
    )
    callback_payload: Literal["full", "thin"] | None = Field(
        None, description="full (the default) holds what happened, thin only the ids to look it up with."
    )
    on: list[EventName] = Field(
        default_factory=lambda: list(DEFAULT_EVENTS), description="Events; completed, failed and waiting by default."
    )

    @field_serializer("email_address", "callback_secret")
    def _one_or_many(self, value: list[str] | None) -> str | list[str] | None:
        return value[0] if value and len(value) == 1 else value

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if "channels" not in self.model_fields_set:
            slack = self.slack_webhook_url or self.slack_channel
            self.channels = [
                *_if(self.email_address, "email"),
                *_if(slack, "slack"),
                *_if(self.callback_url, "webhook"),
            ]
        self.channels = list(dict.fromkeys(self.channels))
        self.on = list(dict.fromkeys(self.on))
        if self.email_address is not None:
            self.email_address = list({address.lower(): address for address in self.email_address}.values())
        if "email" in self.channels and not self.email_address:
            raise InvalidRequest("the email channel needs an address", field=f"{FIELD}.email_address")
        if "webhook" in self.channels and not self.callback_url:
            raise InvalidRequest("the webhook channel needs callback_url", field=f"{FIELD}.{CALLBACK_URL}")
        if self.slack_webhook_url and self.slack_channel:
            raise InvalidRequest("give slack_channel or slack_webhook_url, not both", field=f"{FIELD}.{SLACK_CHANNEL}")
        return self

    def check(self, settings: Settings) -> None:
        """Check what depends on the server's settings, and the secrets that are not masks.

        Raises:
            InvalidRequest: naming the field.
            NotAvailable: naming the field; no such event comes yet.
        """
        check_events(self.on, f"{FIELD}.on")
        url = self.slack_webhook_url
        if url is not None and not is_mask(url):
            _check_slack_url(url, operator_allows(settings))
        if self.slack_channel is not None:
            _check_slack_channel(self.slack_channel, settings)
        elif "slack" in self.channels and url is None and settings.slack_webhook_url is None:
            raise InvalidRequest(
                "the slack channel needs slack_webhook_url, slack_channel, or SLACK_WEBHOOK_URL set on the server",
                field=f"{FIELD}.{SLACK_URL}",
            )
        if self.callback_url is not None:
            _check_callback_url(self.callback_url, settings)
        for secret in self.callback_secret or []:
            if not is_mask(secret):
                _check_callback_secret(secret)

    def stored(
        self, box: Box, *, workspace: UUID, task: UUID, previous: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The config as a task row keeps it, its secrets sealed.

        Args:
            box: Seals them.
            workspace: The task's workspace.
            task: The task's id; the sealed values open only there.
            previous: What is stored now; a mask that was sent back keeps its secret.

        Raises:
            InvalidRequest: when a mask is one of nothing that is stored.
            ConfigurationError: when no encryption key is set.
        """

        def sealed(secret: str, field: str) -> Mapping[str, Any]:
            if is_mask(secret):
                return _kept(secret, field, previous)
            value = box.seal(secret, table="tasks", workspace=workspace, row=task, field=SECRET_FIELD)
            return {"sealed": value, "mask": mask(secret)}

        data = self.model_dump(mode="json", exclude={SLACK_URL, CALLBACK_SECRET}, exclude_none=True)
        if self.slack_webhook_url is not None:
            data[SLACK_URL] = sealed(self.slack_webhook_url, SLACK_URL)
        if self.callback_secret:
            data[CALLBACK_SECRET] = [sealed(secret, CALLBACK_SECRET) for secret in self.callback_secret]
        return data

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """The config of a task row, its secrets masked, with channels that may be gone; None when the task has none."""
        return cls.model_validate(shown(stored), context=STORED) if stored is not None else None


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What may be shown of a stored config: everything but the secrets."""
    masks: dict[str, Any] = {}
    if secret := stored.get(SLACK_URL):
        masks[SLACK_URL] = secret["mask"]
    if secrets := stored.get(CALLBACK_SECRET):
        masks[CALLBACK_SECRET] = [secret["mask"] for secret in secrets]
    return dict(stored) | masks


def slack_url(stored: Mapping[str, Any] | None, box: Box, *, workspace: UUID, task: UUID) -> str | None:
    """The Slack URL of a stored config, or None when it has none of its own.

    Raises:
        Unreadable: when it can't be opened with the configured keys.
    """
    secret = (stored or {}).get(SLACK_URL)
    if not secret:
        return None
    return box.open(secret["sealed"], table="tasks", workspace=workspace, row=task, field=SECRET_FIELD)


def callback_secrets(stored: Mapping[str, Any] | None, box: Box, *, workspace: UUID, task: UUID) -> list[str]:
    """The secrets of a stored config that sign its calls, newest first.

    Raises:
        Unreadable: when one can't be opened with the configured keys.
    """
    return [
        box.open(secret["sealed"], table="tasks", workspace=workspace, row=task, field=SECRET_FIELD)
        for secret in (stored or {}).get(CALLBACK_SECRET, [])
    ]


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


def _kept(secret: str, field: str, previous: Mapping[str, Any] | None) -> Mapping[str, Any]:
    before: Any = (previous or {}).get(field) or []
    kept = cast("list[Mapping[str, Any]]", before if isinstance(before, list) else [before])
    for each in kept:
        if each["mask"] == secret:
            return each
    raise InvalidRequest(
        "this is a mask, and of nothing that is stored: send the whole value", field=f"{FIELD}.{field}"
    )


def check_events(events: Sequence[EventName] | None, field: str) -> None:
    """Refuse by name the events that a later version brings: nobody is to wait for them.

    Raises:
        NotAvailable: naming the field.
    """
    for name in LATER_EVENTS:
        if name in (events or ()):
            raise NotAvailable(f"{name} is not offered yet", field=field)


def _check_slack_channel(name: str, settings: Settings) -> None:
    if not SLACK_NAME.fullmatch(name):
        raise InvalidRequest("must be a channel such as #ops, or its id", field=f"{FIELD}.{SLACK_CHANNEL}")
    if settings.slack_bot_token is None:
        raise InvalidRequest("slack_channel needs SLACK_BOT_TOKEN set on the server", field=f"{FIELD}.{SLACK_CHANNEL}")


def _check_callback_url(url: str, settings: Settings) -> None:
    policy, said = (
        Policy.of(settings.egress_allow),
        "must be a public https URL, or one that PARLEY_EGRESS_ALLOW lets through",
    )
    try:
        parts = urlsplit(url)
        if url.isascii() and url.isprintable() and " " not in url and parts.username is None and parts.hostname:
            policy.check_url(url)
            if parts.scheme == "https" or operator_allows(settings)(url):
                return
    except EgressRefused as error:
        raise InvalidRequest(f"{said} ({error.detail})", field=f"{FIELD}.{CALLBACK_URL}") from error
    except ValueError:
        pass  # a URL that can't be read is answered like one that is not allowed
    raise InvalidRequest(said, field=f"{FIELD}.{CALLBACK_URL}")


def _check_callback_secret(secret: str) -> None:
    try:
        standard_key(secret)
    except ValueError as error:
        raise InvalidRequest(str(error), field=f"{FIELD}.{CALLBACK_SECRET}") from error


def _check_slack_url(url: str, allows_url: AllowsUrl) -> None:
    try:
        if url.isascii() and url.isprintable() and " " not in url and (_is_slack(url) or allows_url(url)):
            return
    except ValueError:
        pass  # a URL that can't be read is answered like one that is not allowed
    raise InvalidRequest(
        "must be https://hooks.slack.com/services/..., or a host that PARLEY_EGRESS_ALLOW lets through",
        field=f"{FIELD}.{SLACK_URL}",
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
