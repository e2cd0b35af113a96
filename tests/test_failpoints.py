"""Failpoints: silent until armed, and then told around the commit they name."""

from collections.abc import Iterator

import pytest

from app import failpoints
from app.db import Database
from app.errors import DatabaseUnavailable


@pytest.fixture
def reached() -> Iterator[list[str]]:
    names: list[str] = []
    failpoints.arm(names.append)
    yield names
    failpoints.arm(None)


def test_every_edge_has_two_failpoints() -> None:
    assert len(failpoints.FAILPOINTS) == 2 * len(failpoints.EDGES)
    assert {"before settle", "after settle"} < set(failpoints.FAILPOINTS)


def test_nothing_is_armed() -> None:
    failpoints.before("settle")
    failpoints.after("settle")


async def test_a_transaction_reaches_its_edge_around_the_commit(database: Database, reached: list[str]) -> None:
    async with database.engine_tx("settle") as connection:
        await connection.execute("create temporary table seen () on commit drop")
        assert reached == [], reached
    assert reached == ["before settle", "after settle"]


async def test_what_breaks_before_the_commit_is_rolled_back_and_after_it_is_not(database: Database) -> None:
    async def kept(at: str) -> bool:
        def break_off(name: str) -> None:
            if name == at:
                raise ConnectionError

        key = f"failpoint {at}"
        failpoints.arm(break_off)
        try:
            with pytest.raises(DatabaseUnavailable):
                async with database.engine_tx("settle") as connection:
                    await connection.execute("select set_config('application_name', $1, false)", key)
        finally:
            failpoints.arm(None)
        names = await database.fetch("select application_name from pg_stat_activity where application_name = $1", key)
        return bool(names)

    assert not await kept("before settle")
    assert await kept("after settle")
