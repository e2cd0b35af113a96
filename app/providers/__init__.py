"""Model providers: a string becomes a model, a provider's exception becomes one of our errors.

Importing this package imports no provider's library, nor the agent library: processes that only accept or time work
need the names alone. The rest is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.providers.names import (
    DEMO,
    LOCAL,
    Circuit,
    add_provider,
    check_model,
    circuits,
    default_embedder,
    default_model,
    missing_key,
)

if TYPE_CHECKING:
    from app.providers.clients import Providers
    from app.providers.failures import classify, cost_of
    from app.providers.scripted import ModelFactory

HOMES = {"Providers": "clients", "classify": "failures", "cost_of": "failures", "ModelFactory": "scripted"}

__all__ = [
    "DEMO",
    "LOCAL",
    "Circuit",
    "ModelFactory",
    "Providers",
    "add_provider",
    "check_model",
    "circuits",
    "classify",
    "cost_of",
    "default_embedder",
    "default_model",
    "missing_key",
]


def __getattr__(name: str) -> Any:
    """Import what runs models when it is first asked for."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
