"""What counts as a Redis that is away."""

import pytest
import uvloop

from app.redis import AWAY, connect


async def _use_after_its_connection_closed(url: str) -> None:
    client = connect(url)
    await client.ping()
    (connection,) = client.connection_pool._available_connections
    connection._writer.transport.abort()
    try:
        await client.ping()
    finally:
        await client.aclose()


def test_a_connection_that_has_just_closed_is_a_redis_that_is_away_on_uvloop_too(redis_url: str) -> None:
    with pytest.raises(AWAY):
        uvloop.run(_use_after_its_connection_closed(redis_url))
