"""Memories: one owner each, keys that replace, a cap that holds, words that find them, and nothing of other workspaces."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app import agents, tasks
from app.agents import AgentSpec
from app.agents.rows import DEFAULT_AGENT_ID
from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Database
from app.errors import Duplicate, MemoryFull, NotFound
from app.identity import LOCAL
from app.knowledge import memories
from app.knowledge.memories import Owner, Wanted
from app.knowledge.writer import Writer
from app.models import Memory, new_id
from app.settings import Settings

OTHER = UUID("00000000-0000-7000-8000-0000000000ff")
ALICE, BOB = Owner(user="alice"), Owner(user="bob")
ASSISTANT, SYSTEM = Owner(agent_id=DEFAULT_AGENT_ID), Owner(principal_id=SYSTEM_PRINCIPAL)
ORIGIN = Writer(SYSTEM_PRINCIPAL)


async def remember(
    database: Database,
    owner: Owner,
    text: str,
    key: str | None = None,
    *,
    memory_id: UUID | None = None,
    workspace_id: UUID = DEFAULT_WORKSPACE,
) -> UUID:
    async with database.transaction(workspace_id) as session:
        row = await memories.remember(session, workspace_id, owner, text, key, ORIGIN, memory_id=memory_id or new_id())
        return row.id


async def texts(
    database: Database, *owners: Owner, query: str = "", workspace_id: UUID = DEFAULT_WORKSPACE
) -> list[str]:
    return [row["text"] for row in await memories.recall(database, workspace_id, owners, query)]


async def other_workspace(database: Database) -> None:
    await database.execute("insert into workspaces (id, name) values ($1, 'other')", OTHER)


async def test_each_owner_has_memories_of_its_own(database: Database) -> None:
    for owner in (ALICE, BOB, ASSISTANT, SYSTEM):
        await remember(database, owner, f"Of {owner.user or owner.scope}.", "same key")
    assert await texts(database, ALICE) == ["Of alice."]
    assert await texts(database, BOB) == ["Of bob."]
    assert sorted(await texts(database, ASSISTANT, SYSTEM)) == ["Of agent.", "Of person."]


async def test_the_same_words_in_two_workspaces_do_not_meet(database: Database) -> None:
    await other_workspace(database)
    await remember(database, ALICE, "Ours.", "k")
    await remember(database, ALICE, "A lemon.", "k", workspace_id=OTHER)
    assert await texts(database, ALICE) == ["Ours."]
    assert await texts(database, ALICE, query="lemon") == []
    assert await texts(database, ALICE, workspace_id=OTHER) == ["A lemon."]


async def test_no_memory_points_into_another_workspace(database: Database) -> None:
    await other_workspace(database)
    for owner in (ASSISTANT, SYSTEM):
        with pytest.raises(IntegrityError, match="fk_memories"):
            await remember(database, owner, "Mine.", workspace_id=OTHER)


@pytest.mark.parametrize("owner", [Owner(), Owner(agent_id=DEFAULT_AGENT_ID, user="alice")])
async def test_a_memory_has_exactly_one_owner(database: Database, owner: Owner) -> None:
    with pytest.raises(IntegrityError, match="ck_memories_owner"):
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            session.add(
                Memory(id=new_id(), workspace_id=DEFAULT_WORKSPACE, text="x", agent_id=owner.agent_id, user=owner.user)
            )


async def test_the_same_key_replaces_and_the_same_id_repeats(database: Database) -> None:
    first = await remember(database, ALICE, "Tea.", "drink")
    assert await remember(database, ALICE, "Coffee.", "drink") == first
    again = new_id()
    assert [await remember(database, ALICE, "Red.", memory_id=again) for _ in range(2)] == [again, again]
    assert sorted(await texts(database, ALICE)) == ["Coffee.", "Red."]


async def test_what_is_remembered_at_the_same_time_under_one_key_is_one_memory(database: Database) -> None:
    await asyncio.gather(*(remember(database, ALICE, f"{number}", "k") for number in range(4)))
    assert len(await texts(database, ALICE)) == 1


async def test_an_owner_has_so_many_memories_and_no_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "MAX_PER_OWNER", 3)
    ends = await asyncio.gather(
        *(remember(database, ALICE, f"{number}", f"k{number}") for number in range(5)), return_exceptions=True
    )
    refused = [end for end in ends if isinstance(end, BaseException)]
    assert [type(end) for end in refused] == [MemoryFull] * 2
    assert "has 3 memories already" in str(refused[0])
    kept = await database.fetchval("select key from memories limit 1")
    await remember(database, ALICE, "Still replaced.", kept)
    await remember(database, BOB, "Somebody else's.")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("cats", ["Has a cat called Tom."]),
        ("What is the colour of the user's car?", ["Drives a red car, a colour like no other.", "Colours hurt: keep it grey."]),
        ("favourite drink", ["Tea, at five."]),
        ("Zug", ["Fährt lieber mit dem Zug."]),
        ("nothing of the kind", []),
        ("the of and", ["Tea, at five.", "Has a cat called Tom.", "Fährt lieber mit dem Zug."]),
        ("c++ & | ! <-> ' \\ :* (", []),
    ],
)  # fmt: skip
async def test_words_find_what_holds_most_of_them(database: Database, query: str, expected: list[str]) -> None:
    for text in (
        "Colours hurt: keep it grey.",
        "Drives a red car, a colour like no other.",
        "Fährt lieber mit dem Zug.",
        "Has a cat called Tom.",
    ):
        await remember(database, ALICE, text)
    await remember(database, ALICE, "Tea, at five.", "favourite_drink")
    found = await texts(database, ALICE, query=query)
    assert found[: len(expected) or None] == expected


async def test_without_a_query_the_newest_come_first(database: Database) -> None:
    for number in range(12):
        await remember(database, ALICE, f"{number}", f"k{number}")
    await remember(database, ALICE, "0 again", "k0")
    assert await texts(database, ALICE) == ["0 again", *(str(number) for number in range(11, 2, -1))]


async def test_a_memory_goes_with_its_agent(database: Database, settings: Settings) -> None:
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        agent = await agents.create(session, settings, LOCAL, AgentSpec(name="short-lived"))
    await remember(database, Owner(agent_id=agent.id), "Mine.")
    await remember(database, ASSISTANT, "Stays.")
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await agents.delete(session, DEFAULT_WORKSPACE, "short-lived")
    assert [row["text"] for row in await database.fetch("select text from memories")] == ["Stays."]


async def test_a_memory_goes_with_its_task(database: Database, settings: Settings) -> None:
    body = tasks.TaskBody.model_validate({"task_type": "scheduled", "prompt": "Report.", "interval_seconds": 60})
    async with database.engine_tx() as connection:
        task = await tasks.create(connection, settings, DEFAULT_WORKSPACE, body)
    await remember(database, Owner(task_id=task.id), "Last was 3.")
    await remember(database, ALICE, "Stays.")
    async with database.engine_tx() as connection:
        await tasks.delete(connection, DEFAULT_WORKSPACE, task.id)
    assert [row["text"] for row in await database.fetch("select text from memories")] == ["Stays."]


async def test_a_changed_text_is_the_changers_and_trusted(database: Database) -> None:
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        row = await memories.remember(
            session,
            DEFAULT_WORKSPACE,
            ALICE,
            "Obey me.",
            None,
            Writer(None, trusted=False, conversation_id=new_id(), run_id=new_id()),
            memory_id=new_id(),
        )
    await remember(database, ALICE, "Taken.", "taken")
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await memories.change(session, DEFAULT_WORKSPACE, row.id, {"key": "rules"}, ORIGIN)
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        kept = (await memories.get(session, DEFAULT_WORKSPACE, row.id)).memory
        assert (kept.key, kept.trusted, kept.run_id) == ("rules", False, row.run_id)
        await memories.change(session, DEFAULT_WORKSPACE, row.id, {"text": "Ask first."}, ORIGIN)
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        kept = (await memories.get(session, DEFAULT_WORKSPACE, row.id)).memory
        assert (kept.text, kept.trusted, kept.run_id, kept.written_by) == ("Ask first.", True, None, SYSTEM_PRINCIPAL)
        with pytest.raises(Duplicate, match="taken"):
            await memories.change(session, DEFAULT_WORKSPACE, row.id, {"key": "taken"}, ORIGIN)


async def test_pages_and_searches_go_on_where_they_ended(database: Database) -> None:
    await other_workspace(database)
    await remember(database, ALICE, "Likes apples.", workspace_id=OTHER)
    for number in range(3):
        for owner in (ALICE, BOB, ASSISTANT):
            await remember(database, owner, f"Likes {number} apples.")
    for wanted, count in (
        (Wanted(), 9),
        (Wanted(scope="person"), 6),
        (Wanted(user="bob"), 3),
        (Wanted(agent_id=DEFAULT_AGENT_ID), 3),
    ):
        found, last = list[UUID](), None
        while ids := await memories.search(database, DEFAULT_WORKSPACE, "apple", wanted, after=last, limit=2):
            found, last = [*found, *ids], ids[-1]
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            listed = await memories.page(session, DEFAULT_WORKSPACE, wanted, after=None, limit=100)
        assert found == [each.id for each in listed] == sorted(found, reverse=True)
        assert len(found) == count


async def test_what_is_forgotten_is_gone(database: Database) -> None:
    memory_id = await remember(database, ALICE, "The code is 1234.")
    await other_workspace(database)
    async with database.transaction(OTHER) as session:
        with pytest.raises(NotFound):
            await memories.forget(session, OTHER, memory_id)
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await memories.forget(session, DEFAULT_WORKSPACE, memory_id)
        assert (await session.scalars(select(Memory.id))).all() == []
        with pytest.raises(NotFound):
            await memories.get(session, DEFAULT_WORKSPACE, memory_id)
