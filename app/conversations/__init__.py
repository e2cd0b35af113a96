"""`start`, `reply`, `fork`, `carry_on`, `retry`: the one way in for every interaction.

All of them need an `engine_tx()`. What they answer is published, rung or executed after its commit.
"""

from app.conversations.again import carry_on, fork, retry
from app.conversations.begin import Beginning, Beginnings, Begun, begin
from app.conversations.reply import Accepted, Turn, given_with, lock, reply, task_run
from app.conversations.start import AgentRef, NewConversation, find_agent, start, title_of

__all__ = [
    "Accepted",
    "AgentRef",
    "Beginning",
    "Beginnings",
    "Begun",
    "NewConversation",
    "Turn",
    "begin",
    "carry_on",
    "find_agent",
    "fork",
    "given_with",
    "lock",
    "reply",
    "retry",
    "start",
    "task_run",
    "title_of",
]
