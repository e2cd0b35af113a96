"""The stored form of a task's `trigger_config`: its secrets sealed beside their masks, newest first.

`{"verifier", "secrets": [{"sealed", "mask", "until"}], "header", "algorithm", "encoding", "prefix", "dedup", "filter",
"correlation", "trusted"}`.
A verifier of null was left to the server: a token when it has authentication on, else none.
"""

import base64
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

from app.credentials import Box, is_mask, mask
from app.errors import Conflict, InvalidRequest
from app.settings import Settings
from app.tasks.trigger import TriggerConfig
from app.verifiers import SECRET_FIELD, STANDARD_PREFIX

SECRET_BYTES = 24
Stored = dict[str, Any]


def stored(
    config: TriggerConfig, settings: Settings, *, workspace: UUID, task: UUID, previous: Mapping[str, Any] | None = None
) -> tuple[Stored, str | None]:
    """The config as a task row keeps it, and the secret if there is a new one.

    Args:
        config: What was asked for.
        settings: Whether authentication is on, and the keys that seal.
        workspace: The task's workspace.
        task: The task's id; the sealed secret opens only there.
        previous: What is stored now; its secret stays when none is given, or its mask.

    Raises:
        InvalidRequest: when the secret is a mask of nothing that is stored.
        ConfigurationError: when no encryption key is set.
    """
    values = config.model_dump(mode="json", exclude={"secret"})
    if config.verifier == "none":
        return {**values, "secrets": []}, None
    kept: list[Any] = list((previous or {}).get("secrets") or [])
    if config.verifier == "standard" and previous and previous["verifier"] != "standard":
        kept = []  # Its secrets have a form of their own.
    given = config.secret
    if given is not None and is_mask(given):
        if not kept or kept[0]["mask"] != given:
            raise InvalidRequest("this is a mask, not a secret: send the whole secret", field=SECRET_FIELD)
        given = None
    fresh = given or (new_secret(config.verifier) if not kept and _needs_secret(config, settings) else None)
    if fresh is not None:
        kept = [_sealed(fresh, settings, workspace, task)]
    if given is not None and config.verifier is None:
        values["verifier"] = "token"
    return {**values, "secrets": kept}, fresh


def rotated(
    config: Mapping[str, Any],
    settings: Settings,
    *,
    workspace: UUID,
    task: UUID,
    now: datetime,
    overlap_seconds: int,
    secret: str | None = None,
) -> tuple[Stored, str]:
    """The config with a new secret, the given one or one made here; the one before stays good for the overlap.

    Raises:
        Conflict: when the webhook takes no secret.
        InvalidRequest: when the verifier can't use the given one.
    """
    if config["verifier"] == "none":
        raise Conflict("this webhook takes no secret: its verifier is none")
    if secret is not None:
        _check(config, secret)
    fresh = secret or new_secret(config["verifier"])
    until = (now + timedelta(seconds=overlap_seconds)).isoformat()
    kept = [{**each, "until": until} for each in config["secrets"][:1]] if overlap_seconds else []
    return {**config, "secrets": [_sealed(fresh, settings, workspace, task), *kept]}, fresh


def _check(config: Mapping[str, Any], secret: str) -> None:
    if is_mask(secret):
        raise InvalidRequest("this is a mask, not a secret: send the whole secret", field="secret")
    try:
        TriggerConfig.model_validate({"verifier": config["verifier"], "header": config["header"], "secret": secret})
    except InvalidRequest as error:
        raise InvalidRequest(error.detail, field="secret") from error


def shown(config: Mapping[str, Any], secret: str | None = None) -> Stored:
    """What may be shown of a stored config: everything but the secret, which is whole only when it is given."""
    current: list[Any] = config["secrets"][:1]
    verifier = config["verifier"] or ("token" if current else "none")
    values = {name: value for name, value in config.items() if name not in ("secrets", "verifier")}
    return {"verifier": verifier, "secret": secret or (current[0]["mask"] if current else None), **values}


def webhook_url(settings: Settings, task: UUID, config: Mapping[str, Any], secret: str | None = None) -> str:
    """Where to send calls; the token in it is whole only when its secret is given."""
    url = f"{settings.base_url}/tasks/webhooks/{task}"
    current: list[Any] = config["secrets"][:1]
    if config["verifier"] not in (None, "token") or not current:
        return url
    return f"{url}?token={quote(secret) if secret else current[0]['mask']}"


def new_secret(verifier: str | None = None) -> str:
    """A secret nobody can guess, in the form its verifier wants."""
    if verifier == "standard":
        return STANDARD_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    return secrets.token_urlsafe(SECRET_BYTES)


def _needs_secret(config: TriggerConfig, settings: Settings) -> bool:
    return config.verifier is not None or settings.auth_on


def _sealed(secret: str, settings: Settings, workspace: UUID, task: UUID) -> Stored:
    box = Box.from_settings(settings)
    sealed = box.seal(secret, table="tasks", workspace=workspace, row=task, field=SECRET_FIELD)
    return {"sealed": sealed, "mask": mask(secret), "until": None}
