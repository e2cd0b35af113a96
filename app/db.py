"""The two doors to PostgreSQL; nothing else in Parley commits.

* The **engine pool** (asyncpg) runs the statements that happen per run, step or event: one statement
  by `fetch`, `fetchrow`, `fetchval` or `execute`, or one explicit `engine_tx()`. They run as the
  owner and name run and workspace in SQL.
* **Sessions** (SQLAlchemy) serve everything else: `transaction(workspace)` sets the tenant role and
  the workspace, so row-level security backs up every query filter.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self, cast
from uuid import UUID

import asyncpg as untyped_asyncpg  # pyright: ignore[reportMissingTypeStubs]
import orjson
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from app import failpoints
from app.errors import ConfigurationError, DatabaseUnavailable
from app.settings import Settings, place_of

asyncpg = cast(Any, untyped_asyncpg)

TENANT_ROLE = "parley_tenant"
DEFAULT_WORKSPACE = UUID("00000000-0000-7000-8000-000000000001")
SYSTEM_PRINCIPAL = UUID("00000000-0000-7000-8000-000000000002")

ACQUIRE_SECONDS = 5.0
COMMAND_SECONDS = 15.0

# The engine's statements go by key. They are planned once, as some take longer to plan than to run, and by their keys,
# also when the plan was made while the tables were small.
ENGINE_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_hashjoin": "off", "enable_mergejoin": "off"}

# What says that PostgreSQL is away, restarting or out of connections; the caller may try again.
UNAVAILABLE: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # The server's goodbye came between two statements; the socket is not closed yet.
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)
# What says that DATABASE_URL is wrong: trying again does not help.
REFUSED: tuple[type[BaseException], ...] = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
# A unique constraint spoke: for callers above, which may not import asyncpg.
UniqueViolation: type[Exception] = asyncpg.UniqueViolationError

Row = Mapping[str, Any]


class Connection(Protocol):
    """The part of an asyncpg connection that the engine uses."""

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement; answers PostgreSQL's command tag."""
        ...

    async def fetch(self, query: str, *args: Any) -> list[Row]:
        """All rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> Row | None:
        """The first row."""
        ...

    async def fetchval(self, query: str, *args: Any) -> Any:
        """The first column of the first row."""
        ...


def dump_json(value: Any) -> str:
    """JSON text of a value; integers beyond 64 bits are written by the slower standard library."""
    try:
        return orjson.dumps(value, default=_plain).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    """UUIDs of asyncpg are of its own kind, which orjson does not know."""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


async def _keep(connection: Any) -> None:
    """Leave a connection as it is: the engine sets nothing on one, so a reset would be a round trip for nothing."""


async def _prepare(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=dump_json, decoder=orjson.loads, schema="pg_catalog")


class Database:
    """Both doors. Open it once per process and close it at the end."""

    def __init__(self, pool: Any, engine: AsyncEngine, *, has_net: bool) -> None:
        """Take ready pools; use `Database.open`."""
        self._pool = pool
        self._engine = engine
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self.has_net = has_net

    @classmethod
    async def open(cls, settings: Settings, *, name: str = "parley") -> Self:
        """Connect.

        Args:
            settings: `DATABASE_URL` and the pool size.
            name: Shown by PostgreSQL as `application_name`.

        Raises:
            ConfigurationError: when PostgreSQL refuses the DSN's user or database.
            DatabaseUnavailable: when PostgreSQL can't be reached.
        """
        dsn = settings.dsn()
        server_settings = {
            # Set here and not left to the server: an acknowledged row is on disk (G1).
            "synchronous_commit": "on",
            # A process that froze, or whose host is gone, must not keep its locks for longer than its runs.
            "idle_in_transaction_session_timeout": str(round(settings.parley_lease_seconds * 1000)),
            "application_name": name,
            "jit": "off",
        }
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=settings.parley_pool_size,
                timeout=ACQUIRE_SECONDS,
                command_timeout=COMMAND_SECONDS,
                server_settings=server_settings | ENGINE_PLANS,
                init=_prepare,
                reset=_keep,
            )
            has_net = await pool.fetchval(
                "select exists (select from pg_roles where rolname = $1 and pg_has_role(oid, 'member'))", TENANT_ROLE
            )
        except REFUSED as error:
            raise ConfigurationError(f"PostgreSQL refuses DATABASE_URL: {error}", field="DATABASE_URL") from error
        except UNAVAILABLE as error:
            said = f"PostgreSQL can't be reached at {place_of(dsn)} (DATABASE_URL): {error}"
            raise DatabaseUnavailable(said, retry_after=2) from error
        engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            pool_size=settings.parley_pool_size,
            max_overflow=0,
            pool_timeout=ACQUIRE_SECONDS,
            pool_pre_ping=True,
            json_serializer=dump_json,
            json_deserializer=orjson.loads,
            connect_args={
                "server_settings": server_settings,
                "timeout": ACQUIRE_SECONDS,
                "command_timeout": COMMAND_SECONDS,
            },
        )
        return cls(pool, engine, has_net=bool(has_net))

    async def close(self) -> None:
        """Close both pools, waiting a moment for connections in use."""
        await self._engine.dispose()
        try:
            await asyncio.wait_for(self._pool.close(), timeout=ACQUIRE_SECONDS)
        except TimeoutError:
            self._pool.terminate()

    # --- the engine pool ---------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self, edge: str = "") -> AsyncGenerator[Connection]:
        """A connection whose statements each commit by themselves.

        Args:
            edge: Names the one statement's commit, for failpoints.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away or the pool stays exhausted.
        """
        try:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                failpoints.before(edge)
                yield cast("Connection", connection)
                failpoints.after(edge)
        except UNAVAILABLE as error:
            raise DatabaseUnavailable(f"PostgreSQL is not available: {type(error).__name__}", retry_after=2) from error

    @asynccontextmanager
    async def engine_tx(self, edge: str = "") -> AsyncGenerator[Connection]:
        """One transaction of the engine: commits at the end, rolls back on any exception.

        Args:
            edge: Names its commit, for failpoints.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away; whether a commit landed may then be unknown.
        """
        async with self.connection() as connection:
            async with cast("Any", connection).transaction():
                yield connection
                failpoints.before(edge)
            failpoints.after(edge)

    async def execute(self, query: str, *args: Any) -> str:
        """Run one statement in a transaction of its own."""
        async with self.connection() as connection:
            return await connection.execute(query, *args)

    async def fetch(self, query: str, *args: Any) -> list[Row]:
        """All rows of one statement."""
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> Row | None:
        """The first row of one statement."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """The first value of one statement."""
        async with self.connection() as connection:
            return await connection.fetchval(query, *args)

    # --- sessions ------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self, workspace_id: UUID) -> AsyncGenerator[AsyncSession]:
        """One SQLAlchemy transaction inside a workspace: commits at the end, rolls back on any exception.

        Args:
            workspace_id: The only workspace whose rows can be seen and written.

        Raises:
            DatabaseUnavailable: when PostgreSQL is away or the pool stays exhausted.
        """
        try:
            async with self._sessions() as session, session.begin():
                await _enter_workspace(session, workspace_id, has_net=self.has_net)
                yield session
        except (PoolTimeout, InterfaceError, *UNAVAILABLE) as error:
            raise DatabaseUnavailable(f"PostgreSQL is not available: {type(error).__name__}", retry_after=2) from error
        except DBAPIError as error:
            if _is_unavailable(error):
                raise DatabaseUnavailable("PostgreSQL closed or refused the connection", retry_after=2) from error
            raise


def _is_unavailable(error: DBAPIError) -> bool:
    # A refused connection is no invalidated one: what asyncpg said stands behind SQLAlchemy's translation.
    return error.connection_invalidated or isinstance(getattr(error.orig, "__cause__", None), UNAVAILABLE)


async def _enter_workspace(session: AsyncSession, workspace_id: UUID, *, has_net: bool) -> None:
    role = "set_config('role', :role, true), " if has_net else ""
    parameters = {"workspace": str(workspace_id)} | ({"role": TENANT_ROLE} if has_net else {})
    await session.execute(text(f"select {role}set_config('app.workspace', :workspace, true)"), parameters)


@asynccontextmanager
async def lone_connection(dsn: str, *, name: str) -> AsyncGenerator[Connection]:
    """A connection outside any pool, for a thread with a loop of its own (the heartbeat)."""
    connection = await asyncpg.connect(
        dsn,
        timeout=ACQUIRE_SECONDS,
        command_timeout=ACQUIRE_SECONDS,
        server_settings={"application_name": name, "synchronous_commit": "off"},
    )
    try:
        yield cast("Connection", connection)
    finally:
        connection.terminate()


def affected(tag: str) -> int:
    """The number of rows of a command tag such as `UPDATE 3`."""
    return int(tag.rsplit(" ", 1)[-1])
