"""Sessions of the SQL tools' database: one per call, read-only, bounded in time and size, and thrown away.

A session of its own costs a few round trips and leaves nothing behind: no setting, lock, temporary table or prepared
statement of one call can meet another.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

import asyncpg as untyped_asyncpg  # pyright: ignore[reportMissingTypeStubs]
import structlog

from app.errors import ConfigurationError, ToolError
from app.settings import Settings, is_loopback, place_of, plain_dsn
from app.shares import Shares
from app.sql.statement import Called, Statement, position_of

asyncpg = cast(Any, untyped_asyncpg)

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 10.0
TOTAL_SECONDS = 18.0  # below the tools' own time, so that the error says more than that time is up
MAX_SESSIONS = 8  # of one process; calls beyond them wait
SESSIONS_OF_ONE = 4  # of one workspace
MAX_ROWS = 200
MAX_BYTES = 50_000  # of the rows as JSON: below what a model's history takes whole
BATCH_ROWS = 20
CLOSE_SECONDS = 1.0
MAX_SAID = 1_000

SESSION = {
    "application_name": "parley query_database",
    "default_transaction_read_only": "on",
    "statement_timeout": str(round(STATEMENT_SECONDS * 1000)),
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": str(round(TOTAL_SECONDS * 1000)),
}
BEGIN = "begin transaction isolation level repeatable read read only"

# Volatile by their kind, but they act on nothing and tell no more than what may be read.
HARMLESS = (
    "clock_timestamp", "gen_random_uuid", "pg_database_size", "pg_indexes_size", "pg_relation_size", "pg_table_size",
    "pg_tablespace_size", "pg_total_relation_size", "random", "random_normal", "timeofday", "uuidv4", "uuidv7",
)  # fmt: skip
# Not volatile by their kind, and still more than reading: they run statements handed over as text, dump whole schemas, or
# take a transaction's number.
ACTING = (
    "connectby", "crosstab", "crosstab2", "crosstab3", "crosstab4", "crosstabn", "xpath_table", "cursor_to_xml", "database_to_xml", "database_to_xml_and_xmlschema", "database_to_xmlschema",
    "pg_current_xact_id", "schema_to_xml", "schema_to_xml_and_xmlschema", "schema_to_xmlschema", "table_to_xml",
    "table_to_xml_and_xmlschema", "txid_current",
)  # fmt: skip

# Which of the named functions may do more than read. `row.name` calls one that takes a row.
VOLATILE = """
select p.proname::text as name, n.nspname::text as schema,
    p.pronargs = 1 and exists (select from pg_catalog.pg_type t where t.oid = p.proargtypes[0] and t.typtype in ('c', 'p'))
        as takes_row
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where p.proname::text = any($1::text[])
    and (p.provolatile = 'v' and not (n.nspname = 'pg_catalog' and p.proname::text = any($2::text[]))
        or p.proname::text = any($3::text[]))
"""

ROLE = """
select current_user::text as name, r.rolsuper as superuser,
    exists (select from pg_catalog.pg_roles g where g.rolname in
        ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files', 'pg_write_all_data',
         'pg_signal_backend')
        and pg_catalog.pg_has_role(current_user, g.oid, 'member')) as powerful,
    coalesce((select pg_catalog.pg_get_userbyid(c.relowner) = current_user from pg_catalog.pg_class c
        where c.oid = pg_catalog.to_regclass('public.tool_calls')
            and pg_catalog.to_regclass('public.heads') is not null), false) as owns_parley
from pg_catalog.pg_roles r where r.rolname = current_user
"""
CAN_WRITE = """
select n.nspname || '.' || c.relname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
    and pg_catalog.has_table_privilege(c.oid, 'insert, update, delete, truncate')
order by 1 limit 1
"""

log = structlog.stdlib.get_logger(__name__)

_places = Shares(MAX_SESSIONS, SESSIONS_OF_ONE)
_warned: set[str] = set()


@dataclass(frozen=True)
class Role:
    """Whom the sessions act as.

    Attributes:
        name: The role.
        writable: A table it could write to, if there was no read-only transaction.
    """

    name: str
    writable: str | None


# --- what is set up -------------------------------------------------------------------------------


def available(settings: Settings) -> bool:
    """Whether there is a database for the SQL tools, and it is not Parley's own."""
    return settings.sql_tool_url is not None and not names_our_own(settings)


def names_our_own(settings: Settings) -> bool:
    """Whether `SQL_TOOL_URL` names Parley's own database with Parley's own role."""
    if settings.sql_tool_url is None or settings.database_url is None:
        return False
    theirs, ours = (url.get_secret_value() for url in (settings.sql_tool_url, settings.database_url))
    return _identity(theirs) == _identity(ours)


def _identity(dsn: str) -> tuple[str, ...]:
    """Host, port, database and user of a DSN; this machine is one host, however it is called."""
    try:
        parts = urlsplit(dsn)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        host = query.get("host") or parts.hostname or "localhost"
        user = unquote(parts.username or "") or query.get("user", "")
        database = unquote(parts.path.lstrip("/")) or query.get("dbname") or query.get("database") or user
        port = query.get("port") or str(parts.port or 5432)
    except ValueError:
        return (dsn,)
    return "localhost" if host.startswith("/") or is_loopback(host) else host.lower(), port, database, user


async def examine(settings: Settings) -> Role:
    """Look at the role once, as `parley doctor` does.

    Raises:
        ToolError: when the database can't be reached, or the role must not be used.
    """
    async with session(settings) as connection:
        return await _role(connection)


# --- a session ------------------------------------------------------------------------------------


@asynccontextmanager
async def session(settings: Settings, workspace_id: UUID | None = None) -> AsyncGenerator[Any]:
    """A connection in a read-only transaction, for one call of a workspace.

    Raises:
        ToolError: when it can't be had, or its role must not be used, or a statement fails in it.
    """
    if not available(settings):
        raise ToolError("the SQL tools are not set up: SQL_TOOL_URL is unset, or names Parley's own database and role")
    assert settings.sql_tool_url is not None
    dsn = settings.sql_tool_url.get_secret_value()
    try:
        async with asyncio.timeout(TOTAL_SECONDS), _places.place(workspace_id):
            connection = await _connect(dsn)
            try:
                await connection.execute(BEGIN)
                await _fit(connection, dsn)
                yield connection
            finally:
                await _close(connection)
    except TimeoutError as error:
        raise ToolError(f"{place_of(dsn)} did not answer within {TOTAL_SECONDS:g} s") from error
    except asyncpg.PostgresError as error:
        raise ToolError(_said(error)) from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise ToolError(f"the connection to {place_of(dsn)} broke: {type(error).__name__}") from error


async def _connect(dsn: str) -> Any:
    place = place_of(dsn)
    try:
        return await asyncpg.connect(
            plain_dsn(dsn), timeout=CONNECT_SECONDS, statement_cache_size=0, server_settings=SESSION
        )
    except TimeoutError as error:
        raise ToolError(f"{place} (SQL_TOOL_URL) did not answer within {CONNECT_SECONDS:g} s") from error
    except asyncpg.PostgresError as error:
        raise ToolError(f"{place} (SQL_TOOL_URL) lets nobody in: {str(error)[:MAX_SAID]}") from error
    except OSError as error:
        raise ToolError(f"{place} (SQL_TOOL_URL) can't be reached: {type(error).__name__}") from error
    except (ValueError, ConfigurationError, asyncpg.InterfaceError) as error:  # Its words may hold the password.
        raise ToolError("SQL_TOOL_URL can't be read: it must be a DSN such as postgresql://reader@host/name") from error


async def _close(connection: Any) -> None:
    """End a session without commit; one that does not answer is cut off."""
    try:
        await asyncio.shield(connection.close(timeout=CLOSE_SECONDS))
    except (TimeoutError, OSError, asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
        if (task := asyncio.current_task()) and task.cancelling():
            raise


async def _fit(connection: Any, dsn: str) -> None:
    """Refuse a role that must not be used; say once of one that could write that it need not."""
    if dsn in _warned:
        await _role(connection, look_for_writable=False)
        return
    role = await _role(connection)
    _warned.add(dsn)
    if role.writable:
        log.warning("sql.role_can_write", role=role.name, database=place_of(dsn), table=role.writable)


async def _role(connection: Any, *, look_for_writable: bool = True) -> Role:
    found = await connection.fetchrow(ROLE)
    name = found["name"]
    if found["superuser"]:
        raise ToolError(f"the role {name} of SQL_TOOL_URL is a superuser: give the tool one that only reads")
    if found["powerful"]:
        raise ToolError(f"the role {name} of SQL_TOOL_URL may act on the server (pg_... membership): give it less")
    if found["owns_parley"]:
        raise ToolError(f"SQL_TOOL_URL is Parley's own database, and the role {name} owns it: use a role that reads")
    return Role(name, await connection.fetchval(CAN_WRITE) if look_for_writable else None)


# --- a query --------------------------------------------------------------------------------------


async def query(settings: Settings, statement: Statement, workspace_id: UUID | None = None) -> dict[str, Any]:
    """Run one statement and read its first rows.

    Raises:
        ToolError: saying what is wrong, and where.
    """
    async with session(settings, workspace_id) as connection:
        await _refuse_acting(connection, statement)
        try:
            if statement.explains:
                return await _plan(connection, statement.text)
            return await _rows(connection, statement.text)
        except asyncpg.PostgresError as error:
            raise ToolError(_said(error, statement.text)) from error


async def _refuse_acting(connection: Any, statement: Statement) -> None:
    """Refuse a statement that names a function which PostgreSQL does not say only reads."""
    names = sorted({called.name for called in statement.called})
    if not names:
        return
    found = await connection.fetch(VOLATILE, names, list(HARMLESS), list(ACTING))
    for called in statement.called:
        for function in found:
            if _means(called, function):
                raise ToolError(
                    f"query: {called.place}: {called.name}() is refused: PostgreSQL does not call it STABLE or IMMUTABLE, "
                    "so it may do more than read"
                )


def _means(called: Called, function: Any) -> bool:
    if called.name != function["name"] or called.schema not in (None, function["schema"]):
        return False
    return function["takes_row"] if called.as_column else True


async def _plan(connection: Any, text: str) -> dict[str, Any]:
    found = [str(row[0]) for row in await connection.fetch(text)]
    kept = "\n".join(found)
    return {"plan": kept[:MAX_BYTES], "truncated": len(kept) > MAX_BYTES}


async def _rows(connection: Any, text: str) -> dict[str, Any]:
    """Columns and rows. PostgreSQL itself writes the values as JSON, so none is bent by a client's own types."""
    prepared = await connection.prepare(text)  # The extended protocol: the server, too, takes one statement alone.
    columns = prepared.get_attributes()
    cursor = await (await connection.prepare(_as_json(text, columns))).cursor()
    rows: list[list[Any]] = []
    size = 0
    while batch := await cursor.fetch(BATCH_ROWS):
        for (row,) in batch:
            if row is None:
                raise ToolError(
                    f"row {len(rows) + 1} is longer than {MAX_BYTES} bytes: select less of it, as by left()"
                )
            size += len(row)
            if len(rows) == MAX_ROWS or size > MAX_BYTES:
                return _answer(columns, rows, truncated=True)
            rows.append(_values(row))
    return _answer(columns, rows, truncated=False)


def _as_json(text: str, columns: Any) -> str:
    """The statement with each row as a JSON object of its columns by number; a row that is too long is null."""
    numbered = [f"c{number}" for number in range(len(columns))]
    names = f" ({', '.join(numbered)})" if numbered else ""
    chosen = ", ".join(_exact(name, column.type.name) for name, column in zip(numbered, columns, strict=True))
    return (
        f"select case when pg_catalog.octet_length(j) <= {MAX_BYTES} then j end from ("
        f"select pg_catalog.row_to_json(r)::pg_catalog.text as j from (select {chosen} from (\n{text}\n) as q{names}) as r"
        f") as s limit {MAX_ROWS + 1}"
    )


def _exact(name: str, kind: str) -> str:
    """A column of decimals as texts: a JSON number would lose their digits."""
    exact = {"numeric": "pg_catalog.text", "numeric[]": "pg_catalog.text[]"}.get(kind)
    return f"{name}::{exact} as {name}" if exact else name


def _values(row: str) -> list[Any]:
    try:
        return list(json.loads(row).values())
    except (ValueError, RecursionError) as error:
        raise ToolError("a value is nested too deeply: select less of it, as by left(column::text, 1000)") from error


def _answer(columns: Any, rows: list[list[Any]], *, truncated: bool) -> dict[str, Any]:
    named = [{"name": column.name, "type": column.type.name} for column in columns]
    answer = {"columns": named, "rows": rows, "row_count": len(rows), "truncated": truncated}
    note = f"These are the first {len(rows)} rows; there are more. Aggregate, filter or use LIMIT and OFFSET."
    return answer | ({"note": note} if truncated else {})


def _said(error: Any, text: str = "") -> str:
    """What PostgreSQL says of a statement, with the place in it."""
    if isinstance(error, asyncpg.QueryCanceledError):
        return f"query: it took longer than {STATEMENT_SECONDS:g} s: read less, or aggregate"
    if isinstance(error, asyncpg.LockNotAvailableError):
        return "query: somebody else holds a lock on what it reads: try again later"
    position = str(getattr(error, "position", None) or "")
    where = f"{position_of(text, int(position) - 1)}: " if text and position.isdecimal() else ""
    hint = getattr(error, "hint", None)
    return f"query: {where}{error.args[0] if error.args else error}{f' ({hint})' if hint else ''}"[:MAX_SAID]
