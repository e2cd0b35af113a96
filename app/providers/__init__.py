"""Model providers: a string becomes a model, a provider's exception becomes one of our errors.

Importing this package imports no provider's library; that happens when a model of it is first used.
"""

from app.providers.clients import Providers
from app.providers.failures import classify, cost_of
from app.providers.names import DEMO, check_model, default_model, missing_key
from app.providers.scripted import ModelFactory

__all__ = [
    "DEMO",
    "ModelFactory",
    "Providers",
    "check_model",
    "classify",
    "cost_of",
    "default_model",
    "missing_key",
]
