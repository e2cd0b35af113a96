"""Models of one's own, offered as `scripted:NAME` in the process that registers them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from app.errors import ModelFailed

if TYPE_CHECKING:
    from pydantic_ai.models import Model

ModelFactory: TypeAlias = "Callable[[], Model]"

NamedFactory: TypeAlias = "Callable[[str], Model]"

extended: dict[str, NamedFactory] = {}  # Providers that extensions add.
_factories: dict[str, ModelFactory] = {}


def register(name: str, factory: ModelFactory) -> None:
    """Offer a model as `scripted:NAME`; a later one of the same name replaces it."""
    _factories[name] = factory


def is_registered(name: str) -> bool:
    """Whether this process knows `scripted:NAME`."""
    return name in _factories


def make(name: str) -> "Model":
    """The model of `scripted:NAME`.

    Raises:
        ModelFailed: when this process knows none of that name.
    """
    if name not in _factories:
        raise ModelFailed(f"scripted:{name} is not registered in this process")
    return _factories[name]()
