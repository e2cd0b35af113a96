"""A shop's stock: what an extension of Parley looks like, one of each."""

import asyncio
import hmac
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from app.extensions import (
    Address,
    AgentSpec,
    Envelope,
    Means,
    NotificationConfig,
    SendResult,
    ToolContext,
    ToolError,
    channel,
    provider,
    tool,
    verifier,
)

SCHEMA = """
create table if not exists stock (sku text primary key, pieces integer not null);
create table if not exists reservations (key text primary key, sku text not null, pieces integer not null);
insert or ignore into stock values ('lamp', 12), ('chair', 3);
"""

Sku = Annotated[str, Field(min_length=1, max_length=40, description="What the shop calls the article.")]


def folder() -> Path:
    """Where the shop keeps its files."""
    return Path(os.environ.get("SHOP_FOLDER", "."))


@contextmanager
def stock() -> Iterator[sqlite3.Connection]:
    """The shop's own database, in one transaction."""
    with closing(sqlite3.connect(folder() / "stock.sqlite", timeout=2)) as connection:
        connection.executescript(SCHEMA)
        with connection:
            yield connection


# --- tools ------------------------------------------------------------------------------------------


@tool(risk="read", idempotent=True)
def stock_level(sku: Sku) -> int:
    """Tell how many pieces of an article the shop has."""
    with stock() as connection:
        return pieces_of(connection, sku)


@tool(risk="write", idempotent=True)
def reserve(context: ToolContext, sku: Sku, pieces: Annotated[int, Field(ge=1, le=100)] = 1) -> dict[str, Any]:
    """Reserve pieces of an article for a customer."""
    with stock() as connection:
        # The effect key is the same when a call is made again after a crash, so nothing is reserved twice.
        key = str(context.effect_key)
        if not connection.execute("select 1 from reservations where key = ?", (key,)).fetchone():
            if pieces > pieces_of(connection, sku):
                raise ToolError(f"there are not {pieces} of {sku}")
            connection.execute("insert into reservations values (?, ?, ?)", (key, sku, pieces))
            connection.execute("update stock set pieces = pieces - ? where sku = ?", (pieces, sku))
        return {"sku": sku, "reserved": pieces, "left": pieces_of(connection, sku)}


def pieces_of(connection: sqlite3.Connection, sku: str) -> int:
    """The pieces there are."""
    row = connection.execute("select pieces from stock where sku = ?", (sku,)).fetchone()
    if row is None:
        raise ToolError(f"the shop has no article {sku!r}")
    return row[0]


# --- a channel ----------------------------------------------------------------------------------------


@channel("logbook")
class LogBook:
    """Writes one line per notice into the shop's log book."""

    def __init__(self, means: Means) -> None:
        """Take what Parley's own channels are handed; this one needs none of it."""
        del means

    @staticmethod
    def addresses(config: NotificationConfig, *, default_slack: bool) -> list[Address]:
        """There is one log book."""
        del config, default_slack
        return [Address("logbook")]

    async def send(self, envelope: Envelope) -> SendResult:
        """Write the line; a delivery that is made again writes it again."""
        line = f"{envelope.notice.event} {envelope.notice.title}\n"
        await asyncio.to_thread(write_line, folder() / "logbook.txt", line)
        return SendResult()


def write_line(path: Path, line: str) -> None:
    """Add a line to a file."""
    with path.open("a", encoding="utf-8") as book:
        book.write(line)


# --- a verifier of webhook calls ------------------------------------------------------------------------


@verifier("till")
def sealed_by_a_till(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> bool:
    """Take the calls of the shop's tills, which put the body's HMAC into a header of their own."""
    given = headers.get("x-till-seal", "").encode()
    seals = [hmac.new(secret.encode(), body, "sha256").hexdigest().encode() for secret in secrets]
    return any([hmac.compare_digest(given, seal) for seal in seals])


# --- a model provider ---------------------------------------------------------------------------------


@provider("parrot")
def parrot(name: str) -> FunctionModel:
    """Models `parrot:NAME` say their name; a real one would return a model that asks a server."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del messages, info
        return ModelResponse([TextPart(f"I am {name}.")])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        del messages, info
        yield f"I am {name}."

    return FunctionModel(answer, stream_function=stream, model_name=name)


# --- an agent -------------------------------------------------------------------------------------------

clerk = AgentSpec(
    name="clerk",
    description="Knows what the shop has and reserves it.",
    instructions="You are the shop's clerk. Look at the stock before you promise anything.",
    tools=["stock_level", "reserve", "calculator"],
    approval={"reserve": {"policy": "ask", "arguments": {"sku": "chair"}}},
)
