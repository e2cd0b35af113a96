"""`Idempotency-Key`: a POST that is sent again makes nothing twice.

The row is inserted in the transaction that creates the resource, first of all, with an id the route has made
before. A repeat finds it and shows the resource in its present state.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.access import Caller
from app.api.strict import StrictRequest
from app.db import Connection, Database
from app.errors import IdempotencyConflict, InvalidRequest

KEPT_HOURS = 24
KEY = re.compile(r"[\x21-\x7e]{1,255}")

# A key under way in another transaction makes this wait for it; one kept long enough is taken over.
CLAIM = f"""
insert into idempotency as kept (workspace_id, principal_id, route, key, body_sha256, resource_kind, resource_id)
values (:workspace, :principal, :route, :key, :sha256, :kind, :id)
on conflict (workspace_id, principal_id, route, key) do update set body_sha256 = excluded.body_sha256,
    resource_kind = excluded.resource_kind, resource_id = excluded.resource_id, created_at = now()
where kept.created_at < now() - interval '{KEPT_HOURS} hours'
returning true
"""
FIND = """
select body_sha256, resource_kind, resource_id from idempotency
where workspace_id = :workspace and principal_id = :principal and route = :route and key = :key
"""
GIVE_BACK = "delete from idempotency where resource_id = :id and key = :key returning true"
FORGET = f"delete from idempotency where created_at < now() - interval '{KEPT_HOURS} hours'"


@dataclass(frozen=True)
class Repeat:
    """What the first request of a key made."""

    kind: str
    id: str

    @property
    def uuid(self) -> UUID:
        """The id of a resource that has a UUID."""
        return UUID(self.id)


@dataclass(frozen=True)
class IdempotencyKey:
    """The key of one request; None when it sent none."""

    key: str | None
    route: str
    body_sha256: str

    async def claim(self, door: Connection | AsyncSession, caller: Caller, kind: str, id: object) -> Repeat | None:
        """Take the key for a resource about to be made; call it first in the creating transaction.

        Args:
            door: The connection of an `engine_tx()`, or a session.
            caller: Who makes it.
            kind: The kind of the resource, such as `task`.
            id: Its id, made before.

        Returns:
            None: go on and make it. Else what was made before: show that instead.

        Raises:
            IdempotencyConflict: when the key was used with another body.
        """
        if self.key is None:
            return None
        values = {**self._who(caller), "sha256": self.body_sha256, "kind": kind, "id": str(id)}
        if await _row(door, CLAIM, values):
            return None
        made = await self.made(door, caller)
        assert made is not None, "a key that can't be inserted is there"
        return made

    async def made(self, door: Connection | AsyncSession, caller: Caller) -> Repeat | None:
        """What a request of this key has made already: asked before work that goes ahead of the creating transaction.

        Raises:
            IdempotencyConflict: when the key was used with another body.
        """
        kept = await _row(door, FIND, self._who(caller)) if self.key is not None else None
        if kept is None:
            return None
        if kept["body_sha256"] != self.body_sha256:
            raise IdempotencyConflict
        return Repeat(kept["resource_kind"], kept["resource_id"])

    def _who(self, caller: Caller) -> dict[str, Any]:
        return {
            "workspace": caller.workspace_id,
            "principal": caller.principal.id,
            "route": self.route,
            "key": self.key,
        }

    async def give_back(self, door: Connection | AsyncSession, id: object) -> None:
        """Let go of a key that was taken for a resource which was refused after all."""
        if self.key is not None:
            await _row(door, GIVE_BACK, {"id": str(id), "key": self.key})


async def _row(door: Connection | AsyncSession, statement: str, values: dict[str, Any]) -> Any:
    if isinstance(door, AsyncSession):
        return (await door.execute(text(statement), values)).mappings().first()
    names = list(values)
    numbered = re.sub(r"(?<!:):([a-z]\w*)", lambda name: f"${names.index(name[1]) + 1}", statement)
    return await door.fetchrow(numbered, *values.values())


async def idempotency_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Sent again with the same body within 24 hours, it makes nothing twice.",
            examples=["4f9c1d0e-order-17"],
        ),
    ] = None,
) -> IdempotencyKey:
    """The key that came with a request."""
    if key is None:
        return IdempotencyKey(None, "", "")
    if not KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key: 1 to 255 visible ASCII characters", field="Idempotency-Key")
    return IdempotencyKey(key, f"{request.method} {request.url.path}", await _body_sha256(request))


async def _body_sha256(request: Request) -> str:
    body = await request.body()
    # The same JSON in another spelling is the same body.
    if isinstance(request, StrictRequest) and body:
        body = json.dumps(request.value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(body).hexdigest()


Idempotent = Annotated[IdempotencyKey, Depends(idempotency_key)]


async def forget_old(database: Database) -> None:
    """Delete the keys that are kept no longer."""
    await database.execute(FORGET)
