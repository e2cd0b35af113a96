"""Failpoints: the edges of every commit have names, so that tests can kill, freeze or cut off a process exactly there.

Nothing is armed unless a test's own entry program calls `arm`; until then reaching an edge costs one look at a variable.
No setting, request or environment variable arms one.
"""

from collections.abc import Callable

# Each edge is reached twice: before what it names is committed (or done), and after. One that depends on finding
# something, such as a claim, is reached afterwards only when it did.
EDGES = {
    "begin": "a conversation is begun",
    "say": "a message and its run are accepted",
    "task": "a task is stored, with the run it starts at once",
    "execute": "a task is started by hand",
    "webhook": "a webhook call gets its receipt and its run",
    "depend": "a run that waits for tasks is queued, or fails with one of them",
    "retry": "an ended run gets a new one",
    "fork": "a conversation is copied, with the run of its new message",
    "detach": "a run is sent to the background",
    "cancel": "a run is cancelled, or its holder asked to stop",
    "decide": "an approval is decided and its run queued",
    "claim": "due runs are claimed",
    "claim key": "due runs of one concurrency key are claimed",
    "renew": "the heartbeat renews the leases of a process",
    "checkpoint": "any fenced write, alone or with those of other runs",
    "request": "what the model is about to be asked is stored",
    "response": "a model response with tool calls and their ledger rows is stored",
    "code call": "a call that sandboxed code makes gets its ledger row",
    "tool start": "the ledger says that a call which must not run twice begins",
    "tool result": "the result of a tool call is stored",
    "progress": "what a tool tells or proposes meanwhile is stored",
    "steer": "a message that steers a run is taken in",
    "park": "a run's questions are stored and it waits",
    "settle": "a run ends, with its deliveries and the next run's turn",
    "retry later": "a run goes back to the queue after an error",
    "release": "a run goes back to the queue because its process stops",
    "recover": "runs whose lease ran out are queued again",
    "expire run": "a run whose time is over fails",
    "expire question": "a question whose time is over is closed",
    "fire": "due instants are recorded, their runs started and the schedules advanced",
    "advance": "within a fire: its rows are inserted, its schedule has yet to be advanced",
    "notify": "an agent's own notification is planned",
    "take delivery": "due deliveries are claimed",
    "send": "a delivery is handed to its channel, which is no commit of ours",
    "mark": "what became of a delivery is written down",
    "ring": "workers are woken, after a commit",
}
FAILPOINTS = tuple(f"{when} {edge}" for edge in EDGES for when in ("before", "after"))

_armed: Callable[[str], None] | None = None


def arm(hook: Callable[[str], None] | None) -> None:
    """Call this with the name of every failpoint that is reached; for the entry programs of tests alone."""
    global _armed
    _armed = hook


def before(edge: str) -> None:
    """About to commit, or to do, what the edge names; a nameless edge is none."""
    if _armed and edge:
        _armed(f"before {edge}")


def after(edge: str) -> None:
    """It is committed, or done, and nobody has been told yet."""
    if _armed and edge:
        _armed(f"after {edge}")
