"""Who answers in Slack, and the scopes that answers need."""

from typing import Any, cast

from app.egress import Egress
from app.errors import EgressFailed, EgressRefused, ToolError, Unavailable
from app.messages import Json
from app.settings import Settings

WRITE = "conversations:write"
INFO_SECONDS = 2.0  # Slack waits three for its answer.
MAX_BYTES = 200_000


async def slack_email(egress: Egress, settings: Settings, *, team: str, user: str) -> str | None:
    """The e-mail address that Slack has confirmed for a member of the team; None where it says none.

    People of other organizations who share a channel, and bots, have none here: their addresses are nobody's word.

    Raises:
        Unavailable: when Slack can't be asked now.
    """
    if settings.slack_bot_token is None:
        return None
    try:
        answer = await egress.fetch(
            "GET",
            f"{settings.slack_api_url.rstrip('/')}/users.info?user={user}",
            headers={"Authorization": f"Bearer {settings.slack_bot_token.get_secret_value()}"},
            timeout_seconds=INFO_SECONDS,
            max_bytes=MAX_BYTES,
            operator_url=True,
        )
        told: Any = answer.json()
    except (EgressFailed, EgressRefused, ToolError) as error:
        raise Unavailable(f"Slack can't be asked who {user} is: {error.detail}", retry_after=5) from error
    if answer.status == 429 or answer.status >= 500:
        raise Unavailable(f"Slack answered {answer.status} when asked who {user} is", retry_after=5)
    return _confirmed(told, team)


def _confirmed(told: Any, team: str) -> str | None:
    if not isinstance(told, dict):
        return None
    said = cast("Json", told)
    info: Json = said.get("user") or {} if said.get("ok") is True else {}
    outsider = any(info.get(name) for name in ("deleted", "is_bot", "is_stranger", "is_restricted"))
    if outsider or info.get("team_id") != team or info.get("is_email_confirmed") is False:
        return None
    profile: Json = info.get("profile") or {}
    email = profile.get("email")
    return email if isinstance(email, str) and "@" in email else None
