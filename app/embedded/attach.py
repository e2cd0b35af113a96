"""Joins what runs already: processes that nobody handed any settings find the embedded servers of their home."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from app.embedded.home import Home, running
from app.settings import Settings

KEPT = {"parley_secret": "secret", "parley_encryption_keys": "encryption_keys"}


def with_running_servers(settings: Settings) -> Settings:
    """The settings, completed by what runs in their home: the servers' DSNs and the secrets `parley up` keeps there.

    What is set stays as it is; where nothing runs, nothing changes.
    """
    run = running(settings.parley_home)
    if run is None:
        return settings
    found = {"database_url": run.database_url, "redis_url": run.redis_url, **_secrets(settings.parley_home)}
    missing: dict[str, Any] = {
        name: SecretStr(value) for name, value in found.items() if value and getattr(settings, name) is None
    }
    return settings.model_copy(update=missing)


def _secrets(path: Path) -> dict[str, str]:
    home = Home(path)
    return {field: home.secret(name, str) for field, name in KEPT.items() if home.has_secret(name)}
