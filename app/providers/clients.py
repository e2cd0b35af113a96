"""Models made from strings: one client per provider and credential, loaded when first used."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import httpx2
from pydantic_ai.embeddings import EmbeddingModel
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.models import Model, create_async_httpx2_client
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.providers import Provider

from app.errors import BreakerOpen, ModelKeyMissing, ParleyError
from app.providers import scripted
from app.providers.demo import demo_model
from app.providers.embedding import LocalEmbedding
from app.providers.failures import classify
from app.providers.names import (
    DEMO,
    LOCAL,
    SCRIPTED,
    SOURCES,
    Circuit,
    ModelName,
    circuit,
    credential,
    missing_key,
    parse,
)
from app.settings import Settings

# Reasoning models may be silent for minutes; a server that does not take the connection is away.
TIMEOUT = httpx2.Timeout(300.0, connect=10.0, pool=30.0)

# The run engine repeats failed requests itself, with backoff, a record and a reason people can read.
SDK_RETRIES = 0

GOOGLE_DIMENSIONS = 768

# Sent where a server of one's own asks for no key: the clients insist on one.
NO_KEY = "no-key-needed"

Guard = Callable[[Model, Circuit], Model]


class Providers:
    """The models of one process. Make one per process, close it at the end."""

    def __init__(self, settings: Settings, guard: Guard | None = None) -> None:
        """Remember the settings; nothing is imported or opened yet.

        Args:
            settings: Keys and addresses.
            guard: Put round each model that asks a provider.
        """
        self._settings = settings
        self._guard = guard
        self._lock = Lock()
        self._http: httpx2.AsyncClient | None = None
        self._providers: dict[tuple[str, str, str], Provider[Any]] = {}

    @staticmethod
    def register(name: str, factory: scripted.ModelFactory) -> None:
        """Offer a model of one's own as `scripted:NAME`, in this process (tests, benchmarks)."""
        scripted.register(name, factory)

    def model(self, model_string: str, fallbacks: Sequence[str] = ()) -> Model:
        """The model of a string, with others to fall back on before its first token.

        The first use of a provider imports its library, which takes seconds: on an event loop use `load`.

        Raises:
            InvalidModel: when a string names no provider.
            ModelKeyMissing: when a provider's key is not set.
        """
        models = [self._guarded(parse(string)) for string in (model_string, *fallbacks)]
        if len(models) == 1:
            return models[0]
        return FallbackModel(models[0], *models[1:], fallback_on=(ModelAPIError, BreakerOpen))

    async def load(self, model_string: str, fallbacks: Sequence[str] = ()) -> Model:
        """`model`, with whatever must be imported first imported in a thread."""
        if all(self._at_hand(parse(string)) for string in (model_string, *fallbacks)):
            return self.model(model_string, fallbacks)
        return await asyncio.to_thread(self.model, model_string, fallbacks)

    async def embedder(self, model_string: str) -> EmbeddingModel:
        """The embedding model of a string.

        Raises:
            InvalidModel: when it names no provider.
            ModelKeyMissing: when the provider's key is not set.
        """
        if model_string == LOCAL:
            return LocalEmbedding()
        name = parse(model_string)
        return await asyncio.to_thread(lambda: _EMBEDDERS[name.source.family](name, self._provider(name)))

    def failure(self, exc: BaseException) -> ParleyError:
        """`classify`, knowing the configured keys so that none of them is ever shown."""
        return classify(exc, self._secrets())

    async def aclose(self) -> None:
        """Close the connections to all providers."""
        with self._lock:
            http, self._http = self._http, None
            self._providers.clear()
        if http is not None:
            await http.aclose()

    def _guarded(self, name: ModelName) -> Model:
        model, through = self._one(name), circuit(self._settings, name)
        return self._guard(model, through) if self._guard and through else model

    def _one(self, name: ModelName) -> Model:
        if name.provider == DEMO:
            return demo_model()
        if name.provider == SCRIPTED:
            return scripted.make(name.name)
        if name.provider in scripted.extended:
            return scripted.extended[name.provider](name.name)
        return _BUILDERS[name.source.family](name, self._provider(name))

    def _provider(self, name: ModelName) -> Provider[Any]:
        key = self._credential(name)
        with self._lock:
            if key not in self._providers:
                self._providers[key] = _CONNECTORS[key[0]](key[1], key[2], self._connections())
            return self._providers[key]

    def _credential(self, name: ModelName) -> tuple[str, str, str]:
        missing = missing_key(self._settings, str(name))
        if missing:
            raise ModelKeyMissing(f"{name} needs {missing}, which is not set")
        address, key = credential(self._settings, name.source)
        return name.source.family, address, key or NO_KEY

    def _connections(self) -> httpx2.AsyncClient:
        """The one connection pool of all providers, so that closing it closes everything."""
        if self._http is None:
            self._http = create_async_httpx2_client(timeout=TIMEOUT)
        return self._http

    def _at_hand(self, name: ModelName) -> bool:
        return name.provider in (DEMO, SCRIPTED) or any(key[0] == name.source.family for key in self._providers)

    def _secrets(self) -> list[str]:
        found = (credential(self._settings, source)[1] for source in SOURCES.values())
        return [secret for secret in found if secret]


def _connect_openai(address: str, key: str, http: httpx2.AsyncClient) -> Provider[Any]:
    """OpenAI itself, or a server that speaks its protocols: that one gets no OpenAI-only fields."""
    from openai import AsyncOpenAI
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    client = AsyncOpenAI(base_url=address, api_key=key, max_retries=SDK_RETRIES, timeout=TIMEOUT, http_client=http)
    if _is_openai(address):
        return OpenAIProvider(openai_client=client)
    return OpenAICompatibleProvider("openai-compatible", openai_client=client)


def _connect_ollama(address: str, key: str, http: httpx2.AsyncClient) -> Provider[Any]:
    from openai import AsyncOpenAI
    from pydantic_ai.providers.ollama import OllamaProvider

    base_url = address if urlsplit(address).path.strip("/") else f"{address.rstrip('/')}/v1"
    client = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=SDK_RETRIES, timeout=TIMEOUT, http_client=http)
    return OllamaProvider(openai_client=client)


def _connect_anthropic(address: str, key: str, http: httpx2.AsyncClient) -> Provider[Any]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=address, api_key=key, max_retries=SDK_RETRIES, timeout=TIMEOUT, http_client=http)
    return AnthropicProvider(anthropic_client=client)


def _connect_google(address: str, key: str, http: httpx2.AsyncClient) -> Provider[Any]:
    from google.genai.types import HttpRetryOptions
    from pydantic_ai.providers.google import GoogleProvider

    # `attempts` counts the first try.
    retries = HttpRetryOptions(attempts=SDK_RETRIES + 1)
    return GoogleProvider(api_key=key, base_url=address, http_client=http, retry_options=retries)


def _openai_model(name: ModelName, provider: Provider[Any]) -> Model:
    """`openai:` is Responses at OpenAI, Chat Completions elsewhere: few other servers speak Responses."""
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

    responses = name.provider == "openai-responses" or (name.provider == "openai" and _is_openai(provider.base_url))
    return (OpenAIResponsesModel if responses else OpenAIChatModel)(name.name, provider=provider)


def _ollama_model(name: ModelName, provider: Provider[Any]) -> Model:
    from pydantic_ai.models.ollama import OllamaModel

    return OllamaModel(name.name, provider=provider)


def _anthropic_model(name: ModelName, provider: Provider[Any]) -> Model:
    from pydantic_ai.models.anthropic import AnthropicModel

    return AnthropicModel(name.name, provider=provider)


def _google_model(name: ModelName, provider: Provider[Any]) -> Model:
    from pydantic_ai.models.google import GoogleModel

    return GoogleModel(name.name, provider=provider)


def _openai_embedder(name: ModelName, provider: Provider[Any]) -> EmbeddingModel:
    """Also of a server that speaks OpenAI's protocol, Ollama among them."""
    from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel

    return OpenAIEmbeddingModel(name.name, provider=provider)


def _google_embedder(name: ModelName, provider: Provider[Any]) -> EmbeddingModel:
    from pydantic_ai.embeddings.google import GoogleEmbeddingModel

    # The family's models nest: their first 768 numbers are nearly as good as all 3072, at a quarter of the disk.
    return GoogleEmbeddingModel(name.name, provider=provider, settings={"dimensions": GOOGLE_DIMENSIONS})


def _is_openai(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


_CONNECTORS: dict[str, Callable[[str, str, httpx2.AsyncClient], Provider[Any]]] = {
    "openai": _connect_openai,
    "ollama": _connect_ollama,
    "anthropic": _connect_anthropic,
    "google": _connect_google,
}

_BUILDERS: dict[str, Callable[[ModelName, Provider[Any]], Model]] = {
    "openai": _openai_model,
    "ollama": _ollama_model,
    "anthropic": _anthropic_model,
    "google": _google_model,
}

_EMBEDDERS: dict[str, Callable[[ModelName, Provider[Any]], EmbeddingModel]] = {
    "openai": _openai_embedder,
    "ollama": _openai_embedder,
    "google": _google_embedder,
}
