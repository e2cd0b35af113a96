"""Memories: what an agent, a task or a person is to be remembered by, in words.

Each belongs to one owner. Tools reach the owners of their run alone, through `Memories`; people reach all of their
workspace's over the API.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, delete, func, literal_column, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Connection, Database, Row
from app.errors import Duplicate, MemoryFull, NotFound, ToolError
from app.knowledge.writer import Hold, Writer, by_hand
from app.messages import clean_text
from app.models import Agent, Memory, Task

Scope = Literal["agent", "task", "person"]

MAX_TEXT = 4_000
MAX_KEY = 100
MAX_PER_OWNER = 1_000
RECALLED = 10  # What a model is given at once, at most 40,000 characters.

# One writer per owner at a time: the cap is exact, and two of one key are no conflict.
IN_LINE = text("select pg_advisory_xact_lock(hashtextextended(:owner, 0))")

# Any word of the query counts, the more the better: models ask in sentences. A query without words asks for the newest.
RECALL = """
with asked as (select replace(plainto_tsquery('english', $2)::text, ' & ', ' | ')::tsquery as words)
select m.id, m.agent_id, m.task_id, m.key, m.text, m.trusted, m.updated_at
from memories m, asked
where m.workspace_id = $1 and (m.agent_id = $3 or m.task_id = $4 or m.principal_id = $5 or m."user" = $6)
    and (numnode(words) = 0 or m.search @@ words)
order by ts_rank(m.search, words) desc, m.updated_at desc, m.id desc limit $7
"""
SCOPE = "case when agent_id is not null then 'agent' when task_id is not null then 'task' else 'person' end"
SCOPE_OF = literal_column(SCOPE, Text())
# Row-level security keeps the planner from the index, so words are looked up here, with the workspace in SQL.
SEARCH = f"""
select id from memories
where workspace_id = $1 and search @@ websearch_to_tsquery('english', $2) and ($3::uuid is null or id < $3)
    and ($4::text is null or {SCOPE} = $4) and ($5::uuid is null or agent_id = $5)
    and ($6::uuid is null or task_id = $6) and ($7::uuid is null or principal_id = $7)
    and ($8::text is null or "user" = $8)
order by id desc limit $9
"""
FORGET_TASK = "delete from memories where workspace_id = $1 and task_id = $2"


@dataclass(frozen=True)
class Owner:
    """Whose a memory is: exactly one of these.

    Attributes:
        agent_id: An agent.
        task_id: A task.
        principal_id: A person, who acts with a principal of their own.
        user: A person, as an application calls them that acts for many with one key.
    """

    agent_id: UUID | None = None
    task_id: UUID | None = None
    principal_id: UUID | None = None
    user: str | None = None

    @property
    def scope(self) -> Scope:
        """Which kind of owner."""
        return scope_of(self.agent_id, self.task_id)

    @property
    def owns(self) -> ColumnElement[bool]:
        """The condition on its memories."""
        return or_(*(getattr(Memory, name) == value for name, value in asdict(self).items() if value is not None))


def scope_of(agent_id: UUID | None, task_id: UUID | None) -> Scope:
    """The kind of owner of a memory."""
    return "agent" if agent_id else "task" if task_id else "person"


# --- one memory -------------------------------------------------------------------------------------


async def create(
    session: AsyncSession,
    workspace_id: UUID,
    owner: Owner,
    said: str,
    key: str | None,
    writer: Writer,
    *,
    memory_id: UUID,
) -> Memory:
    """Keep a new memory.

    Raises:
        Duplicate: when its owner has one of that key.
        MemoryFull: when its owner has as many as are kept.
    """
    await _stand_in_line(session, workspace_id, owner)
    await _refuse_taken(session, workspace_id, owner, key)
    return await _insert(session, workspace_id, owner, said, key, writer, memory_id)


async def remember(
    session: AsyncSession,
    workspace_id: UUID,
    owner: Owner,
    said: str,
    key: str | None,
    writer: Writer,
    *,
    memory_id: UUID,
) -> Memory:
    """Keep a memory in place of the one of its key; the same id again, after a crash, is no second one.

    Raises:
        MemoryFull: when it would be new and its owner has as many as are kept.
    """
    await _stand_in_line(session, workspace_id, owner)
    again = select(Memory).where(Memory.workspace_id == workspace_id, Memory.id == memory_id)
    if kept := await session.scalar(again):
        return kept
    if kept := await _keyed(session, workspace_id, owner, key):
        _write(kept, said, writer)
        await session.flush()
        return kept
    return await _insert(session, workspace_id, owner, said, key, writer, memory_id)


async def _stand_in_line(session: AsyncSession, workspace_id: UUID, owner: Owner) -> None:
    await session.execute(IN_LINE, {"owner": f"memories of {workspace_id} {owner}"})


async def _keyed(session: AsyncSession, workspace_id: UUID, owner: Owner, key: str | None) -> Memory | None:
    if key is None:
        return None
    return await session.scalar(
        select(Memory).where(Memory.workspace_id == workspace_id, owner.owns, Memory.key == key)
    )


async def _refuse_taken(session: AsyncSession, workspace_id: UUID, owner: Owner, key: str | None) -> None:
    if await _keyed(session, workspace_id, owner, key):
        raise Duplicate(f"this {owner.scope} has a memory with the key {key!r} already", field="key")


async def _insert(
    session: AsyncSession,
    workspace_id: UUID,
    owner: Owner,
    said: str,
    key: str | None,
    writer: Writer,
    memory_id: UUID,
) -> Memory:
    counted = select(func.count()).select_from(Memory).where(Memory.workspace_id == workspace_id, owner.owns)
    if (await session.scalar(counted) or 0) >= MAX_PER_OWNER:
        raise MemoryFull(f"this {owner.scope} has {MAX_PER_OWNER} memories already: forget or replace some")
    row = Memory(id=memory_id, workspace_id=workspace_id, key=key, text=said, **asdict(owner), **_written(writer))
    session.add(row)
    await session.flush()
    await session.refresh(row, ["created_at", "updated_at"])
    return row


def _written(writer: Writer) -> dict[str, Any]:
    """Where it comes from, by column."""
    return {
        "written_by": writer.principal_id,
        "trusted": writer.trusted,
        "conversation_id": writer.conversation_id,
        "run_id": writer.run_id,
    }


def _write(row: Memory, said: str, writer: Writer) -> None:
    row.text, row.updated_at = said, func.now()
    for name, value in _written(writer).items():
        setattr(row, name, value)


async def change(
    session: AsyncSession, workspace_id: UUID, memory_id: UUID, changes: Mapping[str, Any], writer: Writer
) -> None:
    """Change its `text`, which is then the changer's own, or its `key`.

    Raises:
        NotFound: when there is none of that id.
        Duplicate: when its owner has another one of that key.
    """
    row = (await get(session, workspace_id, memory_id)).memory
    owner = owner_of(row)
    await _stand_in_line(session, workspace_id, owner)
    if "key" in changes and changes["key"] != row.key:
        await _refuse_taken(session, workspace_id, owner, changes["key"])
        row.key, row.updated_at = changes["key"], func.now()
    if "text" in changes:
        _write(row, changes["text"], writer)
    await session.flush()
    await session.refresh(row, ["updated_at"])


def owner_of(row: Memory) -> Owner:
    """Whose a memory is."""
    return Owner(row.agent_id, row.task_id, row.principal_id, row.user)


async def forget(session: AsyncSession, workspace_id: UUID, memory_id: UUID) -> Memory:
    """Delete a memory; nothing of it is left.

    Raises:
        NotFound: when there is none of that id.
    """
    row = (await get(session, workspace_id, memory_id)).memory
    await session.delete(row)
    await session.flush()
    return row


async def forget_agent(session: AsyncSession, workspace_id: UUID, agent_id: UUID) -> None:
    """Delete what an agent remembers: it is being deleted itself."""
    await session.execute(delete(Memory).where(Memory.workspace_id == workspace_id, Memory.agent_id == agent_id))


async def forget_task(connection: Connection, workspace_id: UUID, task_id: UUID) -> None:
    """Delete what a task remembers: it is being deleted itself. For an `engine_tx()`."""
    await connection.execute(FORGET_TASK, workspace_id, task_id)


# --- reading ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A memory with the name of the agent it belongs to."""

    memory: Memory
    agent: str | None

    @property
    def id(self) -> UUID:
        """The memory's id: its place in a list."""
        return self.memory.id


@dataclass(frozen=True)
class Wanted:
    """Which memories a list shows."""

    scope: Scope | None = None
    agent_id: UUID | None = None
    task_id: UUID | None = None
    principal_id: UUID | None = None
    user: str | None = None


def _selected(workspace_id: UUID) -> Select[Memory, str]:
    return (
        select(Memory, Agent.name)
        .outerjoin(Agent, Agent.id == Memory.agent_id)
        .where(Memory.workspace_id == workspace_id)
    )


async def get(session: AsyncSession, workspace_id: UUID, memory_id: UUID) -> Shown:
    """A memory.

    Raises:
        NotFound: when the workspace has none of that id.
    """
    row = (await session.execute(_selected(workspace_id).where(Memory.id == memory_id))).one_or_none()
    if row is None:
        raise NotFound(f"there is no memory {memory_id}")
    return Shown(*row)


async def page(
    session: AsyncSession, workspace_id: UUID, wanted: Wanted, *, after: UUID | None, limit: int
) -> Sequence[Shown]:
    """Memories, newest first, from after one on."""
    query = _selected(workspace_id)
    for name, value in asdict(wanted).items():
        if value is not None:
            query = query.where((SCOPE_OF if name == "scope" else getattr(Memory, name)) == value)
    query = query.where(Memory.id < after) if after else query
    return [Shown(*row) for row in await session.execute(query.order_by(Memory.id.desc()).limit(limit))]


async def search(
    database: Database, workspace_id: UUID, words: str, wanted: Wanted, *, after: UUID | None, limit: int
) -> list[UUID]:
    """The ids of the memories that hold all these words, newest first, from after one on."""
    rows = await database.fetch(SEARCH, workspace_id, words, after, *asdict(wanted).values(), limit)
    return [row["id"] for row in rows]


async def of_ids(session: AsyncSession, workspace_id: UUID, ids: Collection[UUID]) -> Sequence[Shown]:
    """These memories, newest first."""
    query = _selected(workspace_id).where(Memory.id.in_(ids)).order_by(Memory.id.desc())
    return [Shown(*row) for row in await session.execute(query)]


async def recall(
    database: Database, workspace_id: UUID, owners: Collection[Owner], query: str, *, limit: int = RECALLED
) -> list[Row]:
    """The memories of these owners that match best, then the newest; without a query the newest."""
    ids = [next((each for each in column if each), None) for column in _columns(owners)]
    return await database.fetch(RECALL, workspace_id, clean_text(query), *ids, limit)


def _columns(owners: Collection[Owner]) -> list[list[Any]]:
    return [[getattr(owner, name) for owner in owners] for name in ("agent_id", "task_id", "principal_id", "user")]


# --- the door of tools ------------------------------------------------------------------------------


class Memories:
    """What one call of a tool may remember, recall and forget: only about those its run belongs to."""

    def __init__(
        self,
        database: Database,
        workspace_id: UUID,
        owners: Mapping[Scope, Owner],
        writer: Writer,
        hold: Hold[AsyncSession] = by_hand,
    ) -> None:
        """Open the door for one call.

        Args:
            database: Both doors to PostgreSQL.
            workspace_id: The run's workspace.
            owners: Its agent, task and person, as far as it has them.
            writer: What is written down beside what it remembers.
            hold: Locks the run in the writing transaction, or raises when its claim does not hold any more.
        """
        self._database = database
        self._workspace_id = workspace_id
        self._owners = owners
        self._writer = writer
        self._hold = hold

    async def remember(self, memory_id: UUID, said: str, about: Scope, key: str | None) -> Memory:
        """Keep something, in place of what has the same key.

        Raises:
            ToolError: when the run has no such owner, or it was deleted.
            MemoryFull: when its owner has as many as are kept.
            LeaseLost: when the claim does not hold any more.
        """
        owner = self._owner(about)
        async with self._database.transaction(self._workspace_id) as session:
            await self._hold(session)
            await self._refuse_deleted(session, owner)
            name = clean_text(key) if key else None
            return await remember(
                session, self._workspace_id, owner, clean_text(said), name, self._writer, memory_id=memory_id
            )

    async def recall(self, query: str, about: Scope | None) -> list[Row]:
        """What is remembered about one of the run's owners, or all of them.

        Raises:
            ToolError: when the run has no such owner.
        """
        owners = [self._owner(about)] if about else list(self._owners.values())
        return await recall(self._database, self._workspace_id, owners, query)

    async def forget(self, memory_id: UUID) -> bool:
        """Delete a memory of one of the run's owners; whether there was one.

        Raises:
            LeaseLost: when the claim does not hold any more.
        """
        theirs = or_(*(owner.owns for owner in self._owners.values()))
        gone = delete(Memory).where(Memory.workspace_id == self._workspace_id, Memory.id == memory_id, theirs)
        async with self._database.transaction(self._workspace_id) as session:
            await self._hold(session)
            return await session.scalar(gone.returning(Memory.id)) is not None

    def _owner(self, about: Scope) -> Owner:
        if about not in self._owners:
            there = " and ".join(self._owners)
            raise ToolError(f"there is no {about} to remember here: only the {there} of this call")
        return self._owners[about]

    async def _refuse_deleted(self, session: AsyncSession, owner: Owner) -> None:
        """A run may outlive its agent and its task; what it would remember about them is nobody's any more."""
        kind, row_id = (Agent, owner.agent_id) if owner.agent_id else (Task, owner.task_id)
        if row_id is not None and await session.scalar(select(kind.deleted_at).where(kind.id == row_id)):
            raise ToolError(f"the {owner.scope} was deleted: nothing is remembered about it")
