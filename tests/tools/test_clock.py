"""The clock of a call: over when its time is over, and still while others are waited for."""

import asyncio

import pytest

from app.tools.clock import CallClock


async def test_time_that_is_over_ends_the_block() -> None:
    clock = CallClock(0.01)

    async def linger() -> None:
        async with clock:
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await linger()
    assert clock.expired


async def test_waits_do_not_count_not_even_two_at_once() -> None:
    clock = CallClock(0.2)

    async def wait(seconds: float) -> None:
        with clock.standing_still():
            await asyncio.sleep(seconds)

    async with clock:
        await asyncio.gather(wait(0.3), wait(0.4))
    assert not clock.expired


async def test_what_is_left_after_a_wait_runs_out() -> None:
    clock = CallClock(0.05)

    async def wait_and_linger() -> None:
        async with clock:
            with clock.standing_still():
                await asyncio.sleep(0.1)
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await wait_and_linger()
