"""The one frozen `Settings`: the only reader of the environment.

Every field is an environment variable of the same name in capitals, also readable from a file whose
path is in `<NAME>_FILE`. Units are in the names. `Settings.load()` reads the environment and `.env`;
`Settings.of()` takes values and reads nothing (tests, embedded servers).
"""

import os
import re
import socket
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.sources import EnvSettingsSource

from app.errors import ConfigurationError

# Values people paste from examples; they count as unset (contract: placeholders).
PLACEHOLDERS = (
    "your-",
    "your_",
    "changeme",
    "change-me",
    "xxx",
    "sk-...",
    "<",
    "https://hooks.slack.com/services/your",
)


DEFAULT_PORT = 8000

# Names that a later version reads.
LATER = (
    "LANGFUSE_HOST",
    "LANGFUSE_PUBLIC_KEY",
    "LANGFUSE_SECRET_KEY",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)

# A token is put behind the part before the @, which may have 64 characters in all (RFC 5321, 4.5.3.1.1).
REPLY_ADDRESS = re.compile(r"[A-Za-z0-9._=-]{1,30}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,200}[A-Za-z0-9])?")


def is_placeholder(value: str) -> bool:
    """True when a setting's value is an example someone forgot to replace."""
    return value.strip().lower().startswith(PLACEHOLDERS)


class FileSource(EnvSettingsSource):
    """Reads `<NAME>_FILE` and takes the file's content, without its last newline, as the value."""

    def __call__(self) -> dict[str, Any]:
        """All settings given by file."""
        found: dict[str, Any] = {}
        for name in self.settings_cls.model_fields:
            path = self.env_vars.get(f"{name}_file")
            if path:
                try:
                    found[name] = Path(path).read_text(encoding="utf-8").rstrip("\n")
                except OSError as error:
                    raise ConfigurationError(
                        f"{name.upper()}_FILE names {path}, which can't be read: {error.strerror}",
                        field=name.upper(),
                    ) from error
        return found


class Settings(BaseSettings):
    """What an operator can set. Frozen; made once per process and handed down."""

    model_config = SettingsConfigDict(
        frozen=True, env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
    )

    # Stores. Each one left out is replaced by its embedded server under `parley up`.
    database_url: SecretStr | None = Field(None, description="PostgreSQL DSN.")
    redis_url: SecretStr | None = Field(None, description="Redis or Valkey URL: live events and rate limits.")
    arq_redis_url: SecretStr | None = Field(None, description="Redis URL of the doorbell; REDIS_URL when unset.")

    # Models.
    default_model: str | None = Field(None, description="Model of agents that name none, as provider:name.")
    embedding_model: str | None = Field(
        None, description="Model that turns documents into vectors: provider:name, or local; by the keys when unset."
    )
    openai_api_key: SecretStr | None = Field(None, description="Key of the openai provider.")
    openai_base_url: str | None = Field(None, description="Base URL of an OpenAI-compatible server.")
    anthropic_api_key: SecretStr | None = Field(None, description="Key of the anthropic provider.")
    anthropic_base_url: str | None = Field(None, description="Base URL of an Anthropic-compatible server.")
    google_api_key: SecretStr | None = Field(None, description="Key of the google provider.")
    google_base_url: str | None = Field(None, description="Base URL of a Google-compatible server.")
    ollama_base_url: str | None = Field(None, description="Base URL of an Ollama server.")

    # Mail.
    smtp_host: str | None = Field(None, description="SMTP server; mail is captured in the outbox when unset.")
    smtp_port: int | None = Field(None, ge=1, le=65535, description="SMTP port; 587, or 465 with tls, when unset.")
    smtp_username: str | None = Field(None, description="SMTP user.")
    smtp_password: SecretStr | None = Field(None, description="SMTP password.")
    smtp_from_email: str = Field("parley@localhost", description="Sender address of notifications.")
    smtp_security: Literal["none", "starttls", "tls"] | None = Field(
        None,
        description="none, starttls or tls; by port when unset: tls on 465, starttls on 587, else where the server offers it.",
    )

    parley_reply_address: str | None = Field(
        None, description="Address whose mail reaches this server, for answers: parley@example.org."
    )

    email_inbound_secret: SecretStr | None = Field(
        None, description="Password with which the mail provider posts answers to /email/inbound."
    )

    # Slack.
    slack_webhook_url: SecretStr | None = Field(None, description="Default incoming webhook for the slack channel.")
    slack_bot_token: SecretStr | None = Field(
        None, description="Token of a Slack app's bot, xoxb-...; posts to slack_channel, in threads."
    )
    slack_signing_secret: SecretStr | None = Field(
        None, description="Signing secret of the Slack app; answers and buttons in Slack need it."
    )
    slack_api_url: str = Field(
        "https://slack.com/api", description="Base URL of Slack's Web API; another for GovSlack."
    )

    # Alerts.
    parley_alert_email: str = Field(
        "", description="Addresses that alerts about this server go to, separated by commas."
    )
    parley_alert_slack_channel: str | None = Field(None, description="Slack channel for alerts, by SLACK_BOT_TOKEN.")
    parley_alert_slack_webhook_url: SecretStr | None = Field(None, description="Incoming webhook for alerts.")

    # Search.
    search_provider: Literal["searxng", "tavily", "brave", "duckduckgo"] | None = Field(
        None,
        description="Who answers web_search: searxng, tavily, brave or duckduckgo; the tool is not offered when unset.",
    )
    searxng_url: str | None = Field(None, description="Base URL of a SearXNG server.")
    tavily_api_key: SecretStr | None = Field(None, description="Key for Tavily.")
    brave_api_key: SecretStr | None = Field(None, description="Key for Brave Search.")

    # The database that agents may ask.
    sql_tool_url: SecretStr | None = Field(
        None, description="DSN of the database of query_database, with a role that only reads; never Parley's own."
    )

    # The server.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level logged: DEBUG, INFO, WARNING or ERROR."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or auto: console on a terminal."
    )
    parley_home: Path = Field(Path(".parley"), description="Folder of run.json, embedded data, outbox and secrets.")
    parley_host: str = Field("127.0.0.1", description="Address to listen on.")
    parley_port: int | None = Field(
        None, ge=0, le=65535, description="Port to listen on; unset: 8000, or the next free one up to 8019."
    )
    parley_public_url: str | None = Field(None, description="URL under which people reach this server; used in links.")
    parley_cors_origins: str = Field("", description="Origins allowed to call from a browser, separated by commas.")
    parley_secret: SecretStr | None = Field(None, description="Signs links and tokens; made and kept when unset.")
    parley_encryption_keys: SecretStr | None = Field(
        None, description="Keys that seal secrets, as id:base64 pairs, newest first; made and kept when unset."
    )
    parley_auth: Literal["on", "off"] | None = Field(
        None, description="Authentication, on or off; off by default only when bound to loopback."
    )
    parley_admin_key: SecretStr | None = Field(None, description="First admin key; made and shown once when unset.")
    parley_pg_bin: Path | None = Field(
        None, description="Folder of PostgreSQL's binaries for the embedded server; found when unset."
    )
    parley_valkey_bin: Path | None = Field(
        None, description="Valkey or Redis binary for the embedded server; found when unset."
    )
    parley_workers: int = Field(1, ge=0, le=64, description="Worker processes started by `parley up`.")
    parley_concurrency: int = Field(16, ge=1, le=1000, description="Runs one worker executes at a time.")
    parley_lease_seconds: float = Field(10.0, ge=1, le=600, description="How long a run stays with a silent worker.")
    parley_sweep_seconds: float = Field(1.0, ge=0.1, le=60, description="How often overdue runs are looked for.")
    parley_breaker_failures: int = Field(
        5, ge=0, le=1000, description="Failures in a row after which a model provider rests; 0: never."
    )
    parley_breaker_seconds: float = Field(
        5.0, ge=0.05, le=3600, description="How long it rests the first time; doubles with each failed probe."
    )
    parley_breaker_max_seconds: float = Field(120.0, ge=0.05, le=86_400, description="How long it rests at most.")
    parley_egress_allow: str = Field(
        "",
        description="host:port, or networks such as 10.0.0.0/8 with every port, that the egress guard lets through; separated by commas.",
    )
    parley_extensions: str = Field(
        "", description="Modules of your own that add tools, channels, providers and agents, separated by commas."
    )
    parley_mcp_servers: Path | None = Field(
        None, description="JSON file of MCP servers that each process starts as programs of its own."
    )
    parley_pool_size: int = Field(10, ge=2, le=200, description="Connections of each pool of a process.")
    parley_artifact_bytes: int = Field(
        1_500_000, ge=1024, le=100_000_000, description="Largest artifact kept; an upload is a request body, too."
    )
    parley_document_bytes: int = Field(
        10_000_000, ge=1024, le=100_000_000, description="Largest file uploaded as a document."
    )
    parley_max_body_bytes: int = Field(2_000_000, ge=1024, description="Largest request body accepted.")

    # The command line, as a client.
    parley_url: str | None = Field(None, description="Server the commands talk to; the one running here when unset.")
    parley_api_key: SecretStr | None = Field(None, description="API key the commands send.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then `<NAME>_FILE`, then `.env`."""
        del file_secret_settings
        return init_settings, env_settings, FileSource(settings_cls), dotenv_settings

    @field_validator("*", mode="before")
    @classmethod
    def _placeholders_are_unset(cls, value: Any, info: Any) -> Any:
        if isinstance(value, str) and is_placeholder(value):
            return cls.model_fields[info.field_name].default
        return value

    @field_validator("parley_home", mode="after")
    @classmethod
    def _absolute_home(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment and `.env`.

        Raises:
            ConfigurationError: naming the setting that can't be read.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).upper()
            raise ConfigurationError(f"{name}: {first['msg']}", field=name) from error

    @classmethod
    def of(cls, **values: Any) -> "Settings":
        """Make settings from these values and the defaults alone; the environment is not read."""
        return GivenSettings(**values)

    @field_validator("parley_reply_address", mode="after")
    @classmethod
    def _mail_address(cls, value: str | None) -> str | None:
        if value is not None and not REPLY_ADDRESS.fullmatch(value):
            raise ValueError(
                "must be an address such as parley@example.org, its part before the @ at most 30 characters"
            )
        return value

    @cached_property
    def on_loopback(self) -> bool:
        """Whether the server listens on this machine alone."""
        return is_loopback(self.parley_host)

    @property
    def auth_on(self) -> bool:
        """Whether calls need an API key.

        Raises:
            ConfigurationError: when authentication is off on an address others can reach.
        """
        if self.parley_auth is None:
            return not self.on_loopback
        if self.parley_auth == "off" and not self.on_loopback:
            raise ConfigurationError(
                f"PARLEY_AUTH=off is refused on {self.parley_host}: bind to 127.0.0.1 or turn it on",
                field="PARLEY_AUTH",
            )
        return self.parley_auth == "on"

    @property
    def secrets(self) -> list[str]:
        """What none may see: the values of the secret settings, and what in them is a secret of its own."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        found = [value.get_secret_value() for value in values.values() if isinstance(value, SecretStr)]
        keys = split_list(self.parley_encryption_keys.get_secret_value()) if self.parley_encryption_keys else []
        # Of an address, who logs in and with what: the password alone is often a word that stands everywhere.
        logins = [f"{login}@" for each in found if ":" in (login := _login(each))]
        return [*found, *(key.partition(":")[2] for key in keys), *logins]

    @property
    def cors_origins(self) -> list[str]:
        """The origins of `PARLEY_CORS_ORIGINS`."""
        return split_list(self.parley_cors_origins)

    @property
    def extensions(self) -> list[str]:
        """The modules of `PARLEY_EXTENSIONS`."""
        return split_list(self.parley_extensions)

    @property
    def alert_emails(self) -> list[str]:
        """The addresses of `PARLEY_ALERT_EMAIL`."""
        return split_list(self.parley_alert_email)

    @property
    def egress_allow(self) -> list[str]:
        """The entries of `PARLEY_EGRESS_ALLOW`."""
        return split_list(self.parley_egress_allow)

    @property
    def base_url(self) -> str:
        """Where people reach this server, for links."""
        return (self.parley_public_url or f"http://localhost:{self.parley_port or DEFAULT_PORT}").rstrip("/")

    def signing_key(self) -> bytes:
        """The key that signs links, cursors and tokens: the same in every process, and none that anybody outside knows."""
        secret = self.parley_secret or self.parley_encryption_keys
        return secret.get_secret_value().encode() if secret else self.dsn().encode()

    def dsn(self) -> str:
        """The PostgreSQL DSN as `postgresql://...`.

        Raises:
            ConfigurationError: when none is set and none is running here.
        """
        if self.database_url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set and no embedded server is running: start `parley up` first",
                field="DATABASE_URL",
            )
        return plain_dsn(self.database_url.get_secret_value())

    def redis_dsn(self) -> str | None:
        """The Redis URL for live events, or None when there is none."""
        return self.redis_url.get_secret_value() if self.redis_url else None

    def doorbell_dsn(self) -> str | None:
        """The Redis URL for wake-ups, or None when there is none."""
        return self.arq_redis_url.get_secret_value() if self.arq_redis_url else self.redis_dsn()


class GivenSettings(Settings):
    """Settings whose only source is the arguments."""

    model_config = SettingsConfigDict(extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The arguments."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def _login(url: str) -> str:
    """User and password of an address, as they stand in it."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[0]


def place_of(dsn: str) -> str:
    """Host, port and database of a DSN: what may be shown of it."""
    return dsn.partition("://")[2].rpartition("@")[2].partition("?")[0]


def plain_dsn(dsn: str) -> str:
    """`postgres://` and `postgresql+asyncpg://` DSNs as `postgresql://`.

    Raises:
        ConfigurationError: when the scheme is another.
    """
    scheme, separator, rest = dsn.partition("://")
    if not separator or scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise ConfigurationError(
            "DATABASE_URL must begin with postgresql://, postgres:// or postgresql+asyncpg://",
            field="DATABASE_URL",
        )
    return f"postgresql://{rest}"


def split_list(text: str) -> list[str]:
    """The entries of a comma-separated setting."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our environment with these settings on top, for the processes we start."""
    return {**os.environ, **settings}


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def process_name() -> str:
    """This process for people: host and pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


def set_in_vain() -> list[str]:
    """One sentence for each setting of the environment or `.env` that has no effect: examples, and names of later."""
    given = {**dotenv_values(".env"), **os.environ}
    names = {name.upper() for name in Settings.model_fields}
    examples = sorted(name for name, value in given.items() if name in names and value and is_placeholder(value))
    later = sorted(name for name in LATER if given.get(name))
    return [
        *(f"{name} still holds its example value and counts as unset" for name in examples),
        *(f"{name} is not used by this version" for name in later),
    ]
