"""Who acts: principals, API keys and their scopes.

A key is `parley_<id>_<secret>`. The secret is 256 random bits, so its SHA-256 is stored and no slow hash is
needed; it is shown once, when the key is made.
"""

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.coalesce import Coalescer
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Database, Row
from app.errors import DatabaseUnavailable, InvalidRequest, NotFound, Unauthenticated
from app.models import ApiKey, new_id
from app.models import Principal as PrincipalRow
from app.settings import Settings

ADMIN = "admin"
GROUPS = (
    "agents",
    "approvals",
    "artifacts",
    "conversations",
    "credentials",
    "deliveries",
    "documents",
    "memories",
    "runs",
    "tasks",
    "tools",
)
VERBS = ("read", "write")
SCOPES = (ADMIN, *(f"{group}:{verb}" for group in GROUPS for verb in VERBS))
WILDCARDS = (*(f"*:{verb}" for verb in VERBS), *(f"{group}:*" for group in GROUPS))

ADMIN_PRINCIPAL = UUID("00000000-0000-7000-8000-000000000003")
KEY = re.compile(r"parley_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
FLUSH_SECONDS = 15.0


@dataclass(frozen=True)
class Principal:
    """Who makes a request.

    Attributes:
        id: The principal's row.
        workspace_id: The only workspace this principal sees.
        name: For people: the key's or the user's name.
        scopes: What it may do.
        kind: key, user or system.
        key_id: The API key it came with, None for the configured admin key and for local use.
    """

    id: UUID
    workspace_id: UUID
    name: str
    scopes: frozenset[str]
    kind: str
    key_id: UUID | None = None

    def may(self, scope: str) -> bool:
        """Whether the scopes of this principal cover one."""
        group, _, verb = scope.partition(":")
        verbs = VERBS if verb == "read" else (verb,)  # who may write may read
        covering = {ADMIN, scope, f"{group}:*", *(f"{each}:{verb}" for each in (group, "*") for verb in verbs)}
        return not covering.isdisjoint(self.scopes)


# Whoever reaches a server without authentication: it listens on this machine alone.
LOCAL = Principal(SYSTEM_PRINCIPAL, DEFAULT_WORKSPACE, "local", frozenset({ADMIN}), "system")
CONFIGURED_ADMIN = Principal(ADMIN_PRINCIPAL, DEFAULT_WORKSPACE, "admin", frozenset({ADMIN}), "key")

SEED = """
with workspace as (
    insert into workspaces (id, name) values ($1, 'default') on conflict do nothing
)
insert into principals (id, workspace_id, kind, name)
values ($2, $1, 'system', 'system'), ($3, $1, 'key', 'admin') on conflict do nothing
"""


async def seed(database: Database) -> None:
    """Make the default workspace and its first principals, where they are missing; any number may call it at once."""
    await database.execute(SEED, DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, ADMIN_PRINCIPAL)


# --- who is it? -----------------------------------------------------------------------------------

# The principal's row says the workspace: a key can't be used for another.
FIND_KEY = """
select k.id, k.secret_sha256, k.scopes, k.principal_id, k.workspace_id, k.name,
    k.revoked_at is not null as revoked, coalesce(k.expires_at <= now(), false) as expired
from api_keys k where k.id = any($1::uuid[])
"""


@dataclass(frozen=True, eq=False)
class _Asked:
    """One request's question for a key: equal to no other."""

    key_id: UUID


class Doorkeeper:
    """Says who calls. Requests that come together are answered by one look at the keys, which is never an old one."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Look keys up in this database's engine pool."""
        self._database = database
        self._settings = settings
        self._seam: Coalescer[_Asked, Row | None] = Coalescer(self._together, self._alone, key=lambda asked: asked)

    async def authenticate(self, key: str | None) -> Principal:
        """The principal of an API key.

        Raises:
            Unauthenticated: without a key, or with one that is unknown, revoked or expired.
        """
        if not key:
            raise Unauthenticated
        configured = self._settings.parley_admin_key
        if configured and hmac.compare_digest(_sha256(key), _sha256(configured.get_secret_value())):
            return CONFIGURED_ADMIN
        matched = KEY.fullmatch(key)
        row = await self._seam.do(_Asked(UUID(matched[1]))) if matched else None
        # One comparison whether or not the key exists, and one answer for both.
        stored = row["secret_sha256"] if row else ""
        if not hmac.compare_digest(stored, _sha256(matched[2] if matched else key)) or row is None:
            raise Unauthenticated("the API key is not known here")
        if row["revoked"] or row["expired"]:
            raise Unauthenticated(f"the API key {row['name']!r} is {'revoked' if row['revoked'] else 'expired'}")
        return Principal(
            row["principal_id"], row["workspace_id"], row["name"], frozenset(row["scopes"]), "key", key_id=row["id"]
        )

    async def _together(self, asked: list[_Asked]) -> dict[Hashable, Row | None]:
        rows = await self._database.fetch(FIND_KEY, list({each.key_id for each in asked}))
        by_id = {row["id"]: row for row in rows}
        return {each: by_id.get(each.key_id) for each in asked}

    async def _alone(self, asked: _Asked) -> Row | None:
        return (await self._together([asked]))[asked]


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


class LastUse:
    """Remembers which keys were used and writes it down now and then: a request itself writes nothing."""

    def __init__(self, database: Database) -> None:
        """Begin with none."""
        self._database = database
        self._used: set[UUID] = set()

    def note(self, principal: Principal) -> None:
        """The principal made a request."""
        if principal.key_id:
            self._used.add(principal.key_id)

    async def flush(self) -> None:
        """Write down what was noted."""
        used, self._used = self._used, set()
        if used:
            await self._database.execute("update api_keys set last_used_at = now() where id = any($1)", list(used))

    async def run(self) -> None:
        """Flush every few seconds until cancelled; what an outage swallows is of no value later."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            with contextlib.suppress(DatabaseUnavailable):
                await self.flush()


# --- who is behind an address? ----------------------------------------------------------------------

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


# --- keys -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewKey:
    """A key just made, with the text that is shown once."""

    row: ApiKey
    text: str


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes, each once, sorted.

    Raises:
        InvalidRequest: naming the one that does not exist.
    """
    known = {*SCOPES, *WILDCARDS}
    for position, scope in enumerate(scopes := list(scopes)):
        if scope not in known:
            raise InvalidRequest(
                f"{scope!r} is no scope; there are {', '.join(SCOPES)} (and *:read, *:write, GROUP:*)",
                field=f"scopes.{position}",
            )
    return sorted(set(scopes))


async def create_key(
    session: AsyncSession,
    workspace_id: UUID,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    *,
    key_id: UUID | None = None,
    email: str | None = None,
    slack_user_id: str | None = None,
) -> NewKey:
    """Make a key with a principal of its own; with an address or a Slack id, its scopes are that person's answers', too."""
    secret = secrets.token_urlsafe(32)
    principal = PrincipalRow(
        id=new_id(), workspace_id=workspace_id, kind="key", name=name, email=email, slack_user_id=slack_user_id
    )
    session.add(principal)
    await session.flush()
    row = ApiKey(
        id=key_id or new_id(),
        workspace_id=workspace_id,
        principal_id=principal.id,
        name=name,
        secret_sha256=_sha256(secret),
        scopes=check_scopes(scopes),
        expires_at=expires_at,
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return NewKey(row, f"parley_{row.id.hex}_{secret}")


async def get_key(session: AsyncSession, workspace_id: UUID, key_id: UUID) -> ApiKey:
    """A key of the workspace.

    Raises:
        NotFound: when there is none.
    """
    row = await session.scalar(select(ApiKey).where(ApiKey.workspace_id == workspace_id, ApiKey.id == key_id))
    if row is None:
        raise NotFound(f"there is no key {key_id}")
    return row


async def list_keys(session: AsyncSession, workspace_id: UUID, after: UUID | None, limit: int) -> Sequence[ApiKey]:
    """Keys of the workspace, newest first, from after one on."""
    query = select(ApiKey).where(ApiKey.workspace_id == workspace_id)
    if after:
        query = query.where(ApiKey.id < after)
    return (await session.scalars(query.order_by(ApiKey.id.desc()).limit(limit))).all()


async def principals_of(session: AsyncSession, keys: Iterable[ApiKey]) -> dict[UUID, PrincipalRow]:
    """Whose keys they are, by principal."""
    rows = await session.scalars(select(PrincipalRow).where(PrincipalRow.id.in_([key.principal_id for key in keys])))
    return {row.id: row for row in rows}


async def revoke_key(session: AsyncSession, workspace_id: UUID, key_id: UUID) -> None:
    """End a key at once; doing so again changes nothing.

    Raises:
        NotFound: when there is none.
    """
    row = await get_key(session, workspace_id, key_id)
    await session.execute(
        update(ApiKey).where(ApiKey.id == row.id).values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
    )
