"""The `workers` row of a process, for display: who is alive, with how much to do."""

import os
import socket

from app.db import Database

BEAT = """
insert into workers (id, kind, host, pid, slots, running) values ($1, $2, $3, $4, $5, $6)
on conflict (id) do update set seen_at = now(), slots = excluded.slots, running = excluded.running
"""
FORGET = "delete from workers where id = $1 or seen_at < now() - interval '1 hour'"


async def beat(database: Database, owner: str, *, kind: str, slots: int = 0, running: int = 0) -> None:
    """Say that this process is alive."""
    await database.execute(BEAT, owner, kind, socket.gethostname(), os.getpid(), slots, running)


async def leave(database: Database, owner: str) -> None:
    """Take this process off the list, and those long silent."""
    await database.execute(FORGET, owner)
