"""The servers under test as a client sees them: the floor and Parley, each in its own words."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.client import Client, Event, Failed
from benchmarks.model import AT_ONCE, CALLS, IN_A_ROW, answer, order

CLIENTS = 50
AGENT = "zero"
TOOLED = "zero-with-tools"


@dataclass(frozen=True)
class Piece:
    """What a stream brought: its first event, or some text."""

    text: str
    at: float
    body_bytes: int


class Target(Protocol):
    """A server under test, spoken to in its own words. Every call checks that the work was really done."""

    name: str
    table: str
    accepted: str
    dsn: str
    processes: dict[str, list[int]]
    environment: dict[str, str]

    def client(self, number: int) -> Client:
        """A connection of a client of its own."""
        ...

    async def submit(self, client: Client) -> str:
        """Hand a task in; its run's id."""
        ...

    async def wait(self, client: Client, run_id: str) -> None:
        """Wait for a run's end."""
        ...

    async def open_conversation(self, client: Client) -> str:
        """Begin a conversation; its id."""
        ...

    async def post(self, client: Client, conversation_id: str) -> None:
        """Hand a message to a conversation in, to be answered by a worker."""
        ...

    async def chat(self, client: Client, prompt: str = "") -> None:
        """One chat turn, from message to reply; with tools when the prompt is one that asks for them."""
        ...

    def stream(self, client: Client, tokens: int, after_ms: int, each_ms: int) -> AsyncIterator[Piece]:
        """One streamed chat turn."""
        ...


@dataclass
class Floor:
    """The floor, and with `inline` the same without ARQ."""

    name: str
    port: int
    dsn: str
    processes: dict[str, list[int]]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    table: str = "floor_runs"
    accepted: str = "created_at"

    def client(self, number: int) -> Client:
        return Client(self.port)

    async def submit(self, client: Client) -> str:
        return (await client.json("POST", "/tasks", {"prompt": order()}))["id"]

    async def wait(self, client: Client, run_id: str) -> None:
        _expect(answer(), (await client.json("GET", f"/tasks/{run_id}/wait"))["result"])

    async def open_conversation(self, client: Client) -> str:
        return ""  # It knows none.

    async def post(self, client: Client, conversation_id: str) -> None:
        await self.submit(client)

    async def chat(self, client: Client, prompt: str = "") -> None:
        body = {"prompt": prompt or order(), "tools": prompt in (AT_ONCE, IN_A_ROW)}
        _expect(answer(), (await client.json("POST", "/chat", body))["result"])

    async def stream(self, client: Client, tokens: int, after_ms: int, each_ms: int) -> AsyncIterator[Piece]:
        async for event in client.events("POST", "/stream", {"prompt": order(tokens, after_ms, each_ms)}):
            yield Piece(event.data.get("delta", ""), event.at, event.body_bytes)


@dataclass
class Parley:
    """Parley with everything on; every client has a key of its own."""

    port: int
    dsn: str
    processes: dict[str, list[int]]
    keys: list[str] = field(default_factory=list[str])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    home: Path = Path()
    name: str = "parley"
    table: str = "runs"
    accepted: str = "queued_at"

    def client(self, number: int) -> Client:
        return Client(self.port, self.keys[number % len(self.keys)])

    async def submit(self, client: Client) -> str:
        body = {"task_type": "delegation", "prompt": order(), "agent": AGENT}
        return (await client.json("POST", "/tasks", body))["latest_run"]["id"]

    async def wait(self, client: Client, run_id: str) -> None:
        last = [event async for event in client.events("GET", f"/runs/{run_id}/events")][-1]
        _expect(("run.completed", answer()), (last.name, last.data.get("result")))

    async def open_conversation(self, client: Client) -> str:
        return (await client.json("POST", "/conversations", {"pattern_type": "chatbot", "agent": AGENT}))["id"]

    async def post(self, client: Client, conversation_id: str) -> None:
        body = {"message": order(), "background": True}
        await client.json("POST", f"/conversations/{conversation_id}/messages", body)

    async def chat(self, client: Client, prompt: str = "") -> None:
        agent = TOOLED if prompt in (AT_ONCE, IN_A_ROW) else AGENT
        reply = await client.json("POST", "/runs", {"agent": agent, "message": prompt or order()})
        _expect(("completed", answer()), (reply["state"], reply["reply"]))

    async def stream(self, client: Client, tokens: int, after_ms: int, each_ms: int) -> AsyncIterator[Piece]:
        body = {"agent": AGENT, "message": order(tokens, after_ms, each_ms), "stream": True}
        last: Event | None = None
        said = 0
        async for last in client.events("POST", "/runs", body):
            text = _more(last, said)
            said += len(text)
            yield Piece(text, last.at, last.body_bytes)
        _expect(("run.completed", answer(tokens)), last and (last.name, last.data.get("result")))

    async def prepare(self, admin: str) -> None:
        """Make the agents and the clients' keys."""
        tools = sorted({name for name, _ in CALLS})
        async with Client(self.port, admin) as client:
            await client.json("POST", "/agents", {"name": AGENT, "model": "scripted:zero"})
            await client.json("POST", "/agents", {"name": TOOLED, "model": "scripted:zero", "tools": tools})
            for number in range(CLIENTS):
                body = {"name": f"client {number}", "scopes": ["*:read", "*:write"]}
                self.keys.append((await client.json("POST", "/keys", body))["key"])


def _more(event: Event, said: int) -> str:
    """What an event adds to a message of which so many characters were read: a reader may join late."""
    if event.name == "text.delta":
        return event.data["delta"]
    whole = event.name == "text.snapshot" or (event.name == "message.completed" and event.data["role"] == "assistant")
    return event.data["text"][said:] if whole else ""


def _expect(wanted: Any, found: Any) -> None:
    if wanted != found:
        raise Failed(f"expected {wanted!r:.120}, got {found!r:.300}")
