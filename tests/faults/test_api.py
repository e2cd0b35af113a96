"""A person's stream when the API process that speaks dies: a worker finishes, and the reader ends with the stored text."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from app.events import EPHEMERAL, ServerEvent
from tests.engine import World
from tests.events.client import Client
from tests.faults.conftest import LEASE, ROOT, SWEEP, Fleet, Place

WORDS = 40


class Api:
    """`parley serve` on a fixed port, killed and started again."""

    def __init__(self, place: Place, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        given = place.settings() | {"default_model": "demo", "parley_secret": "for tests"}
        self._env = {name.upper(): str(value) for name, value in given.items()} | {
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
        }
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        with (self._folder / "api.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with httpx.AsyncClient() as client, asyncio.timeout(40):
            while True:
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    assert self._process.poll() is None, (self._folder / "api.log").read_text()
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def _api(place: Place, folder: Path) -> Iterator[Api]:
    api = Api(place, folder)
    try:
        yield api
    finally:
        api.kill()


@pytest.fixture
async def api(place: Place, tmp_path: Path, fleet: Fleet) -> AsyncIterator[Api]:
    """The API, beside the two workers."""
    with _api(place, tmp_path) as made:
        await made.start()
        yield made


def read(event: ServerSentEvent) -> ServerEvent:
    # A parser keeps the last id for events that bring none.
    own = event.id if event.event not in EPHEMERAL else None
    return ServerEvent(event.event, json.loads(event.data), int(own) if own else None)


async def follow(
    client: httpx.AsyncClient, reader: Client, method: str, url: str, **request: Any
) -> AsyncIterator[Client]:
    """The reader after each event."""
    async with aconnect_sse(client, method, url, **request) as stream:
        async for event in stream.aiter_sse():
            if event.data:
                reader.take(read(event))
                yield reader


async def until_it_dies(events: AsyncIterator[Client], api: Api) -> None:
    async for reader in events:
        if any("7" in text.split() for text in reader.shown()):
            api.kill()


async def test_a_streamed_answer_survives_the_death_of_its_process(world: World, api: Api) -> None:
    reader = Client()
    async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
        begun = await client.post("/conversations", json={"pattern_type": "chatbot"})
        conversation = UUID(begun.json()["id"])
        body = {"message": f"Please count to {WORDS}, slowly", "stream": True}
        speaking = follow(client, reader, "POST", f"/conversations/{conversation}/messages", json=body)
        with pytest.raises(httpx.TransportError):
            await until_it_dies(speaking, api)
        row = await world.database.fetchrow("select id, owner from runs where conversation_id = $1", conversation)
        assert row
        assert row["owner"].startswith("api:")
        await api.start()
        async with asyncio.timeout(LEASE + SWEEP + WORDS * 0.15 + 10):
            cursor = {"Last-Event-ID": str(reader.cursor)}
            async for _ in follow(client, reader, "GET", f"/runs/{row['id']}/events", headers=cursor):
                pass
    run = await world.run(row["id"])
    assert (run["state"], run["crash_count"], run["attempt"]) == ("completed", 1, 1)
    stored = [text for _, text in await world.said(conversation)]
    assert reader.shown() == stored
    assert stored[1].split()[:WORDS] == [str(number) for number in range(1, WORDS + 1)]
    assert reader.names.count("run.recovered") == reader.names.count("run.completed") == 1
    assert reader.ids == sorted(set(reader.ids))
    await world.check()
