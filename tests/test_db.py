"""The doors to PostgreSQL, where they must do more than pass statements on."""

import asyncio

import pytest

from app.db import Database
from app.errors import DatabaseUnavailable
from app.settings import Settings

LOCK = "select pg_advisory_xact_lock(7)"


async def test_a_transaction_whose_process_stands_still_gives_its_locks_back(
    database: Database, settings: Settings
) -> None:
    hasty = await Database.open(settings.model_copy(update={"parley_lease_seconds": 1.0}))
    seen = asyncio.Event()
    try:
        with pytest.raises(DatabaseUnavailable):
            await _stand_still_until_another_has_the_lock(hasty, database, seen)
        assert seen.is_set()
    finally:
        await hasty.close()


async def _stand_still_until_another_has_the_lock(hasty: Database, database: Database, seen: asyncio.Event) -> None:
    async with hasty.engine_tx() as frozen:
        await frozen.execute(LOCK)
        async with asyncio.timeout(5), database.engine_tx() as other:
            await other.execute(LOCK)
            seen.set()
        await frozen.execute("select 1")
