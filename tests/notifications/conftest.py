"""Notices, channels and the real servers they talk to."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from app.credentials import Box
from app.db import Database
from app.egress import Egress
from app.notifications.channel import Envelope, Means
from app.notifications.notice import Notice
from app.notifications.plan import message_id
from app.notifications.smtp import Smtp
from app.settings import Settings
from tests.notifications.servers import SlackStandIn

WORKSPACE, CONVERSATION, RUN, TASK, DELIVERY = (UUID(int=number) for number in range(1, 6))


def make_notice(**values: Any) -> Notice:
    known: dict[str, Any] = {
        "event": "run.completed",
        "workspace_id": WORKSPACE,
        "conversation_id": CONVERSATION,
        "run_id": RUN,
        "event_seq": 7,
        "title": "Daily report",
        "base_url": "https://parley.example.com",
        "task_id": TASK,
        "text": "All is **well**.",
        "agent": "assistant",
        "model": "openai:gpt-5",
    }
    return Notice(**known | values)


def make_envelope(notice: Notice, address: str = "user@example.com", **values: Any) -> Envelope:
    return Envelope(DELIVERY, address, message_id("one", notice.base_url), notice, **values)


class StoredFiles:
    """The artifacts of a run, as the statements of `Files` find them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, media_type: str, content: bytes) -> None:
        row = {"id": uuid4(), "name": name, "media_type": media_type, "size": len(content), "content": content}
        self.rows.append(row)

    @property
    def as_database(self) -> Any:
        return self

    async def fetch(self, query: str, *args: Any) -> list[dict[str, Any]]:
        del args
        names = ("id", "content") if "content from" in query else ("id", "name", "media_type", "size")
        return [{name: row[name] for name in names} for row in self.rows]


def make_settings(home: Path, **values: Any) -> Settings:
    keys = f"k1:{base64.b64encode(bytes(32)).decode()}"
    return Settings.of(parley_home=home, parley_encryption_keys=keys, **values)


@pytest.fixture
async def means(tmp_path: Path) -> AsyncIterator[Callable[..., Means]]:
    """Makes what channels send with from settings."""
    made: list[Means] = []

    def make(database: Database | None = None, **values: Any) -> Means:
        settings = make_settings(tmp_path, **values)
        box = Box.from_settings(settings)
        made.append(Means(settings, Egress(settings), box, cast("Any", database), Smtp(settings)))
        return made[-1]

    yield make
    await asyncio.gather(*(each.egress.aclose() for each in made), *(each.smtp.aclose() for each in made))


@pytest.fixture
async def slack() -> AsyncIterator[SlackStandIn]:
    """A Slack stand-in on a loopback port."""
    async with SlackStandIn() as server:
        yield server


def seen(folder: Path) -> list[str]:
    """The names in a folder, empty when there is none."""
    return sorted(os.listdir(folder)) if folder.exists() else []
