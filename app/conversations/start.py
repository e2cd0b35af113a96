"""Beginning a conversation."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.db import Connection
from app.errors import (
    UnknownReference,
)
from app.messages import Json
from app.models import new_id
from app.patterns import Pattern

TITLE_CHARACTERS = 80


@dataclass(frozen=True)
class AgentRef:
    """An agent as a conversation points at it."""

    id: UUID
    name: str
    published_version: int


@dataclass(frozen=True)
class NewConversation:
    """A conversation about to begin; the caller makes its id."""

    workspace_id: UUID
    pattern: Pattern
    agent: AgentRef
    origin: str
    title: str = ""
    principal_id: UUID | None = None
    trusted: bool = True
    user: str | None = None
    context_data: Json = field(default_factory=dict[str, Any])
    on_message: str = "enqueue"
    task_id: UUID | None = None
    fire_id: UUID | None = None
    correlation_key: str | None = None
    forked_from_id: UUID | None = None
    forked_at_seq: int | None = None
    agent_version: int | None = None
    id: UUID = field(default_factory=new_id)


AGENT = """
select id, name, published_version from agents
where workspace_id = $1 and deleted_at is null and (name = $2 or id::text = $2)
"""


async def find_agent(connection: Connection, workspace_id: UUID, name: str, *, field: str = "agent") -> AgentRef:
    """The agent of that name or id.

    Raises:
        UnknownReference: naming the field.
    """
    row = await connection.fetchrow(AGENT, workspace_id, name)
    if row is None:
        raise UnknownReference(f"there is no agent {name!r}", field=field)
    return AgentRef(row["id"], row["name"], row["published_version"])


START = """
with c as (
    insert into conversations (id, workspace_id, pattern_type, title, agent_id, agent_version, origin, trusted, "user",
        root_id, task_id, fire_id, forked_from_id, forked_at_seq, correlation_key, context_data, on_message, created_by)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $1, $10, $11, $12, $13, $14, $15, $16, $17)
)
insert into heads (conversation_id, workspace_id) values ($1, $2)
"""


async def start(connection: Connection, new: NewConversation) -> UUID:
    """Begin a conversation; it is idle until it gets a message."""
    version = new.agent_version or (new.agent.published_version if new.pattern.pins_version else None)
    await connection.execute(
        START,
        new.id,
        new.workspace_id,
        new.pattern.name,
        new.title,
        new.agent.id,
        version,
        new.origin,
        new.trusted and new.pattern.trusted,
        new.user,
        new.task_id,
        new.fire_id,
        new.forked_from_id,
        new.forked_at_seq,
        new.correlation_key,
        new.context_data,
        new.on_message,
        new.principal_id,
    )
    return new.id


def title_of(text: str) -> str:
    """A title cut from a message: its first line, at most 80 characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1].rstrip() + "…"
