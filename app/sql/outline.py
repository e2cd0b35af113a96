"""What is in the SQL tools' database: the tables a role may read, and one of them in detail."""

import json
from typing import Any
from uuid import UUID

from app.errors import ToolError
from app.settings import Settings
from app.sql.session import MAX_BYTES, session

MAX_TABLES = 200

READABLE = """
c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
    and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_any_column_privilege(c.oid, 'select')
"""
KIND = "case c.relkind when 'v' then 'view' when 'm' then 'view' when 'f' then 'foreign table' else 'table' end"
SHOWN = "a.attnum > 0 and not a.attisdropped and pg_catalog.has_column_privilege(c.oid, a.attnum, 'select')"

TABLES = f"""
select n.nspname || '.' || c.relname as name, {KIND} as kind, pg_catalog.obj_description(c.oid, 'pg_class') as comment,
    case when c.reltuples >= 0 and c.relkind <> 'v' then c.reltuples::bigint end as about_rows,
    (select pg_catalog.string_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), ', '
            order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = c.oid and {SHOWN}) as columns
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where {READABLE} and not c.relispartition
order by pg_catalog.pg_table_is_visible(c.oid) desc, 1 limit {MAX_TABLES + 1}
"""

TABLE = f"""
select n.nspname || '.' || c.relname as name, {KIND} as kind, pg_catalog.obj_description(c.oid, 'pg_class') as comment,
    (select pg_catalog.json_agg(pg_catalog.json_strip_nulls(pg_catalog.json_build_object(
            'name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'nullable', not a.attnotnull,
            'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid),
            'comment', pg_catalog.col_description(c.oid, a.attnum),
            'values', (select pg_catalog.json_agg(e.enumlabel order by e.enumsortorder)
                from pg_catalog.pg_enum e where e.enumtypid = a.atttypid))) order by a.attnum)::text
        from pg_catalog.pg_attribute a
        left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = c.oid and {SHOWN}) as columns,
    array(select pg_catalog.pg_get_constraintdef(k.oid) from pg_catalog.pg_constraint k
        where k.conrelid = c.oid and k.contype in ('p', 'u', 'f', 'c') order by k.contype desc, k.conname) as constraints
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where {READABLE} and c.relname = $1 and (n.nspname = $2 or $2::text is null)
order by pg_catalog.pg_table_is_visible(c.oid) desc, n.nspname limit 1
"""


async def describe(settings: Settings, table: str | None, workspace_id: UUID | None = None) -> dict[str, Any]:
    """The tables and views that may be read with their columns, or one of them in detail.

    Raises:
        ToolError: when there is no such table, or the database can't be asked.
    """
    async with session(settings, workspace_id) as connection:
        return await (_table(connection, table) if table else _tables(connection))


async def _tables(connection: Any) -> dict[str, Any]:
    found = await connection.fetch(TABLES)
    shown: list[dict[str, Any]] = []
    size = 0
    for row in found[:MAX_TABLES]:
        size += len(row["columns"]) + len(row["comment"] or "")
        if size > MAX_BYTES:
            break
        shown.append({key: value for key, value in row.items() if value is not None})
    version = await connection.fetchval("select pg_catalog.current_setting('server_version')")
    return {"database": f"PostgreSQL {version}", "tables": shown, "truncated": len(shown) < len(found)}


async def _table(connection: Any, name: str) -> dict[str, Any]:
    schema, dot, table = name.replace('"', "").rpartition(".")
    found = await connection.fetchrow(TABLE, table, schema if dot else None)
    if found is None:
        raise ToolError(f"table: there is no table or view {name!r} that may be read; leave `table` out to see all")
    columns = json.loads(found["columns"])
    return {
        "table": found["name"],
        "kind": found["kind"],
        "columns": columns,
        "constraints": list(found["constraints"]),
    } | ({"comment": found["comment"]} if found["comment"] else {})
