"""Who answers: the principals behind a Slack user or an e-mail address, and whether one of them may."""

from typing import Any, cast
from uuid import UUID

from app.db import Database
from app.egress import Egress
from app.errors import EgressFailed, EgressRefused, ToolError, Unavailable
from app.identity import ADMIN, Principal
from app.messages import Json
from app.settings import Settings

WRITE, DECIDE = "conversations:write", "approvals:write"
INFO_SECONDS = 2.0  # Slack waits three for its answer.
MAX_BYTES = 200_000

# A key's scopes are its principal's; revoked and expired ones give none.
PEOPLE = """
select p.id, p.name, p.kind, (
    select coalesce(array_agg(distinct s), '{}') from api_keys k, unnest(k.scopes) s
    where k.principal_id = p.id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())) as scopes
from principals p where p.workspace_id = $1 and (p.slack_user_id = $2 or lower(p.email) = lower($3)) order by p.id
"""


async def people(
    database: Database,
    settings: Settings,
    workspace_id: UUID,
    *,
    slack_user: str | None = None,
    email: str | None = None,
) -> list[Principal]:
    """The principals of a workspace that are this person; while the server asks nobody for a key they may do all."""
    rows = await database.fetch(PEOPLE, workspace_id, slack_user, email)
    everything: frozenset[str] = frozenset() if settings.auth_on else frozenset({ADMIN})
    return [
        Principal(row["id"], workspace_id, row["name"], everything | frozenset(row["scopes"]), row["kind"])
        for row in rows
    ]


def who_may(found: list[Principal], scope: str) -> Principal | None:
    """The first of them that may do it."""
    return next((each for each in found if each.may(scope)), None)


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
