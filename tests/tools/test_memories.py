"""remember, recall and forget as a person calls them by hand, and the arguments they take."""

from typing import Any
from uuid import UUID

import pytest

from app.db import DEFAULT_WORKSPACE, SYSTEM_PRINCIPAL, Database
from app.errors import InvalidArguments, ToolError
from app.knowledge.memories import Memories, Owner, Scope
from app.knowledge.writer import Writer
from app.models import new_id
from app.tools import BUILT_IN, Risk
from tests.tools.context import Context

BY_HAND: dict[Scope, Owner] = {"person": Owner(principal_id=SYSTEM_PRINCIPAL)}


async def call(database: Database, name: str, owners: dict[Scope, Owner] | None = None, **arguments: Any) -> Any:
    context = Context.of()
    writer = Writer(SYSTEM_PRINCIPAL)
    context.memories = Memories(database, DEFAULT_WORKSPACE, owners or BY_HAND, writer)
    context.effect_key = new_id()
    return await BUILT_IN[name].call(context, arguments)


async def test_what_was_remembered_is_recalled_and_forgotten(database: Database) -> None:
    kept = await call(database, "remember", text="Likes tea.", about="person", key="drink")
    assert kept == {"id": kept["id"], "about": "person", "key": "drink"}
    [found] = (await call(database, "recall", query="tea"))["memories"]
    assert found.pop("updated_at") > "2026"
    assert found == {"id": kept["id"], "about": "person", "text": "Likes tea.", "key": "drink"}
    assert await call(database, "forget", id=kept["id"]) == f"Forgot {kept['id']}."
    assert await call(database, "recall") == {"memories": []}
    assert (await call(database, "forget", id=kept["id"])).startswith(f"There is no memory {kept['id']}")


async def test_recall_tells_whose_each_memory_is(database: Database) -> None:
    owners: dict[Scope, Owner] = {"agent": Owner(agent_id=await default_agent(database)), **BY_HAND}
    for about in ("agent", "person"):
        await call(database, "remember", owners, text=f"About the {about}.", about=about)
    found = (await call(database, "recall", owners))["memories"]
    assert [(each["about"], each["text"]) for each in found] == [
        ("person", "About the person."),
        ("agent", "About the agent."),
    ]
    [only] = (await call(database, "recall", owners, about="agent"))["memories"]
    assert only["about"] == "agent"


async def default_agent(database: Database) -> UUID:
    return await database.fetchval("select id from agents where name = 'assistant'")


async def test_a_call_by_hand_has_no_agent(database: Database) -> None:
    for name, arguments in (("remember", {"text": "x", "about": "agent"}), ("recall", {"about": "task"})):
        with pytest.raises(ToolError, match="only the person of this call"):
            await call(database, name, **arguments)


async def test_text_that_can_not_be_stored_is_cleaned(database: Database) -> None:
    await call(database, "remember", text="a\x00b", about="person", key="k\x00")
    [found] = (await call(database, "recall", query="a\x00b"))["memories"]
    assert (found["text"], found["key"]) == ("ab", "k")


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("remember", {"about": "person"}, "text"),
        ("remember", {"text": " ", "about": "person"}, "text"),
        ("remember", {"text": "x" * 4001, "about": "person"}, "text"),
        ("remember", {"text": "x"}, "about"),
        ("remember", {"text": "x", "about": "alice"}, "about"),
        ("remember", {"text": "x", "about": "person", "key": ""}, "key"),
        ("remember", {"text": "x", "about": "person", "user": "bob"}, "user"),
        ("recall", {"about": "everybody"}, "about"),
        ("recall", {"query": "x" * 1001}, "query"),
        ("forget", {"id": "drink"}, "id"),
        ("forget", {}, "id"),
    ],
)
async def test_wrong_arguments_are_named(database: Database, name: str, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await call(database, name, **arguments)
    assert caught.value.field == field


def test_what_they_may_do() -> None:
    assert {name: BUILT_IN[name].risk for name in ("remember", "recall", "forget")} == {
        "remember": Risk.WRITE,
        "recall": Risk.READ,
        "forget": Risk.WRITE,
    }
