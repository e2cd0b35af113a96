"""The resource /memories: what agents, tasks and people are remembered by, readable and editable."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Query, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import agents, audit, tasks
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.shapes import Body
from app.api.strict import resource
from app.errors import InvalidRequest, NotFound, UnknownReference
from app.knowledge import memories
from app.knowledge.memories import MAX_KEY, MAX_TEXT, Owner, Scope, Shown, Wanted
from app.knowledge.writer import Writer
from app.models import Principal, new_id

router = resource("memories")

Reads = Annotated[Caller, may("memories:read")]
Writes = Annotated[Caller, may("memories:write")]

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)]
Key = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_KEY)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
# `me` is whoever makes the call.
Person = Annotated[
    str, StringConstraints(pattern=r"^(me|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$", max_length=36)
]
OWNERS = ("agent", "task", "person", "user")


class MemoryBody(Body):
    """Something to be remembered, about exactly one of an agent, a task, a person and a user."""

    text: Said = Field(description="What to remember.", examples=["Prefers short answers."])
    key: Key | None = Field(default=None, description="A short name, unique among its owner's.", examples=["style"])
    agent: Name | None = Field(default=None, description="About this agent, by name or id.", examples=["assistant"])
    task: UUID | None = Field(default=None, description="About this task.")
    person: Person | None = Field(default=None, description="About this principal; `me` is whoever makes the call.")
    user: Name | None = Field(
        default=None, description="About this person, as the application calls them in a conversation's `user`."
    )

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if len([name for name in OWNERS if getattr(self, name) is not None]) != 1:
            raise ValueError("exactly one of agent, task, person and user says whose memory it is")
        return self


class MemoryPatch(Body):
    """Changes; a text that a person has changed is theirs, and trusted."""

    text: Said | None = Field(default=None, description="What to remember instead.")
    key: Key | None = Field(default=None, description="A new name; null takes it away.")


class MemoryOut(BaseModel):
    """Something remembered."""

    id: UUID
    scope: Scope = Field(description="Whose it is.")
    agent: str | None = Field(description="The agent it is about.", examples=["assistant"])
    task: UUID | None = Field(description="The task it is about.")
    person: UUID | None = Field(description="The principal it is about.")
    user: str | None = Field(description="The person it is about, as the application calls them.")
    key: str | None = Field(examples=["style"])
    text: str = Field(examples=["Prefers short answers."])
    trusted: bool = Field(description="False: it was written in a conversation with outside data, such as a webhook's.")
    conversation_id: UUID | None = Field(description="Where a run wrote it; null when a person did.")
    run_id: UUID | None
    written_by: UUID | None = Field(description="The principal on whose behalf it was written last.")
    created_at: datetime
    updated_at: datetime


def show(shown: Shown) -> MemoryOut:
    """A memory as the API shows it."""
    row = shown.memory
    return MemoryOut(
        id=row.id,
        scope=memories.scope_of(row.agent_id, row.task_id),
        agent=shown.agent,
        task=row.task_id,
        person=row.principal_id,
        user=row.user,
        key=row.key,
        text=row.text,
        trusted=row.trusted,
        conversation_id=row.conversation_id,
        run_id=row.run_id,
        written_by=row.written_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


@router.get("/memories", summary="List memories")
async def list_memories(
    caller: Reads,
    page: Annotated[PageOf, paged("memories")],
    scope: Annotated[Scope | None, Query(description="About agents, tasks or people.")] = None,
    agent: Annotated[Name | None, Query(description="About this agent, by name or id.")] = None,
    task: Annotated[UUID | None, Query(description="About this task.")] = None,
    person: Annotated[Person | None, Query(description="About this principal, or `me`.")] = None,
    user: Annotated[Name | None, Query(description="About this person, as the application calls them.")] = None,
    q: Annotated[Name | None, Query(description="Holding all these words.")] = None,
) -> Page[MemoryOut]:
    """Newest first."""
    async with caller.transaction() as session:
        agent_id = await _agent(session, caller, agent) if agent else None
    wanted = Wanted(scope, agent_id, task, _person(caller, person), user)
    workspace_id, after, limit = caller.workspace_id, page.after, page.fetch
    if q is None:
        async with caller.transaction() as session:
            found = await memories.page(session, workspace_id, wanted, after=after, limit=limit)
    else:
        ids = await memories.search(caller.database, workspace_id, q, wanted, after=after, limit=limit)
        async with caller.transaction() as session:
            found = await memories.of_ids(session, workspace_id, ids)
    return page.cut(found, show)


@router.post("/memories", status_code=201, summary="Remember something")
async def create_memory(body: MemoryBody, caller: Writes, key: Idempotent, response: Response) -> MemoryOut:
    """Keeps a memory. A key that its owner has already is refused: change that memory instead."""
    memory_id, workspace_id = new_id(), caller.workspace_id
    async with caller.transaction() as session:
        if repeat := await key.claim(session, caller, "memory", memory_id):
            memory_id = repeat.uuid
        else:
            owner, writer = await _owner(session, caller, body), Writer(caller.principal.id)
            await memories.create(session, workspace_id, owner, body.text, body.key, writer, memory_id=memory_id)
            audit.record(session, caller.entry("memory.create", "memory", memory_id, scope=owner.scope))
        response.headers["Location"] = f"/memories/{memory_id}"
        return show(await memories.get(session, workspace_id, memory_id))


async def _owner(session: AsyncSession, caller: Caller, body: MemoryBody) -> Owner:
    """Whose a memory will be.

    Raises:
        UnknownReference: naming the field.
    """
    if body.agent is not None:
        return Owner(agent_id=await _agent(session, caller, body.agent))
    if body.user is not None:
        return Owner(user=body.user)
    if body.task is not None:
        try:
            return Owner(task_id=(await tasks.get(session, caller.workspace_id, body.task)).id)
        except NotFound as error:
            raise UnknownReference(error.detail, field="task") from error
    person = _person(caller, body.person)
    there = select(Principal.id).where(Principal.workspace_id == caller.workspace_id, Principal.id == person)
    if await session.scalar(there) is None:
        raise UnknownReference(f"there is no principal {person}", field="person")
    return Owner(principal_id=person)


async def _agent(session: AsyncSession, caller: Caller, ref: str) -> UUID:
    try:
        return (await agents.get(session, caller.workspace_id, ref)).id
    except NotFound as error:
        raise UnknownReference(error.detail, field="agent") from error


def _person(caller: Caller, person: str | None) -> UUID | None:
    return caller.principal.id if person == "me" else UUID(person) if person else None


@router.get("/memories/{memory_id}", summary="Show a memory")
async def get_memory(memory_id: UUID, caller: Reads) -> MemoryOut:
    """What is remembered, about whom, and where it comes from."""
    async with caller.transaction() as session:
        return show(await memories.get(session, caller.workspace_id, memory_id))


@router.patch("/memories/{memory_id}", summary="Change a memory")
async def patch_memory(memory_id: UUID, changes: MemoryPatch, caller: Writes) -> MemoryOut:
    """In force for the next `recall`."""
    given = changes.model_dump(exclude_unset=True)
    if given.get("text", "") is None:
        raise InvalidRequest("text: what is remembered can't be null; delete the memory instead", field="text")
    async with caller.transaction() as session:
        await memories.change(session, caller.workspace_id, memory_id, given, Writer(caller.principal.id))
        audit.record(session, caller.entry("memory.patch", "memory", memory_id, fields=sorted(given)))
        return show(await memories.get(session, caller.workspace_id, memory_id))


@router.delete("/memories/{memory_id}", status_code=204, summary="Delete a memory")
async def delete_memory(memory_id: UUID, caller: Writes) -> None:
    """Deletes it for good; conversations where it was said or recalled keep what was said there."""
    async with caller.transaction() as session:
        row = await memories.forget(session, caller.workspace_id, memory_id)
        audit.record(session, caller.entry("memory.delete", "memory", row.id))
