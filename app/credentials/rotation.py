"""Moving what is sealed to the first key, and finding out whether it can be opened at all."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import orjson

from app.credentials.box import Box, Envelope, is_sealed
from app.credentials.rows import SECRET, TABLE, TOKEN
from app.db import Database, Row, dump_json
from app.errors import Unreadable

BATCH = 200
CANARY = "tweet"
FIRST = UUID(int=0)

# Every table with sealed values: its columns, and the field each value is bound to.
PLACES: dict[str, dict[str, str]] = {
    TABLE: {"secret": SECRET, "token": TOKEN},
    "tasks": {
        "notification_config": "notification_config.slack_webhook_url",
        "trigger_config": "trigger_config.secret",
    },
}
# A value that changed meanwhile stays as it is: it was sealed with the first key just now.
REPLACE = "update {table} set {column} = $3::text::{type} where id = $1 and {column}::text = $2"
NEXT = "select id, workspace_id, {columns} from {table} where id > $1 order by id limit $2"
TYPES = {TABLE: "text", "tasks": "json"}


@dataclass
class Tally:
    """What was found so far."""

    sealed: int = 0
    moved: int = 0
    unreadable: int = 0


async def rotate(database: Database, box: Box, *, batch: int = BATCH) -> AsyncGenerator[Tally]:
    """Seal with the first key whatever another key sealed, batch by batch; tells the sums after each.

    It can be stopped and begun again at any time: what was moved is not touched again. A value that can't be opened
    stays as it is.

    Raises:
        ConfigurationError: when no key is set.
    """
    first, tally = box.sealing_key_id(), Tally()

    def reseal(sealed: str, place: dict[str, Any]) -> str:
        opened = _opened(box, sealed, place, tally)
        if opened is None or Envelope.read(sealed).key_id == first:
            return sealed
        tally.moved += 1
        return box.seal(opened, **place)

    async for _ in _walk(database, reseal, batch):
        yield tally
    if not tally.unreadable:
        await database.execute(FORGET, first)


async def check(database: Database, box: Box, *, batch: int = BATCH) -> AsyncGenerator[Tally]:
    """Open whatever is sealed, changing nothing; tells the sums after each batch."""
    tally = Tally()

    def look(sealed: str, place: dict[str, Any]) -> str:
        _opened(box, sealed, place, tally)
        return sealed

    async for _ in _walk(database, look, batch):
        yield tally


def _opened(box: Box, sealed: str, place: dict[str, Any], tally: Tally) -> str | None:
    tally.sealed += 1
    try:
        return box.open(sealed, **place)
    except Unreadable:
        tally.unreadable += 1
        return None


Visit = Callable[[str, dict[str, Any]], str]


async def _walk(database: Database, visit: Visit, batch: int) -> AsyncGenerator[None]:
    for table, columns in PLACES.items():
        after = FIRST
        listed = ", ".join(f"{column}::text as {column}" for column in columns)
        while rows := await database.fetch(NEXT.format(table=table, columns=listed), after, batch):
            for row in rows:
                await _visit_row(database, table, row, visit)
            after = UUID(str(rows[-1]["id"]))
            yield


async def _visit_row(database: Database, table: str, row: Row, visit: Visit) -> None:
    for column, field in PLACES[table].items():
        stored: str | None = row[column]
        if stored is None:
            continue
        place = {"table": table, "workspace": row["workspace_id"], "row": row["id"], "field": field}
        found = _visited(stored, TYPES[table], lambda sealed, place=place: visit(sealed, place))
        if found != stored:
            replace = REPLACE.format(table=table, column=column, type=TYPES[table])
            await database.execute(replace, row["id"], stored, found)


def _visited(stored: str, kind: str, visit: Callable[[str], str]) -> str:
    if kind == "text":
        return visit(stored)
    changed: list[bool] = []

    def noting(sealed: str) -> str:
        now = visit(sealed)
        changed.append(now != sealed)
        return now

    value = _within(orjson.loads(stored), noting)
    return dump_json(value) if any(changed) else stored


def _within(value: Any, visit: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _within(each, visit) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_within(each, visit) for each in cast("list[Any]", value)]
    return visit(value) if isinstance(value, str) and is_sealed(value) else value


# --- canaries -------------------------------------------------------------------------------------

THERE = "select to_regclass('public.canaries') is not null"
KEEP = "insert into canaries (key_id, sealed) values ($1, $2) on conflict do nothing"
CANARIES = "select key_id, sealed from canaries"
FORGET = "delete from canaries where key_id <> $1"  # Nothing is sealed with another key any more.


async def has_canaries(database: Database) -> bool:
    """Whether the schema is that far."""
    return await database.fetchval(THERE)


async def keep_canaries(database: Database, box: Box) -> list[str]:
    """Leave a known text sealed with the first key, and try those that are there.

    Returns:
        What is wrong with the keys, in words; nothing when all is well.
    """
    wrong = await wrong_keys(database, box)
    if box.keys:
        key_id = box.sealing_key_id()
        await database.execute(KEEP, key_id, box.seal(CANARY, **_canary_place(key_id)))
    return wrong


async def wrong_keys(database: Database, box: Box) -> list[str]:
    """What is wrong with the keys, in words: one is another than it was, or is missing while something needs it."""
    known = {row["key_id"]: row["sealed"] for row in await database.fetch(CANARIES)}
    missing = known.keys() - box.keys.keys()
    # A key that was rotated away may be gone. Looked for only then: it reads whatever is sealed.
    needed = await _key_ids(database) if missing else Counter[str]()
    gone = [
        f"the key {key_id!r} is not in PARLEY_ENCRYPTION_KEYS, and sealed {needed[key_id]} of the stored secrets: "
        "they are unreadable"
        for key_id in sorted(missing)
        if needed[key_id]
    ]
    return gone + [wrong for key_id, sealed in known.items() if (wrong := _wrong(box, key_id, sealed))]


async def _key_ids(database: Database) -> Counter[str]:
    """How many of the stored secrets each key has sealed."""
    found: Counter[str] = Counter()

    def count(sealed: str, _: dict[str, Any]) -> str:
        with suppress(Unreadable):
            found[Envelope.read(sealed).key_id] += 1
        return sealed

    async for _ in _walk(database, count, BATCH):
        pass
    return found


def _wrong(box: Box, key_id: str, sealed: str) -> str | None:
    if key_id not in box.keys:
        return None
    try:
        box.open(sealed, **_canary_place(key_id))
    except Unreadable:
        return f"the key {key_id!r} is not the one of that name that sealed what is stored: it is unreadable"
    return None


def _canary_place(key_id: str) -> dict[str, Any]:
    return {"table": "canaries", "workspace": "", "row": key_id, "field": "sealed"}
