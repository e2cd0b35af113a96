"""Rate limits: shared through Redis, held in this process while Redis is away."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import ConnectionPool

from app.errors import RateLimited
from app.redis import AWAY, TIMEOUT_SECONDS, Rest

WINDOW_SECONDS = 10


@dataclass(frozen=True)
class Limit:
    """How many requests one caller may make in ten seconds.

    Attributes:
        name: The class of requests.
        amount: Requests per window.
        shared: Whether all API processes count together.
    """

    name: str
    amount: int
    shared: bool = True

    @property
    def item(self) -> RateLimitItem:
        """The limit as the library knows it."""
        return RateLimitItemPerSecond(self.amount, WINDOW_SECONDS, namespace=f"parley:{self.name}")


READS = Limit("read", 2_000)
WRITES = Limit("write", 1_000)
# One person on this machine, whose loops and load tests are welcome: only a runaway meets this.
LOCAL = Limit("local", 50_000, shared=False)
# Calls without a valid key, by address.
STRANGERS = Limit("stranger", 100, shared=False)
# Webhook calls that could not be verified, by address: many senders may stand behind one.
FORGERS = Limit("forger", 1_000, shared=False)


class RateLimits:
    """Counts requests per caller."""

    def __init__(self, redis_url: str | None) -> None:
        """Count in Redis when there is one, else here."""
        self._memory = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._pool: Any = None
        self._redis: SlidingWindowCounterRateLimiter | None = None
        self._rest = Rest()
        if redis_url:
            self._pool = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
            )
            options: dict[str, Any] = {"connection_pool": self._pool}
            storage = RedisStorage("async+redis://", implementation="redispy", key_prefix="parley:limits", **options)
            self._redis = SlidingWindowCounterRateLimiter(storage)

    async def check(self, limit: Limit, caller: str) -> None:
        """Count one request.

        Raises:
            RateLimited: when there were too many; it says when to come again.
        """
        if limit.shared and self._redis and not self._rest.resting:
            try:
                return await _hit(self._redis, limit, caller)
            except AWAY:
                self._rest.failed()
        await _hit(self._memory, limit, caller)

    async def aclose(self) -> None:
        """Disconnect."""
        if self._pool is not None:
            with contextlib.suppress(*AWAY):
                await self._pool.disconnect()


async def _hit(limiter: SlidingWindowCounterRateLimiter, limit: Limit, caller: str) -> None:
    if await limiter.hit(limit.item, caller):
        return
    stats = await limiter.get_window_stats(limit.item, caller)
    wait = max(1.0, stats.reset_time - time.time())
    raise RateLimited(
        f"at most {limit.amount} requests in {WINDOW_SECONDS} seconds",
        retry_after=wait,
        extra={"limit": limit.amount, "remaining": max(0, stats.remaining), "reset_seconds": round(wait, 1)},
    )
