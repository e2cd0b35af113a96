"""The files of a message in Slack, fetched with the bot's token.

https://docs.slack.dev/reference/objects/file-object: `url_private` is handed out to tokens with the scope `files:read`. To any
other Slack shows a page to sign in at, with 200.
"""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

from pydantic import BaseModel

from app.answers.files import File, file_name
from app.answers.take import NOT_KEPT
from app.artifacts import MAX_ATTACHED
from app.egress import Egress
from app.errors import EgressFailed, EgressRefused, ToolError
from app.settings import Settings

FILES_ORIGIN = ("https", "files.slack.com")
FETCH_SECONDS = 10.0
NO_SCOPE = "Slack did not hand it out: the app needs the scope files:read"


class SharedFile(BaseModel):
    """A file that hangs on a message, as Slack tells of it."""

    name: str | None = None
    mimetype: str | None = None
    url_private: str | None = None


async def fetch_files(egress: Egress, settings: Settings, shared: Sequence[SharedFile]) -> tuple[list[File], list[str]]:
    """The contents of files, and a word about each that could not be had."""
    found = await asyncio.gather(*(_fetch(egress, settings, each) for each in shared[:MAX_ATTACHED]))
    too_many = [_not_kept(each, "there were too many") for each in shared[MAX_ATTACHED:]]
    files = [each for each in found if isinstance(each, File)]
    return files, [each for each in found if isinstance(each, str)] + too_many


async def _fetch(egress: Egress, settings: Settings, shared: SharedFile) -> File | str:
    url, token = shared.url_private or "", settings.slack_bot_token
    origin, api = _origin(url), _origin(settings.slack_api_url)
    # The token goes to Slack alone, whatever a message says.
    if token is None or origin not in (FILES_ORIGIN, api):
        return _not_kept(shared, "Slack does not say where it is")
    try:
        answer = await egress.fetch(
            "GET",
            url,
            headers={"Authorization": f"Bearer {token.get_secret_value()}"},
            timeout_seconds=FETCH_SECONDS,
            max_bytes=settings.parley_artifact_bytes,
            operator_url=origin == api,
        )
    except (EgressFailed, EgressRefused, ToolError) as error:
        return _not_kept(shared, error.detail)
    if answer.status != 200:
        return _not_kept(shared, NO_SCOPE if answer.status in (302, 401, 403) else f"Slack answered {answer.status}")
    media_type = (shared.mimetype or answer.content_type).lower()
    if answer.content_type == "text/html" != media_type:
        return _not_kept(shared, NO_SCOPE)
    return File(shared.name or "", media_type, answer.body)


def _origin(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc


def _not_kept(shared: SharedFile, why: str) -> str:
    return NOT_KEPT.format(file_name(shared.name or "") or "without a name", why)
