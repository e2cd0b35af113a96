"""The doorbell."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from app.queue import LANE, Bell, queue_name


@pytest.mark.usefixtures("_clean")
async def test_a_ring_under_way_is_let_out_before_the_connection_ends(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bell = Bell(redis_url)
    rings, may_go_on = asyncio.Event(), asyncio.Event()
    enqueue: Callable[..., Any] = bell._redis.enqueue_job

    async def slowly(*args: Any, **options: Any) -> Any:
        rings.set()
        await may_go_on.wait()
        return await enqueue(*args, **options)

    monkeypatch.setattr(bell._redis, "enqueue_job", slowly)
    bell.ring()
    await rings.wait()
    closing = asyncio.create_task(bell.close())
    await asyncio.sleep(0)
    may_go_on.set()
    await closing
    async with Redis.from_url(redis_url) as redis:
        assert await redis.zcard(queue_name(LANE)) == 1
    assert not bell._ringing
