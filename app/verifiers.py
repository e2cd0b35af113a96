"""Verifiers of inbound webhook calls that extensions add: who may call, told from the call itself."""

from collections.abc import Callable, Mapping, Sequence

from app.errors import ConfigurationError

# Handed the headers (names in lower case), the raw body and the secrets that are good now; says whether to take the call.
Verifier = Callable[[Mapping[str, str], bytes, Sequence[str]], bool]

OWN = ("bearer", "token", "none")
VERIFIERS: dict[str, Verifier] = {}


def add_verifier(name: str, verifier: Verifier) -> None:
    """Offer a verifier of an extension to every webhook task.

    Raises:
        ConfigurationError: when there is another of that name.
    """
    if name in OWN or VERIFIERS.setdefault(name, verifier) is not verifier:
        raise ConfigurationError(f"there is a verifier called {name} already")
