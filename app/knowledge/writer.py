"""On whose behalf something is kept, and whether that still holds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

Door = TypeVar("Door")

# Called first in a transaction that writes: locks the run, or raises when its claim does not hold any more.
Hold = Callable[[Door], Awaitable[None]]


@dataclass(frozen=True)
class Writer:
    """Who adds a document or a memory.

    Attributes:
        principal_id: On whose behalf.
        trusted: Whether somebody of the workspace stands behind the words.
        conversation_id: Where a run adds it.
        run_id: The run.
    """

    principal_id: UUID | None
    trusted: bool = True
    conversation_id: UUID | None = None
    run_id: UUID | None = None


async def by_hand(door: object) -> None:
    """A call by hand has no run that could be lost."""
    del door
