"""The text of an answer while it is made, and what is kept of one that was stopped."""

import asyncio
from collections.abc import AsyncIterator

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel

from app.db import DEFAULT_WORKSPACE
from app.events import Delta
from app.executor import Engine
from app.providers import Providers
from tests.engine import World


def halting(name: str, words: list[str], go_on: asyncio.Event) -> str:
    """A model that stops after its words until it may go on."""

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for word in words:
            yield word
        await go_on.wait()
        yield "the end"

    Providers.register(name, lambda: FunctionModel(stream_function=stream, model_name=name))
    return f"scripted:{name}"


async def test_an_answer_is_spoken_while_it_is_made_and_stored_whole(world: World, engine: Engine) -> None:
    go_on = asyncio.Event()
    await world.agent("halting", model=halting("speech-whole", ["One ", "two "], go_on))
    conversation = await world.conversation(agent="halting")
    async with engine.bus.subscribe(conversation) as inbox:
        accepted = await world.say(conversation, inline=engine.inline)
        engine.welcome(accepted)
        assert await _heard(inbox, "One two ") == "One two "
        go_on.set()
        assert await _heard(inbox, "the end") == "the end"

    row = await world.ended(accepted.run_id)
    assert (row["state"], row["result"]) == ("completed", "One two the end")


async def test_what_was_said_before_a_cancel_is_kept_as_interrupted(world: World, engine: Engine) -> None:
    await world.agent("halting", model=halting("speech-cut", ["One ", "two "], asyncio.Event()))
    conversation = await world.conversation(agent="halting")
    async with engine.bus.subscribe(conversation) as inbox:
        accepted = await world.say(conversation, inline=engine.inline)
        engine.welcome(accepted)
        await _heard(inbox, "One two ")
        await engine.cancel(DEFAULT_WORKSPACE, accepted.run_id, conversation, "enough")

    row = await world.ended(accepted.run_id)
    last = (await world.messages(conversation))[-1]
    assert (row["state"], row["result"]) == ("cancelled", "One two ")
    assert (last["role"], last["text"], last["interrupted"]) == ("assistant", "One two ", True)
    assert last["body"]["state"] == "interrupted"
    await world.check()


async def _heard(inbox: object, wanted: str) -> str:
    """The text that arrives, until it is as long as what is wanted."""
    heard = ""
    async with asyncio.timeout(5):
        while len(heard) < len(wanted):
            items = await inbox.take()  # type: ignore[attr-defined]
            heard += "".join(item.text for item in items if isinstance(item, Delta))
    return heard
