"""Who calls, and whether they may: the dependency at the head of every route."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from app import audit
from app.api.limits import FORGERS, LOCAL, READS, STRANGERS, WRITES, RateLimits
from app.api.metrics import Metrics
from app.api.problems import request_id_of
from app.db import DEFAULT_WORKSPACE, Database
from app.errors import MissingScope, Unauthenticated
from app.executor import Engine
from app.identity import LOCAL as LOCAL_PRINCIPAL
from app.identity import Doorkeeper, LastUse, Principal
from app.settings import Settings


@dataclass
class Edge:
    """What the API keeps for itself beside the engine."""

    limits: RateLimits
    doorkeeper: Doorkeeper
    last_use: LastUse
    metrics: Metrics
    seeded: bool = False


@dataclass(frozen=True)
class Caller:
    """A request's principal, and what its route works with."""

    engine: Engine
    principal: Principal
    request_id: str | None
    address: str | None

    @property
    def workspace_id(self) -> UUID:
        """The only workspace this caller sees."""
        return self.principal.workspace_id

    @property
    def settings(self) -> Settings:
        """The server's settings."""
        return self.engine.settings

    @property
    def database(self) -> Database:
        """Both doors to PostgreSQL."""
        return self.engine.database

    def require(self, scope: str) -> None:
        """Refuse a caller without a scope.

        Raises:
            MissingScope: naming the scope.
        """
        if not self.principal.may(scope):
            raise MissingScope(f"this call needs the scope {scope}", extra={"scope": scope})

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session in the caller's workspace."""
        return self.database.transaction(self.workspace_id)

    def entry(self, action: str, kind: str, subject: object, **detail: Any) -> audit.Entry:
        """An audit entry of something this caller does."""
        return audit.Entry(
            self.workspace_id, self.principal.id, action, kind, str(subject), detail, self.request_id, self.address
        )


def server_only(caller: Caller, what: str) -> None:
    """Refuse what is the server's and not a workspace's to admins of any workspace but the server's own.

    Raises:
        MissingScope: saying what is not theirs.
    """
    if caller.workspace_id != DEFAULT_WORKSPACE:
        raise MissingScope(f"{what}: ask whoever runs the server")


BEARER = HTTPBearer(
    auto_error=False,
    description="An API key, `parley_<id>_<secret>`. Not needed while the server listens on this machine alone.",
)


def engine_of(request: Request) -> Engine:
    """The engine of this process, opened in the application's lifespan."""
    return request.app.state.engine


def edge_of(request: Request) -> Edge:
    """The API's own state."""
    return request.app.state.edge


async def count_forger(request: Request) -> None:
    """Count a call that could not be verified, by its address; none is counted while authentication is off.

    Raises:
        RateLimited: when there were too many.
    """
    if engine_of(request).settings.auth_on:
        await edge_of(request).limits.check(FORGERS, request.client.host if request.client else "unknown")


def may(scope: str) -> Any:
    """The scope a route needs, as it stands beside its `Caller` in `Annotated`.

    Raises:
        Unauthenticated: without a valid key.
        MissingScope: naming the scope.
        RateLimited: when there were too many requests.
    """
    return Depends(_requirement(scope))


def _requirement(scope: str) -> Callable[..., Any]:
    async def caller(
        request: Request,
        credentials: HTTPAuthorizationCredentials | None = Depends(BEARER),  # noqa: B008 - FastAPI's way
    ) -> Caller:
        engine, edge = engine_of(request), edge_of(request)
        address = request.client.host if request.client else None
        principal = await _principal(engine, edge, credentials, address)
        called = Caller(engine, principal, request_id_of(request.scope), address)
        called.require(scope)
        limit = LOCAL if principal is LOCAL_PRINCIPAL else READS if request.method == "GET" else WRITES
        await edge.limits.check(limit, str(principal.id))
        return called

    return caller


async def _principal(
    engine: Engine, edge: Edge, credentials: HTTPAuthorizationCredentials | None, address: str | None
) -> Principal:
    if not engine.settings.auth_on:
        return LOCAL_PRINCIPAL
    try:
        key = credentials.credentials if credentials else None
        principal = await edge.doorkeeper.authenticate(key)
    except Unauthenticated:
        await edge.limits.check(STRANGERS, address or "unknown")
        raise
    edge.last_use.note(principal)
    return principal
