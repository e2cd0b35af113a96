"""Model strings: `provider:name`, what each provider needs, and which model agents get that name none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from app.errors import ConfigurationError, InvalidModel
from app.providers import scripted
from app.settings import Settings

DEMO = "demo"
SCRIPTED = "scripted"
LOCAL = "local"

# A provider's name may hold slashes, dots and further colons (`ollama:qwen3:8b`), never blanks.
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")


@dataclass(frozen=True)
class Source:
    """What a provider needs: its client family and the settings that hold its key and address."""

    family: str
    key: str | None = None
    base_url: str | None = None
    default_url: str = ""


_OPENAI = Source("openai", "openai_api_key", "openai_base_url", "https://api.openai.com/v1")

SOURCES: dict[str, Source] = {
    "openai": _OPENAI,
    "openai-chat": _OPENAI,
    "openai-responses": _OPENAI,
    "anthropic": Source("anthropic", "anthropic_api_key", "anthropic_base_url", "https://api.anthropic.com"),
    "google": Source("google", "google_api_key", "google_base_url", "https://generativelanguage.googleapis.com"),
    "ollama": Source("ollama", None, "ollama_base_url", "http://localhost:11434/v1"),
    SCRIPTED: Source(SCRIPTED),
}


def add_provider(name: str, factory: scripted.NamedFactory) -> None:
    """Offer an extension's models as `name:NAME`.

    Raises:
        ConfigurationError: when there is another provider of that name.
    """
    if name in SOURCES and scripted.extended.get(name) is not factory:
        raise ConfigurationError(f"there is a provider called {name} already")
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,30}", name):
        raise ConfigurationError(f"{name!r} can't be a provider's name: 2 to 31 small letters, digits and hyphens")
    scripted.extended[name] = factory
    SOURCES[name] = Source(name)


_ALIASES = {"google-gla": "google"}

# Families by how their models are called, to answer a bare name with the right string.
_FAMILY_HINTS = (("gpt", "openai"), ("o1", "openai"), ("o3", "openai"), ("claude", "anthropic"), ("gemini", "google"))

# The model each key stands for when DEFAULT_MODEL is unset, in the order they are looked for.
_DEFAULTS = (
    ("openai_api_key", "openai:gpt-6.1-terra"),
    ("anthropic_api_key", "anthropic:claude-sonnet-5-5"),
    ("google_api_key", "google:gemini-3.8-flash"),
)

# The embedding model each key stands for when EMBEDDING_MODEL is unset. A server of one's own at the base URL may have none.
_EMBEDDERS = (
    ("openai_api_key", "openai_base_url", "openai:text-embedding-3-small"),
    ("google_api_key", "google_base_url", "google:gemini-embedding-001"),
)
EMBEDDING_FAMILIES = ("openai", "google", "ollama")


@dataclass(frozen=True)
class ModelName:
    """A model string taken apart; `str()` gives its one canonical spelling."""

    provider: str
    name: str

    def __str__(self) -> str:
        """The string as it is stored and shown."""
        return DEMO if self.provider == DEMO else f"{self.provider}:{self.name}"

    @property
    def source(self) -> Source:
        """What this model's provider needs."""
        return SOURCES[self.provider]


def parse(string: str, *, field: str = "model") -> ModelName:
    """Take a model string apart.

    Raises:
        InvalidModel: naming what would be right.
    """
    text = string.strip()
    if text == DEMO:
        return ModelName(DEMO, DEMO)
    provider, _, name = text.partition(":")
    provider = _ALIASES.get(provider, provider)
    if provider not in SOURCES:
        raise InvalidModel(_unknown(text), field=field)
    if provider == SCRIPTED and not scripted.is_registered(name):
        raise InvalidModel(f"{text} is not registered in this process", field=field)
    if not _NAME.fullmatch(name):
        raise InvalidModel(f"{text!r} names no model: write {provider}:NAME", field=field)
    if "@http" in name:
        raise InvalidModel(
            f"{text!r} holds an address: set OPENAI_BASE_URL and write openai:{name.partition('@')[0]}", field=field
        )
    return ModelName(provider, name)


def check_model(settings: Settings, string: str, *, field: str = "model") -> str:
    """The canonical spelling of a model string, checked without loading any provider.

    A missing key is no error here: keys may be set after the agent is saved (see `missing_key`).

    Raises:
        InvalidModel: naming what would be right.
    """
    try:
        return str(parse(string, field=field))
    except InvalidModel as error:
        keyed = [provider for provider in ("openai", "anthropic", "google") if _secret(settings, SOURCES[provider])]
        if keyed and error.detail.startswith("no provider"):
            raise InvalidModel(f"{error.detail}; keys are set for {', '.join(keyed)}", field=field) from None
        raise


def missing_key(settings: Settings, string: str) -> str | None:
    """The setting whose key the model would need and does not have; None when it can run.

    A server of one's own (its base URL is set) may need no key.
    """
    model = parse(string)
    if model.provider == DEMO or model.source.key is None:
        return None
    own_server = model.source.base_url is not None and getattr(settings, model.source.base_url)
    return None if own_server or _secret(settings, model.source) else model.source.key.upper()


def default_model(settings: Settings) -> tuple[str, str]:
    """The model of agents that name none, and the reason in plain words.

    Raises:
        ConfigurationError: when DEFAULT_MODEL names no provider.
    """
    if settings.default_model:
        return _named_default(settings, settings.default_model)
    for key, model in _DEFAULTS:
        if getattr(settings, key):
            return model, f"{key.upper()} is set and DEFAULT_MODEL is not"
    return DEMO, "no provider key is set: the offline demo model answers; set DEFAULT_MODEL or a key to change that"


def default_embedder(settings: Settings) -> tuple[str, str]:
    """The model that turns documents into vectors, and the reason in plain words.

    Raises:
        ConfigurationError: when EMBEDDING_MODEL names no provider that has such models.
    """
    if settings.embedding_model:
        return _named_embedder(settings.embedding_model), "EMBEDDING_MODEL names it"
    for key, base_url, model in _EMBEDDERS:
        if getattr(settings, key) and not getattr(settings, base_url):
            return model, f"{key.upper()} is set and EMBEDDING_MODEL is not"
    return LOCAL, "EMBEDDING_MODEL is not set, nor a key of OpenAI or Google: words and their parts are compared"


def _named_embedder(string: str) -> str:
    if string.strip() == LOCAL:
        return LOCAL
    try:
        name = parse(string, field="EMBEDDING_MODEL")
    except InvalidModel as error:
        raise ConfigurationError(f"EMBEDDING_MODEL: {error.detail}", field="EMBEDDING_MODEL") from error
    if name.provider == DEMO or name.source.family not in EMBEDDING_FAMILIES:
        said = f"EMBEDDING_MODEL: {name} embeds nothing: write openai:NAME, google:NAME, ollama:NAME or {LOCAL}"
        raise ConfigurationError(said, field="EMBEDDING_MODEL")
    return str(name)


def credential(settings: Settings, source: Source) -> tuple[str, str | None]:
    """The address and key of a provider."""
    address = getattr(settings, source.base_url) if source.base_url else None
    return address or source.default_url, _secret(settings, source)


@dataclass(frozen=True)
class Circuit:
    """What fails and recovers together: a provider at an address, asked with one key.

    Attributes:
        key: Names it in every process that has the same settings; holds no secret.
        provider: Its family, such as `openai`.
        address: Host and port.
    """

    key: str
    provider: str
    address: str


def circuit(settings: Settings, name: ModelName) -> Circuit | None:
    """The circuit a model's requests go through; None when they leave for no provider."""
    if name.provider in (DEMO, SCRIPTED):
        return None
    family = name.source.family
    url, secret = credential(settings, name.source)
    host = urlsplit(url).netloc.rpartition("@")[2]
    return Circuit(f"{family}:{sha256(f'{url} {secret}'.encode()).hexdigest()[:16]}", family, host)


def circuits(settings: Settings, model: str | None, fallbacks: Sequence[str] = ()) -> list[Circuit | None]:
    """The circuits of an agent's models in the order they are asked; the configured default where it names none."""
    return [circuit(settings, parse(each)) for each in (model or default_model(settings)[0], *fallbacks)]


def _named_default(settings: Settings, string: str) -> tuple[str, str]:
    try:
        model = check_model(settings, string)
    except InvalidModel as error:
        raise ConfigurationError(f"DEFAULT_MODEL: {error.detail}", field="DEFAULT_MODEL") from error
    missing = missing_key(settings, model)
    return model, f"DEFAULT_MODEL names it, but {missing} is not set" if missing else "DEFAULT_MODEL names it"


def _secret(settings: Settings, source: Source) -> str | None:
    secret = getattr(settings, source.key) if source.key else None
    return secret.get_secret_value() if secret else None


def _unknown(text: str) -> str:
    family = next((family for start, family in _FAMILY_HINTS if text.lower().startswith(start)), None)
    if family and ":" not in text:
        return f"{text!r} names no provider: write {family}:{text}"
    known = ", ".join(f"{provider}:NAME" for provider in SOURCES if provider != SCRIPTED)
    return f"no provider is known for {text!r}: write one of {known} or demo"
