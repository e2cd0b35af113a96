"""Runs: the state machine and the only statements that write a run's state."""

from app.runs.breakers import Breaker, shut_for, tend, wait_for_provider
from app.runs.claim import Claim, claim, due
from app.runs.holds import hold, holds, lift, paused
from app.runs.insert import Inline, InsertedRun, NewInput, NewRun, insert, steer
from app.runs.lease import Heartbeat
from app.runs.moves import (
    Overdue,
    Recovered,
    cancel_reason,
    detach,
    hand_on,
    overdue,
    recover,
    release,
    retry_later,
    still_overdue,
    stranded,
    wait_for_credential,
    wish_cancel,
)
from app.runs.park import answered, park
from app.runs.reasons import WAITING_FOR, Standing, Why, explain, reason_of, reasons, why_new
from app.runs.states import TERMINAL_STATES, TRANSITIONS, RunState
from app.runs.write import CallRecord, Checkpoints, Fenced, NewMessage, Usage, Write, Written, patiently

__all__ = [
    "TERMINAL_STATES",
    "TRANSITIONS",
    "WAITING_FOR",
    "Breaker",
    "CallRecord",
    "Checkpoints",
    "Claim",
    "Fenced",
    "Heartbeat",
    "Inline",
    "InsertedRun",
    "NewInput",
    "NewMessage",
    "NewRun",
    "Overdue",
    "Recovered",
    "RunState",
    "Standing",
    "Usage",
    "Why",
    "Write",
    "Written",
    "answered",
    "cancel_reason",
    "claim",
    "detach",
    "due",
    "explain",
    "hand_on",
    "hold",
    "holds",
    "insert",
    "lift",
    "overdue",
    "park",
    "patiently",
    "paused",
    "reason_of",
    "reasons",
    "recover",
    "release",
    "retry_later",
    "shut_for",
    "steer",
    "still_overdue",
    "stranded",
    "tend",
    "wait_for_credential",
    "wait_for_provider",
    "why_new",
    "wish_cancel",
]
