"""The doorbell: an ARQ job that says "look for due work in this lane" and nothing else.

Losing, doubling or delaying a ring never matters: workers also look on a timer. This is the only file of `app`
that imports arq.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import orjson
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import ConnectionPool

from app import failpoints
from app.models import new_id
from app.redis import AWAY, TIMEOUT_SECONDS, Rest

log = logging.getLogger(__name__)

LANE = "default"
WAKE = "wake"  # The one job function.
SOON_SECONDS = 0.02  # The live bus wakes workers sooner; this is the net below it ...
APART_SECONDS = 0.25  # ... and under load, rings are at least so far apart.
EXPIRES_SECONDS = 60  # A ring nobody heard for a minute is worth nothing: the timer was faster.


def queue_name(lane: str) -> str:
    """The ARQ queue of a lane."""
    return f"parley:queue:{lane}"


def dumps(value: Any) -> bytes:
    """ARQ's job serializer: JSON, because unpickling would run code of whoever can write to Redis."""
    return orjson.dumps(value)


def loads(data: bytes) -> Any:
    """ARQ's job deserializer."""
    return orjson.loads(data)


def redis_settings(url: str) -> RedisSettings:
    """ARQ's settings of a Redis URL."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_retries = 0
    return settings


class Bell:
    """Rings workers, here and elsewhere; never waits and never fails."""

    def __init__(self, url: str | None) -> None:
        """Make a bell.

        Args:
            url: Redis; None leaves the workers to their timers.
        """
        self._redis: Any = None
        if url:
            pool: Any = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
            )
            self._redis = ArqRedis(pool, job_serializer=dumps, job_deserializer=loads)
        self._rest = Rest()
        self._pending: set[str] = set()  # Lanes that will ring.
        self._ringing: set[asyncio.Task[None]] = set()
        self._next: dict[str, float] = {}  # When a lane may ring again.
        self.listener: Callable[[str], None] | None = None

    def ring(self, lane: str = LANE) -> None:
        """Say that work may be due in a lane. Call it after the commit."""
        failpoints.before("ring")
        if self.listener:
            self.listener(lane)
        elif self._redis is not None and lane not in self._pending and not self._rest.resting:
            self.pass_on(lane)

    def pass_on(self, lane: str) -> None:
        """Ring another process, even from one that listens itself."""
        if self._redis is not None and lane not in self._pending and not self._rest.resting:
            self._pending.add(lane)
            task = asyncio.create_task(self._ring(lane))
            self._ringing.add(task)
            task.add_done_callback(self._ringing.discard)

    async def _ring(self, lane: str) -> None:
        now = time.monotonic()
        at = max(now + SOON_SECONDS, self._next.get(lane, 0.0))
        self._next[lane] = at + APART_SECONDS
        await asyncio.sleep(at - now)
        self._pending.discard(lane)  # What is due from here on needs a ring of its own.
        try:
            await self._redis.enqueue_job(
                WAKE, lane, _job_id=str(new_id()), _queue_name=queue_name(lane), _expires=EXPIRES_SECONDS
            )
            failpoints.after("ring")
        except AWAY as error:
            self._rest.failed()
            log.debug("the bell could not be rung: %s", error)

    async def close(self) -> None:
        """Let pending rings out and disconnect."""
        await asyncio.gather(*self._ringing, return_exceptions=True)
        if self._redis is not None:
            with contextlib.suppress(*AWAY):
                await self._redis.aclose(close_connection_pool=True)
