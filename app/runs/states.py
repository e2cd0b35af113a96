"""The run state machine: its states and every move there is."""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Terminal is final: a retry is a new run.
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.RUNNING: frozenset(
        {RunState.WAITING, RunState.QUEUED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.WAITING: frozenset({RunState.QUEUED, RunState.FAILED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

TERMINAL_STATES = frozenset(state for state, onward in TRANSITIONS.items() if not onward)


def sources(state: RunState) -> list[str]:
    """The states from which a run may move to this one: the guard of every UPDATE."""
    return sorted(str(before) for before, onward in TRANSITIONS.items() if state in onward)
