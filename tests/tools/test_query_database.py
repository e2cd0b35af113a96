"""query_database and describe_database on a real PostgreSQL, as a role that only reads and as one that could write.

Whether a statement did no harm is asked of the database, not of what the tool said.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from app import sql
from app.cli.checks import _sql_tools
from app.errors import InvalidArguments, ToolError
from app.settings import Settings
from app.sql import session
from app.tools import BUILT_IN
from app.tools.registry import offered
from tests.cluster import Cluster
from tests.databases import dsn_of
from tests.tools.context import Context

QUERY = BUILT_IN["query_database"].call
DESCRIBE = BUILT_IN["describe_database"].call

SHOP = """
create type mood as enum ('glad', 'sad');
create table customers (id bigint primary key, name text not null, mood mood default 'glad');
comment on table customers is 'Who buys';
create table orders (id bigint primary key, customer_id bigint references customers, total numeric(12, 2), at timestamptz);
insert into customers values (1, 'Änne'), (2, 'Bo');
insert into orders select n, 1 + n % 2, n * 1.10, '2026-01-01 12:00Z'::timestamptz from generate_series(1, 1000) n;
create view busy as select customer_id, count(*) from orders group by 1;
create table secrets (word text);
create sequence numbers;
create function note() returns int language sql as $$ insert into secrets values ('noted') returning 1 $$;
create function leave(c customers) returns int language plpgsql as $$ begin insert into secrets values ('left'); return 1; end $$;
create function deep() returns int stable language plpgsql as $$ begin perform note(); return 1; end $$;
"""


@dataclass(frozen=True)
class Shop:
    """A database of somebody's with two roles, and what can be asked of it from outside."""

    admin: str
    reader: str
    writer: str
    roles: dict[str, str] = field(default_factory=dict)

    async def ask(self, query: str) -> Any:
        connection = await asyncpg.connect(self.admin)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def state(self) -> Any:
        """Everything a statement could have changed; not the roles that other tests make beside this one."""
        return json.loads(
            await self.ask("""
            select json_build_object(
                'customers', (select json_agg(c order by id) from customers c),
                'orders', (select count(*) from orders), 'total', (select sum(total) from orders),
                'secrets', (select json_agg(s) from secrets s),
                'number', (select last_value from numbers), 'called', (select is_called from numbers),
                'objects', (select count(*) from pg_class where relnamespace = 'public'::regnamespace),
                'functions', (select count(*) from pg_proc where pronamespace = 'public'::regnamespace),
                'roles', (select json_agg(rolname order by rolname) from pg_roles where rolname !~ '^(parley|shop)_'),
                'large', (select count(*) from pg_largeobject_metadata),
                'settings', (select count(*) from pg_db_role_setting where setdatabase in (0,
                    (select oid from pg_database where datname = current_database()))),
                'schemas', (select count(*) from pg_namespace where nspname !~ '^pg_'),
                'locks', (select count(*) from pg_locks where locktype = 'advisory' and database =
                    (select oid from pg_database where datname = current_database())))""")
        )


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:word@{host}"))


@pytest.fixture(scope="module")
def shop(cluster: Cluster, worker_number: int) -> Iterator[Shop]:
    name, reader, writer = (f"shop_{worker_number}_{kind}" for kind in ("test", "reader", "writer"))
    admin = dsn_of(cluster.postgres_dsn_admin, name)
    asyncio.run(drop(cluster.postgres_dsn_admin, name, reader, writer))
    asyncio.run(build(cluster.postgres_dsn_admin, name, reader, writer))
    yield Shop(admin, as_role(admin, reader), as_role(admin, writer), {"reader": reader, "writer": writer})
    asyncio.run(drop(cluster.postgres_dsn_admin, name, reader, writer))


async def build(server_dsn: str, name: str, reader: str, writer: str) -> None:
    server = await asyncpg.connect(server_dsn)
    await server.execute(f"create database {name}")
    for role in (reader, writer):
        await server.execute(f"create role {role} login password 'word'")
    await server.execute(f"grant create, temporary on database {name} to {writer}")
    await server.close()
    made = await asyncpg.connect(dsn_of(server_dsn, name))
    await made.execute(SHOP)
    await made.execute(f"grant select on customers, orders, busy to {reader}")
    await made.execute(f"grant all on all tables in schema public to {writer}")
    await made.execute(f"grant all on all sequences in schema public to {writer}")
    await made.execute(f"grant create on schema public to {writer}")
    await made.close()


async def drop(server_dsn: str, name: str, *roles: str) -> None:
    server = await asyncpg.connect(server_dsn)
    await server.execute(f"drop database if exists {name} with (force)")
    for role in roles:
        await server.execute(f"drop role if exists {role}")
    await server.close()


@pytest.fixture
async def reader(shop: Shop) -> AsyncIterator[Context]:
    context = Context.of(sql_tool_url=shop.reader)
    yield context
    await context.egress.aclose()


@pytest.fixture
async def writer(shop: Shop) -> AsyncIterator[Context]:
    context = Context.of(sql_tool_url=shop.writer)
    yield context
    await context.egress.aclose()


async def rows(context: Context, query: str) -> list[list[Any]]:
    return (await QUERY(context, {"query": query}))["rows"]


# --- what is read ---------------------------------------------------------------------------------


async def test_columns_and_rows(reader: Context) -> None:
    found = await QUERY(reader, {"query": "select name, count(*), sum(total) from customers c join orders o on "
                                          "o.customer_id = c.id group by 1 order by 1; -- thanks"})  # fmt: skip
    assert found == {
        "columns": [
            {"name": "name", "type": "text"},
            {"name": "count", "type": "int8"},
            {"name": "sum", "type": "numeric"},
        ],
        "rows": [["Bo", 500, "275000.00"], ["Änne", 500, "275550.00"]],
        "row_count": 2,
        "truncated": False,
    }


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.10::numeric", "0.10"),
        ("array[1.10, null]::numeric[]", ["1.10", None]),
        ("'NaN'::numeric", "NaN"),
        ("1.5::float8", 1.5),
        ("'-infinity'::float8", "-Infinity"),
        ("9223372036854775807", 9223372036854775807),
        ("null", None),
        ("true", True),
        ("date '2026-02-03'", "2026-02-03"),
        ("date '9999-12-31'", "9999-12-31"),
        ("'infinity'::date", "infinity"),
        ("date '0044-03-15 BC'", "0044-03-15 BC"),
        ("timestamptz '2026-02-03 04:05:06.7Z' at time zone 'UTC'", "2026-02-03T04:05:06.7"),
        ("interval '1 month 2 days'", "1 mon 2 days"),
        ("'\\x00ff'::bytea", "\\x00ff"),
        ("array['a', 'b']", ["a", "b"]),
        ("int4range(1, 5)", "[1,5)"),
        ("""'{"a": [1.5, {"b": null}]}'::jsonb""", {"a": [1.5, {"b": None}]}),
        ("row(1, 'x')", {"f1": 1, "f2": "x"}),
        ("'sad'::mood", "sad"),
        ("'10.0.0.0/8'::cidr", "10.0.0.0/8"),
        ("'00000000-0000-7000-8000-000000000001'::uuid", "00000000-0000-7000-8000-000000000001"),
        ("'line\nbreak; -- no comment'", "line\nbreak; -- no comment"),
        ("$tag$ ) q; drop $tag$", " ) q; drop "),
    ],
)
async def test_values_come_as_json(reader: Context, expression: str, value: Any) -> None:
    assert await rows(reader, f"select {expression}") == [[value]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("values (1, 'a'), (2, 'b')", [[1, "a"], [2, "b"]]),
        ("select 1 as a, 2 as a, 3", [[1, 2, 3]]),
        (
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select i from n",
            [[1], [2], [3]],
        ),
        ("select id from orders order by id desc limit 2 /* why */ ;", [[1000], [999]]),
        ("table busy order by 1", [[1, 500], [2, 500]]),
        ("select", [[]]),
        ("select count(*) from orders where total > 1e3 -- end", [[91]]),
        ("select c.name from customers c where (c).id = 2", [["Bo"]]),
        ("select random() < 2, clock_timestamp() is not null", [[True, True]]),
        ("select 1 where false", []),
    ],
)
async def test_statements_that_read(reader: Context, query: str, expected: list[Any]) -> None:
    assert await rows(reader, query) == expected


async def test_a_plan_is_explained(reader: Context) -> None:
    found = await QUERY(reader, {"query": "explain (analyze, costs off, timing off) select * from orders"})
    assert "Seq Scan on orders (actual rows=1000" in found["plan"]


async def test_rows_are_capped_and_the_answer_says_so(reader: Context) -> None:
    found = await QUERY(reader, {"query": "select id from orders order by id"})
    assert (found["row_count"], found["truncated"], found["rows"][-1]) == (200, True, [200])
    assert "first 200 rows" in found["note"]
    assert (await QUERY(reader, {"query": "select id from orders limit 200"}))["truncated"] is False


async def test_bytes_are_capped(reader: Context) -> None:
    found = await QUERY(reader, {"query": "select repeat('x', 9000) from generate_series(1, 1000000)"})
    assert (found["row_count"], found["truncated"]) == (5, True)
    with pytest.raises(ToolError, match="row 2 is longer than 50000 bytes"):
        await QUERY(reader, {"query": "select repeat('x', case when n = 2 then 100000000 else 1 end) from generate_series(1, 3) n"})  # fmt: skip


# --- what is refused ------------------------------------------------------------------------------

# Each hostile statement with what the refusal of a role that could write must say.
HOSTILE = [
    ("delete from orders", "line 1, column 1: DELETE"),
    ("update customers set name = 'x'", "column 1: UPDATE"),
    ("insert into secrets values ('x')", "column 1: INSERT"),
    ("merge into orders o using customers c on o.id = c.id when matched then delete", "MERGE"),
    ("truncate orders", "TRUNCATE"),
    ("drop table orders cascade", "DROP"),
    ("-- just looking\n drop table orders", "line 2, column 2: DROP"),
    ("alter table orders add column x int", "ALTER TABLE"),
    ("create table mine (a int)", "CREATE"),
    ("create temp table mine as select 1", "CREATE TABLE AS"),
    ("create function f() returns int language sql as 'select 1'", "CREATE FUNCTION"),
    ("select * into mine from orders", "column 10: SELECT INTO"),
    ("select 1; delete from orders", "column 11: a second statement"),
    ("select 1; select 2", "a second statement"),
    ("commit; delete from orders", "a second statement"),
    ("begin read write; delete from orders; commit", "a second statement"),
    ("commit", "COMMIT"),
    ("set transaction read write", "SET or RESET"),
    ("set default_transaction_read_only = off", "SET or RESET"),
    ("reset all", "SET or RESET"),
    ("with gone as (delete from orders returning *) select count(*) from gone", "column 15: DELETE"),
    ("with a as (insert into secrets values ('x') returning 1) select * from a", "INSERT"),
    ("explain analyze delete from orders", "column 17: DELETE"),
    ("explain analyze create table mine as select 1", "CREATE TABLE AS"),
    ("select * from orders for update", "column 22: FOR UPDATE"),
    ("select (select id from customers limit 1 for no key update)", "FOR UPDATE"),
    ("copy secrets to '/tmp/secrets'", "COPY"),
    ("copy (select 1) to program 'touch /tmp/parley-was-here'", "COPY"),
    ("copy secrets from program 'id'", "COPY"),
    ("do $$ begin delete from orders; end $$", "DO"),
    ("call note()", "CALL"),
    ("prepare p as delete from orders", "PREPARE"),
    ("execute p", "EXECUTE"),
    ("declare c cursor with hold for select 1", "DECLARE CURSOR"),
    ("lock table orders in access exclusive mode", "LOCK"),
    ("listen x", "LISTEN"),
    ("notify x, 'y'", "NOTIFY"),
    ("vacuum full orders", "VACUUM"),
    ("analyze orders", "VACUUM"),
    ("reindex table orders", "REINDEX"),
    ("cluster orders", "REPACK|CLUSTER"),
    ("refresh materialized view busy", "REFRESH MATERIALIZED VIEW"),
    ("grant all on orders to public", "GRANT"),
    ("create role evil superuser", "CREATE ROLE"),
    ("alter system set fsync = off", "ALTER SYSTEM"),
    ("load 'evil'", "LOAD"),
    ("checkpoint", "CHECKPOINT"),
    ("discard all", "DISCARD"),
    ("security label on table orders is 'x'", "SECURITY LABEL"),
    ("import foreign schema a from server b into public", "IMPORT FOREIGN SCHEMA"),
    ("select nextval('numbers')", r"column 8: nextval\(\)"),
    ("select setval('numbers', 99)", "setval"),
    ("select pg_sleep(60)", "pg_sleep"),
    ("select 'ä', PG_CATALOG . \"pg_sleep\" (60)", r"column 13: pg_sleep\(\)"),
    ("select 1 from pg_sleep_for('1 hour')", "pg_sleep_for"),
    ("select set_config('transaction_read_only', 'off', false)", "set_config"),
    ("select pg_notify('x', 'y')", "pg_notify"),
    ("select pg_advisory_lock(1)", "pg_advisory_lock"),
    ("select pg_try_advisory_xact_lock(1)", "pg_try_advisory_xact_lock"),
    ("select pg_terminate_backend(pid) from (values (1)) as v(pid)", "pg_terminate_backend"),
    ("select pg_cancel_backend(1)", "pg_cancel_backend"),
    ("select pg_read_file('/etc/passwd')", "pg_read_file"),
    ("select * from pg_ls_dir('.')", "pg_ls_dir"),
    ("select lo_import('/etc/passwd')", "lo_import"),
    ("select lo_creat(-1)", "lo_creat"),
    ("select lo_from_bytea(0, 'x')", "lo_from_bytea"),
    ("select query_to_xml('delete from orders', true, true, '')", "query_to_xml"),
    ("select database_to_xml(true, true, '')", "database_to_xml"),
    ("select table_to_xml('secrets', true, true, '')", "table_to_xml"),
    ("select ts_stat('select pg_sleep(60)')", "ts_stat"),
    ("select pg_logical_emit_message(true, 'a', 'b')", "pg_logical_emit_message"),
    ("select txid_current()", "txid_current"),
    ("select pg_export_snapshot()", "pg_export_snapshot"),
    ("select note()", r"note\(\)"),
    ("select leave(c) from customers c", r"leave\(\)"),
    ("select c.leave from customers c", r"column 8: leave\(\)"),
    ("select (c).leave from customers c", r"leave\(\)"),
    ("select * from customers where note() = 1", "note"),
    ("select 1 order by (select note())", "note"),
    ("select deep()", "read-only transaction"),
    ("select $1", r"\$1 is refused"),
    ("select query from pg_stat_activity", "column 19: pg_stat_activity is refused: it shows what others ask"),
    ("table pg_catalog.pg_stat_activity", "pg_stat_activity is refused"),
    ('select * from U&"pg\\005fstat_activity" x', "pg_stat_activity is refused"),
    ("select (pg_stat_get_activity(null)).query", "pg_stat_get_activity is refused"),
    ("select pg_stat_get_backend_activity(1)", "pg_stat_get_backend_activity is refused"),
    ("select * from ext.pg_stat_statements", "pg_stat_statements is refused"),
    ("select 1\x00; drop table orders", "NUL"),
    ("select 'open", "column 8: unterminated quoted string"),
    ("select 1 /* open", "unterminated"),
    ("select 1) q(c0)) r) s; drop table orders --", "syntax error"),
    ("selec 1", 'column 1: syntax error at or near "selec"'),
    ("select " + "not " * 4000 + "true", "nested too deeply"),
    ("   ", "at least 1 character|no statement"),
    ("-- nothing", "no statement"),
]


@pytest.mark.parametrize(("statement", "said"), HOSTILE, ids=[statement[:40] for statement, _ in HOSTILE])
async def test_hostile_statements_change_nothing(shop: Shop, writer: Context, statement: str, said: str) -> None:
    before = await shop.state()
    with pytest.raises((ToolError, InvalidArguments), match=said):
        await QUERY(writer, {"query": statement})
    assert await shop.state() == before


@pytest.mark.parametrize("statement", ["select * from secrets", "select deep()", "select pg_read_file('PG_VERSION')"])
async def test_a_role_that_reads_has_its_own_limits(shop: Shop, reader: Context, statement: str) -> None:
    with pytest.raises(ToolError, match=r"permission denied|refused|read-only"):
        await QUERY(reader, {"query": statement})
    assert await shop.ask("select count(*) from secrets") == 0


async def test_the_transaction_holds_without_the_parser(shop: Shop, writer: Context) -> None:
    """What the parser let through by mistake would be stopped by the server."""
    before = await shop.state()
    with pytest.raises(ToolError, match="read-only transaction"):
        await sql.query(writer.settings, sql.Statement("delete from orders", explains=True, called=()))
    with pytest.raises(ToolError, match="multiple commands"):
        await sql.query(writer.settings, sql.Statement("select 1; commit", explains=True, called=()))
    with pytest.raises(ToolError, match="read-only transaction"):
        await sql.query(writer.settings, sql.Statement("select note()", explains=False, called=()))
    assert await shop.state() == before


async def test_nothing_is_left_for_the_next_call(shop: Shop, writer: Context) -> None:
    await rows(writer, "select 1")
    assert await rows(
        writer, "select current_setting('transaction_read_only'), current_setting('statement_timeout')"
    ) == [["on", "10s"]]
    named = "select count(*) from pg_stat_activity where application_name like 'parley query%'"
    for _ in range(50):  # A backend is gone a moment after its goodbye.
        if not await shop.ask(named):
            break
        await asyncio.sleep(0.02)
    assert await shop.ask(named) == 0


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select nothing from orders", 'line 1, column 8: column "nothing" does not exist'),
        ("select 1,\n  2 from nowhere", 'line 2, column 10: relation "nowhere" does not exist'),
        ("select 1 / 0", "division by zero"),
        ("select foo(1)", "column 8: function foo\\(integer\\) does not exist"),
        ("select 'x'::int", "invalid input syntax for type integer"),
    ],
)
async def test_errors_of_a_statement_say_where(reader: Context, query: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        await QUERY(reader, {"query": query})


async def test_long_statements_are_cut_off(reader: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session.SESSION, "statement_timeout", "200")
    with pytest.raises(ToolError, match="took longer than"):
        await QUERY(
            reader, {"query": "select count(*) from generate_series(1, 100000000) a, generate_series(1, 1000) b"}
        )


async def test_a_locked_table_is_not_waited_for(shop: Shop, reader: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session.SESSION, "lock_timeout", "100")
    holder = await asyncpg.connect(shop.admin)
    async with holder.transaction():
        await holder.execute("lock table orders in access exclusive mode")
        with pytest.raises(ToolError, match="holds a lock"):
            await QUERY(reader, {"query": "select count(*) from orders"})
    await holder.close()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_server_that_is_away_or_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CONNECT_SECONDS", 0.3)
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    context = Context.of(sql_tool_url=f"postgresql://u:hidden@127.0.0.1:{port}/shop")
    with pytest.raises(ToolError, match=rf"127.0.0.1:{port}/shop \(SQL_TOOL_URL\) did not answer within 0.3 s"):
        await QUERY(context, {"query": "select 1"})
    silent.close()
    await silent.wait_closed()
    with pytest.raises(ToolError, match="can't be reached"):
        await QUERY(context, {"query": "select 1"})
    await context.egress.aclose()


async def test_no_error_holds_the_password(shop: Shop) -> None:
    wrong = shop.reader.replace(":word@", ":hidden@").replace("_reader:", "_nobody:")
    for url in (wrong, "postgresql://u:hidden@[::/x", "mysql://u:hidden@h/x"):
        with pytest.raises(ToolError) as caught:
            await QUERY(Context.of(sql_tool_url=url), {"query": "select 1"})
        assert "hidden" not in caught.value.detail


async def test_many_calls_wait_for_one_another_and_for_nobody_else(reader: Context) -> None:
    asked = [rows(reader, f"select {number}") for number in range(session.MAX_SESSIONS * 2)]
    assert await asyncio.gather(*asked) == [[[number]] for number in range(session.MAX_SESSIONS * 2)]


# --- whom it acts as --------------------------------------------------------------------------------


async def test_it_is_offered_with_a_database_of_its_own_only(shop: Shop) -> None:
    own = "postgresql+asyncpg://me:a@localhost/parley"
    same = ["postgresql://me:b@127.0.0.1:5432/parley", "postgres://me@/parley?host=/run/postgresql", own]
    assert "query_database" not in offered(Settings.of())
    for url in same:
        assert "query_database" not in offered(Settings.of(sql_tool_url=url, database_url=own)), url
    for url in ("postgresql://reader@localhost/parley", "postgresql://me@localhost/shop", "postgresql://me@db/parley"):
        assert "describe_database" in offered(Settings.of(sql_tool_url=url, database_url=own)), url
    with pytest.raises(ToolError, match="not set up"):
        await QUERY(Context.of(sql_tool_url=own, database_url=own), {"query": "select 1"})


async def test_a_workspace_leaves_room_for_others(reader: Context) -> None:
    async with AsyncExitStack() as busy:
        for _ in range(session.SESSIONS_OF_ONE):
            await busy.enter_async_context(session._places.place(reader.workspace_id))
        waiting = asyncio.create_task(rows(reader, "select 1"))
        assert await rows(replace(reader, workspace_id=uuid4()), "select 2") == [[2]]
        assert not waiting.done()
    assert await waiting == [[1]]


async def test_superusers_and_owners_of_parleys_tables_are_refused(shop: Shop, database_url: str) -> None:
    with pytest.raises(ToolError, match="is a superuser"):
        await QUERY(Context.of(sql_tool_url=shop.admin), {"query": "select 1"})
    server = await asyncpg.connect(shop.admin)
    try:
        await server.execute("create table heads (); create table tool_calls ()")
        await server.execute(f"alter table tool_calls owner to {shop.roles['writer']}")
        with pytest.raises(ToolError, match="Parley's own database"):
            await QUERY(Context.of(sql_tool_url=shop.writer), {"query": "select 1"})
        await server.execute(f"grant pg_read_server_files to {shop.roles['reader']}")
        with pytest.raises(ToolError, match="may act on the server"):
            await QUERY(Context.of(sql_tool_url=shop.reader), {"query": "select 1"})
    finally:
        await server.execute("drop table heads, tool_calls")
        await server.execute(f"revoke pg_read_server_files from {shop.roles['reader']}")
        await server.close()


async def test_a_role_that_could_write_is_told_of(shop: Shop) -> None:
    assert (await sql.examine(Settings.of(sql_tool_url=shop.reader))).writable is None
    assert (await sql.examine(Settings.of(sql_tool_url=shop.writer))).writable == "public.customers"


# --- what there is ----------------------------------------------------------------------------------


async def test_the_tables_are_described(reader: Context) -> None:
    found = await DESCRIBE(reader, {})
    assert [table["name"] for table in found["tables"]] == ["public.busy", "public.customers", "public.orders"]
    assert found["tables"][1] == {
        "name": "public.customers",
        "kind": "table",
        "comment": "Who buys",
        "columns": "id bigint, name text, mood mood",
    } | ({"about_rows": found["tables"][1]["about_rows"]} if "about_rows" in found["tables"][1] else {})


@pytest.mark.parametrize("name", ["customers", "public.customers", 'public."customers"'])
async def test_one_table_is_described(reader: Context, name: str) -> None:
    assert await DESCRIBE(reader, {"table": name}) == {
        "table": "public.customers",
        "kind": "table",
        "comment": "Who buys",
        "columns": [
            {"name": "id", "type": "bigint", "nullable": False},
            {"name": "name", "type": "text", "nullable": False},
            {"name": "mood", "type": "mood", "nullable": True, "default": "'glad'::mood", "values": ["glad", "sad"]},
        ],
        "constraints": ["PRIMARY KEY (id)"],
    }
    constraints = (await DESCRIBE(reader, {"table": "orders"}))["constraints"]
    assert "FOREIGN KEY (customer_id) REFERENCES customers(id)" in constraints


@pytest.mark.parametrize("name", ["secrets", "nowhere", "pg_catalog.pg_authid", "x'; drop table orders --"])
async def test_what_may_not_be_read_is_not_described(reader: Context, name: str) -> None:
    with pytest.raises(ToolError, match="there is no table or view"):
        await DESCRIBE(reader, {"table": name})


async def test_doctor_says_how_it_stands(shop: Shop) -> None:
    own = "postgresql://me:a@localhost/parley"
    said = []
    for settings in (
        Settings.of(),
        Settings.of(sql_tool_url=own, database_url=own),
        Settings.of(sql_tool_url=shop.reader),
        Settings.of(sql_tool_url=shop.writer),
    ):
        [check] = await _sql_tools(settings)
        said.append((check.state, check.detail.rpartition("/")[2][:40]))
        assert "word" not in check.detail
    assert [state for state, _ in said] == ["ok", "broken", "ok", "warning"]
    with pytest.raises(ToolError, match="superuser"):
        await _sql_tools(Settings.of(sql_tool_url=shop.admin))
