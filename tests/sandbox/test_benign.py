"""Functions that people really write: checked, described and run, each with its answer."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app import sandbox
from tests.sandbox.benign import FUNCTIONS


@pytest.fixture(autouse=True, scope="module")
def _workers_end() -> Iterator[None]:
    yield
    asyncio.run(sandbox.aclose())


def test_the_set_is_large_enough() -> None:
    assert len(FUNCTIONS) >= 40


@pytest.mark.parametrize(("code", "arguments", "expected"), FUNCTIONS.values(), ids=FUNCTIONS)
async def test_it_is_accepted_and_answers(code: str, arguments: dict[str, Any], expected: Any) -> None:
    name = code.rpartition("\nasync def ")[2].partition("(")[0]  # the last one is the tool
    spec = await sandbox.check(code, name=name)
    outcome = await sandbox.run(code, arguments, function=spec.name)
    assert (outcome.error, outcome.result) == (None, expected)
