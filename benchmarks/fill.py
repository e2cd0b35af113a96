"""Fill a database with conversations that were held long ago: copies of one that the server itself has just held.

Copying keeps the rows what the server writes, whatever columns they have: only ids and times differ. Keys are checked
for one conversation and not for its copies, or it would take minutes.
"""

import asyncio
import time
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from benchmarks.client import Failed
from benchmarks.phases import drained
from benchmarks.targets import Parley

# Table -> the column by which the sample's rows are found.
TABLES = {
    "tasks": "id",
    "conversations": "id",
    "heads": "conversation_id",
    "inputs": "conversation_id",
    "runs": "conversation_id",
    "messages": "conversation_id",
    "events": "conversation_id",
}
# Ids that every copy has of its own; those of workspaces, agents and people are shared.
OWN_IDS = {"id", "conversation_id", "root_id", "run_id", "root_run_id", "task_id"}
SPACING_SECONDS = 1

# A UUIDv7 of the copy's time, so that indexes are filled as they are in life: at their right end.
COPY_ID = """
create function copy_id(old uuid, at timestamptz) returns uuid language sql immutable parallel safe as $$
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(h, 1, 3) || '8'
        || substr(h, 4, 15))::uuid from md5(old::text || at::text) as h
$$
"""
COLUMNS = """
select column_name, data_type from information_schema.columns
where table_schema = 'public' and table_name = $1 and is_generated = 'NEVER' order by ordinal_position
"""


async def fill(target: Parley, copies: int) -> float:
    """Store so many conversations, then vacuum, analyse and checkpoint once; how long it took.

    Returns:
        Seconds.
    """
    began = time.perf_counter()
    sample = await _sample(target)
    connection = await asyncpg.connect(target.dsn)
    try:
        await connection.execute("set synchronous_commit = off")
        await connection.execute("set session_replication_role = replica")
        await connection.execute(COPY_ID)
        now = await connection.fetchval("select now()")
        for table, key in TABLES.items():
            await _copy(connection, table, key, sample["task" if table == "tasks" else "conversation"], copies, now)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
        await _check(connection, copies)
    finally:
        await connection.close()
    return time.perf_counter() - began


async def _sample(target: Parley) -> dict[str, UUID]:
    """One delegated task, held to its end."""
    async with target.client(0) as client:
        run_id = await target.submit(client)
        await target.wait(client, run_id)
    await drained(target)
    await asyncio.sleep(0.1)
    connection = await asyncpg.connect(target.dsn)
    row = await connection.fetchrow("select conversation_id, task_id from runs where id = $1", UUID(run_id))
    await connection.close()
    assert row is not None
    return {"conversation": row["conversation_id"], "task": row["task_id"]}


async def _copy(connection: Any, table: str, key: str, sample: UUID, copies: int, now: datetime) -> None:
    """Copy a table's rows of the sample; `now` is the same for all tables, because ids are made of it."""
    columns = {row["column_name"]: row["data_type"] for row in await connection.fetch(COLUMNS, table)}
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(_copied(name, kind) for name, kind in columns.items())
    await connection.execute(
        f"""insert into {table} ({names})
        select {values} from generate_series(1, {copies}) as n,
            lateral (select $2::timestamptz - make_interval(secs => ({copies} - n + 60) * {SPACING_SECONDS}) as at) as long_ago,
            {table} as t
        where t.{key} = $1 order by n""",
        sample,
        now,
    )


# Rows that belong together by their keys, though nobody checked the keys.
WHOLE = """
select count(*) from heads h join conversations c on c.id = h.conversation_id join tasks t on t.id = c.task_id
join runs r on r.conversation_id = h.conversation_id and r.number = h.run_no
join messages m on m.conversation_id = h.conversation_id and m.seq = h.message_seq
join events e on e.conversation_id = h.conversation_id and e.seq = h.event_seq
where m.run_id = r.id and e.run_id = r.id and r.task_id = t.id
"""


async def _check(connection: Any, copies: int) -> None:
    found = await connection.fetchval(WHOLE)
    if found < copies:
        raise Failed(f"{found} of {copies} copied conversations are whole")


def _copied(name: str, kind: str) -> str:
    if kind == "uuid" and name in OWN_IDS:
        return f'copy_id(t."{name}", long_ago.at)'
    if kind.startswith("timestamp"):
        return f'long_ago.at + (t."{name}" - $2)'
    return f't."{name}"'
