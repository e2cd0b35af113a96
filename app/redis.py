"""The Redis client: live events and wake-ups pass through it, truth never does."""

import time
from typing import Any

from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

# What says that Redis is away, full, read-only or loading. The caller goes on without it.
# RuntimeError is uvloop's word for a connection that has just closed; redis-py passes it on as it is.
AWAY = (RedisError, OSError, TimeoutError, RuntimeError)

TIMEOUT_SECONDS = 1.0
REST_SECONDS = 1.0


def connect(url: str) -> Any:
    """A client that fails fast: nothing may wait long for a store that carries no truth.

    Typed `Any`: redis-py's own types are partial, and this module is where they end.
    """
    return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )


class Rest:
    """Remembers a failure for a second, so that a missing Redis costs one timeout and not one per call."""

    def __init__(self) -> None:
        """Begin rested."""
        self._until = 0.0

    @property
    def resting(self) -> bool:
        """Whether the last failure is too recent to try again."""
        return time.monotonic() < self._until

    def failed(self) -> None:
        """Note a failure."""
        self._until = time.monotonic() + REST_SECONDS


async def ping(client: Any) -> bool:
    """Whether Redis answers."""
    try:
        return bool(await client.ping())
    except AWAY:
        return False
