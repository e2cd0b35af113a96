"""Credentials in use: opened at the moment of a call, tokens fetched once for all who wait for one.

Who fetches a token first takes the row's `refresher` for a while; nobody holds a transaction or a lock across the
network. A new token, and a refresh token that was rotated with it, are stored in one statement, and only by the holder.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote_plus, urlencode
from uuid import UUID

from app.credentials.box import Box
from app.credentials.kinds import KINDS, ApiKey, Basic, Bearer, CredentialKind, Headers, OAuth2
from app.credentials.rows import TABLE, TOKEN, open_secrets, seal_secrets
from app.db import Database, Row
from app.egress import Egress, Response
from app.errors import CredentialUnreadable, DatabaseUnavailable, EgressFailed, ToolError, Unreadable
from app.models import new_id
from app.redaction import redact, remember

TOKEN_SECONDS = 15.0  # One request to a token endpoint.
HOLD_SECONDS = 45.0  # After which a refresher counts as dead: longer than its requests and its writing.
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05
MAX_TOKEN_BYTES = 100_000
# A token is used up this much before it expires: calls take time, and clocks differ.
MARGIN_SECONDS, MARGIN_SHARE = 30.0, 0.1
STORE_TRIES = 6
UNREADABLE_SECONDS = 30.0  # After which a run looks again whether its credential can be opened.

LOAD = """
select id, workspace_id, name, kind, public, secret, token, token_no,
    coalesce(token_expires_at > now(), token is not null) as fresh
from credentials where workspace_id = $1 and name = $2
"""
# Nobody else holds it, and the token is still the one that was found wanting.
HOLD = """
update credentials set refresher = $3, refreshing_until = now() + make_interval(secs => $4::float)
where id = $1 and token_no = $2 and (refresher is null or refreshing_until < now())
returning id, workspace_id, name, kind, public, secret
"""
STORE = """
update credentials set token = $3, secret = $4, token_no = token_no + 1, refresher = null, refreshing_until = null,
    token_expires_at = now() + make_interval(secs => $5::float)
where id = $1 and refresher = $2
"""
LET_GO = "update credentials set refresher = null, refreshing_until = null where id = $1 and refresher = $2"
LATEST = "select token_no from credentials where id = $1"


@dataclass(frozen=True)
class Access:
    """What a credential puts on one request.

    Attributes:
        headers: Headers to send.
        query: Query parameters to send.
        secrets: What must not be seen in an answer.
        token_no: Of an OAuth credential, which of its tokens this is.
    """

    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    query: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    token_no: int | None = None


NOTHING = Access()


class Credentials:
    """The credentials of all workspaces, for calls that need one."""

    def __init__(self, database: Database, box: Box, egress: Egress) -> None:
        """Open with this box what this database holds."""
        self._database = database
        self._box = box
        self._egress = egress
        self._flights: dict[tuple[UUID, int], asyncio.Task[None]] = {}

    async def check(self, workspace_id: UUID, name: str) -> None:
        """Find out before a call whether a credential, if it is there, can be opened.

        Raises:
            CredentialUnreadable: when it can't.
        """
        row = await self._database.fetchrow(LOAD, workspace_id, name)
        if row is not None:
            self._kind_of(row)

    async def access(self, workspace_id: UUID, name: str, *, stale: int | None = None) -> Access:
        """What a credential puts on a request.

        Args:
            workspace_id: Whose credential it is.
            name: The credential's name.
            stale: The number of a token that was refused: a newer one is needed.

        Raises:
            CredentialUnreadable: when it can't be opened with the configured keys.
            ToolError: when there is none of that name, or no token can be had.
        """
        row = await self._load(workspace_id, name)
        kind = self._kind_of(row)
        static = _static(kind)
        remember(static.secrets, workspace_id)  # In the spellings of this kind, too.
        if not isinstance(kind, OAuth2):
            return static
        token, secrets = self._token_of(row), static.secrets
        if token is None or not row["fresh"] or row["token_no"] == stale:
            await self._renew(row)
            row = await self._load(workspace_id, name)
            token = self._token_of(row)
            secrets = (*secrets, *_static(self._kind_of(row)).secrets)  # A refresh token was rotated, maybe.
        if token is None:
            raise ToolError(f"the credential {name} was changed while a token was fetched for it")
        return Access({"authorization": f"Bearer {token}"}, {}, (*secrets, token), row["token_no"])

    async def _load(self, workspace_id: UUID, name: str) -> Row:
        row = await self._database.fetchrow(LOAD, workspace_id, name)
        if row is None:
            raise ToolError(f"there is no credential {name!r}: it was deleted or renamed")
        return row

    def _kind_of(self, row: Row) -> CredentialKind:
        try:
            secrets = open_secrets(self._box, row["workspace_id"], row["id"], row["secret"])
        except Unreadable as error:
            raise CredentialUnreadable(
                f"the credential {row['name']} is unreadable: {error.detail}", retry_after=UNREADABLE_SECONDS
            ) from error
        return KINDS[row["kind"]].model_validate(row["public"] | secrets)

    def _token_of(self, row: Row) -> str | None:
        """The stored token; one that can't be opened is as good as none."""
        try:
            return self._box.open(row["token"], **_place(row)) if row["token"] else None
        except Unreadable:
            return None

    # --- one fetch for all who wait ----------------------------------------------------------------

    async def _renew(self, row: Row) -> None:
        """Have a newer token than this row's; whoever asks meanwhile, in any process, waits for the same one."""
        key = row["id"], row["token_no"]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fly(*key))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        # A caller that gives up must not lose the refresh token that is being rotated.
        await asyncio.shield(flight)

    async def _fly(self, row_id: UUID, token_no: int) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not await self._held(row_id, token_no):
                    if await self._database.fetchval(LATEST, row_id) != token_no:
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise ToolError("another process is fetching a token for this credential and does not finish") from error

    async def _held(self, row_id: UUID, token_no: int) -> bool:
        """Fetch the token, unless somebody else is doing so."""
        me = new_id()
        row = await self._database.fetchrow(HOLD, row_id, token_no, me, HOLD_SECONDS)
        if row is None:
            return False
        try:
            await self._fetch(row, me)
        except BaseException:  # cancelled or failed: others need not wait for the hold to run out
            await self._database.execute(LET_GO, row_id, me)
            raise
        return True

    async def _fetch(self, row: Row, me: UUID) -> None:
        kind = self._kind_of(row)
        assert isinstance(kind, OAuth2), "only OAuth credentials have tokens"
        got = await self._granted(kind, row)
        rotated = got.get("refresh_token")
        secrets = kind.secrets
        if kind.grant == "refresh_token" and isinstance(rotated, str) and rotated:
            secrets = secrets | {"refresh_token": rotated}
        sealed = self._box.seal(got["access_token"], **_place(row))
        kept = seal_secrets(self._box, row["workspace_id"], row["id"], secrets)
        await self._store(row["id"], me, sealed, kept, _lifetime(got.get("expires_in")))

    async def _store(self, *values: Any) -> None:
        """Keep what was granted: a rotated refresh token is the only one there is, so an outage is waited out."""
        for pause in (0.1 * 2**n for n in range(STORE_TRIES)):
            try:
                await self._database.execute(STORE, *values)
                return
            except DatabaseUnavailable:
                await asyncio.sleep(pause)
        await self._database.execute(STORE, *values)

    async def _granted(self, kind: OAuth2, row: Row) -> dict[str, Any]:
        """The token endpoint's answer.

        Raises:
            ToolError: saying what it answered instead.
        """
        name, egress = row["name"], self._egress.of(row["workspace_id"])
        answer = await _ask(egress, kind, kind.client_auth or "post")
        if kind.client_auth is None and kind.client_secret and _says(answer, "invalid_client"):
            answer = await _ask(egress, kind, "basic")
        got = _object(answer)
        if answer.status == 200 and isinstance(got.get("access_token"), str) and got["access_token"].isprintable():
            return got
        said = " ".join(str(got[each])[:200] for each in ("error", "error_description") if got.get(each))
        detail = f"no token for the credential {name}: the token endpoint answered {answer.status} {said}".rstrip()
        raise ToolError(redact(detail, _static(kind).secrets))


async def _ask(egress: Egress, kind: OAuth2, client_auth: str) -> Response:
    form = {"grant_type": kind.grant}
    if kind.grant == "refresh_token":
        form["refresh_token"] = kind.refresh_token or ""
    if kind.scopes:
        form["scope"] = " ".join(kind.scopes)
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if client_auth == "basic":
        headers["authorization"] = _client_basic(kind)
    else:
        form |= {"client_id": kind.client_id, "client_secret": kind.client_secret or ""}
    sent = urlencode({name: value for name, value in form.items() if value})
    return await egress.fetch(
        "POST",
        kind.token_url,
        headers=headers,
        content=sent,
        timeout_seconds=TOKEN_SECONDS,
        max_bytes=MAX_TOKEN_BYTES,
    )


def _static(kind: CredentialKind) -> Access:
    """What a credential without tokens puts on a request."""
    match kind:
        case ApiKey(place="query"):
            return Access({}, {kind.key: kind.value}, (kind.value,))
        case ApiKey():
            return Access({kind.key: kind.value}, {}, (kind.value,))
        case Bearer():
            return Access({"authorization": f"Bearer {kind.token}"}, {}, (kind.token,))
        case Basic():
            header = _basic(kind.username, kind.password)
            return Access({"authorization": header}, {}, (kind.password, header.partition(" ")[2]))
        case Headers():
            return Access(kind.headers, {}, tuple(kind.headers.values()))
        case OAuth2():
            secrets = [text for text in (kind.client_secret, kind.refresh_token) if text]
            if kind.client_secret:  # As the token endpoint may be told it, and others write it.
                plain = _basic(kind.client_id, kind.client_secret)
                secrets += [header.partition(" ")[2] for header in (_client_basic(kind), plain)]
            return Access(secrets=tuple(secrets))
        case _:
            return NOTHING


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _client_basic(kind: OAuth2) -> str:
    """How a client names itself in a header: RFC 6749, section 2.3.1."""
    return _basic(quote_plus(kind.client_id), quote_plus(kind.client_secret or ""))


def _place(row: Row) -> dict[str, Any]:
    return {"table": TABLE, "workspace": row["workspace_id"], "row": row["id"], "field": TOKEN}


def _says(answer: Response, error: str) -> bool:
    return answer.status in (400, 401) and _object(answer).get("error", error) == error


def _object(answer: Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except EgressFailed:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _lifetime(expires_in: object) -> float | None:
    """Seconds a token may be used, None when it has no end that is known."""
    try:
        seconds = float(expires_in)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None
    seconds = min(max(seconds, 0.0), 1e9)
    return seconds - min(MARGIN_SECONDS, seconds * MARGIN_SHARE)
