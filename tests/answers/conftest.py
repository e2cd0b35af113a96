"""A served application with a worker beside it, a mail server, a Slack workspace, and a report that waits for answers."""

import asyncio
import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo

from app.db import DEFAULT_WORKSPACE, Database
from app.executor import Engine
from app.main import create_app
from app.models import new_id
from app.settings import Settings
from tests.answers.slack import SECRET, Workspace, slack_workspace
from tests.api.conftest import ADMIN_KEY, bearer
from tests.engine import World, scripted
from tests.executor.test_turns import calls
from tests.notifications.servers import MailServer
from workers.resident import Resident

REPORT = "Revenue was 42."
INBOUND = "the provider's password"


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    async with MailServer() as server:
        yield server


@pytest.fixture
async def slack() -> AsyncIterator[Workspace]:
    async with slack_workspace() as workspace:
        yield workspace


@pytest.fixture
async def settings(settings: Settings, mail_server: MailServer, slack: Workspace) -> Settings:
    """With authentication, mail and a Slack app."""
    values: dict[str, Any] = {
        "parley_auth": "on",
        "parley_admin_key": SecretStr(ADMIN_KEY),
        "parley_sweep_seconds": 0.1,
        "redis_url": None,
        "smtp_host": "127.0.0.1",
        "smtp_port": mail_server.port,
        "smtp_security": "none",
        "smtp_from_email": "parley@example.org",
        "parley_reply_address": "reply@example.org",
        "email_inbound_secret": SecretStr(INBOUND),
        "slack_bot_token": SecretStr("xoxb-test"),
        "slack_signing_secret": SecretStr(SECRET),
        "slack_api_url": f"http://127.0.0.1:{slack.port}/api",
    }
    return settings.model_copy(update=values)


def last_words(messages: list[ModelMessage]) -> str:
    parts = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
    said = [part.content for part in parts if isinstance(part, UserPromptPart)][-1]
    return said if isinstance(said, str) else str([each for each in said if isinstance(each, str)][-1])


def reporter(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Reports first; what it is told then it answers with what it had reported."""
    del info
    before = [
        part.content
        for each in messages
        if isinstance(each, ModelResponse)
        for part in each.parts
        if isinstance(part, TextPart)
    ]
    if not before:
        return ModelResponse(parts=[TextPart(REPORT)])
    return ModelResponse(parts=[TextPart(f"You said {last_words(messages)!r}; I had said {before[-1]!r}.")])


def careful(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Calls a tool that asks first, then says that it is done."""
    del info
    if any(isinstance(message, ModelResponse) for message in messages):
        return ModelResponse(parts=[TextPart("Done.")])
    return calls(("notify", {"text": "Hello <b>", "channel": "email"}))


class Office:
    """The served application, its stores and its worker."""

    def __init__(self, http: httpx.AsyncClient, database: Database, settings: Settings) -> None:
        self.http = http
        self.database = database
        self.settings = settings

    async def post(self, path: str, **body: Any) -> Any:
        response = await self.http.post(path, json=body, headers=bearer(ADMIN_KEY))
        assert response.is_success, response.text
        return response.json()

    async def get(self, path: str, **query: Any) -> Any:
        response = await self.http.get(path, params=query, headers=bearer(ADMIN_KEY))
        assert response.is_success, response.text
        return response.json()

    async def scheduled_report(self, **notification: Any) -> dict[str, Any]:
        """A scheduled report that is due now; its task."""
        task = await self.post(
            "/tasks",
            task_type="scheduled",
            prompt="Write the report.",
            title="Morning report",
            agent="reporter",
            interval_seconds=86_400,
            notification_config=notification,
        )
        await self.post(f"/tasks/{task['id']}/execute")
        return task

    async def person(self, *scopes: str, email: str | None = None, slack_user: str | None = None) -> UUID:
        """A principal with a key of these scopes."""
        who = {"name": email or slack_user, "email": email, "slack_user_id": slack_user}
        key = await self.post("/keys", scopes=list(scopes), **who)
        assert {name: key[name] for name in who} == who
        return await self.database.fetchval("select principal_id from api_keys where id = $1", UUID(key["id"]))

    async def answers(self) -> list[tuple[str, str | None]]:
        pages = [await self.get(f"/conversations/{each}/answers") for each in await self.conversations()]
        return [(row["outcome"], row["reason"]) for page in pages for row in reversed(page["items"])]

    async def texts(self, conversation_id: str) -> list[str]:
        page = await self.get(f"/conversations/{conversation_id}/messages")
        return [each["text"] for each in page["items"]]

    async def conversations(self) -> list[str]:
        return [each["id"] for each in (await self.get("/conversations"))["items"]]

    async def settled(self) -> None:
        """Wait until no run is open and nothing is left to send."""
        open_work = """
            select (select count(*) from runs where state in ('queued', 'running'))
                + (select count(*) from deliveries where state in ('pending', 'sending'))"""
        async with asyncio.timeout(20):
            while await self.database.fetchval(open_work):
                await asyncio.sleep(0.02)

    # --- mail ------------------------------------------------------------------------------------------

    async def mail_in(self, body: dict[str, Any], secret: str = INBOUND) -> httpx.Response:
        return await self.http.post("/email/inbound", json=body, auth=("postmark", secret))


def reply_to(mail: EmailMessage, text: str, **fields: Any) -> dict[str, Any]:
    """How a mail program answers a mail, as the provider posts it."""
    quoted = "\n".join(f"> {line}" for line in str(mail.get_body(("plain",)).get_content()).splitlines())  # type: ignore[union-attr]
    return {
        "from": f"Ann <{mail['To']}>",
        "to": [str(mail["Reply-To"])],
        "message_id": f"<{new_id()}@mail.example.com>",
        "envelope_from": str(mail["To"]),
        "subject": f"Re: {mail['Subject']}",
        "text": f"{text}\n\nOn Mon, Nov 21, 2026 at 9:00 AM Parley\n<{mail['Reply-To']}> wrote:\n\n{quoted}\n",
        "headers": {"In-Reply-To": str(mail["Message-ID"]), "References": f"{mail['References']} {mail['Message-ID']}"},
    } | fields


@pytest.fixture
async def office(settings: Settings, database: Database, world: World) -> AsyncIterator[Office]:
    await world.agent("reporter", model=scripted("reporter", reporter))
    asks = {"notify": "ask"}
    await world.agent("careful", model=scripted("careful", careful), tools=["notify"], approval=asks)
    app = create_app(settings)
    async with app.router.lifespan_context(app), Engine.open(settings, kind="worker") as engine:
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
        )
        serving = asyncio.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)
        resident = Resident(engine)
        resident.start()
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as http:
            yield Office(http, database, settings)
        await resident.stop()
        server.should_exit = True
        await serving


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return World(database, settings)


def body_of(mail: EmailMessage) -> str:
    return str(mail.get_body(("plain",)).get_content())  # type: ignore[union-attr]


def links_of(mail: EmailMessage, path: str) -> list[str]:
    return re.findall(rf"https?://\S+({re.escape(path)}\S+)", body_of(mail))


__all__ = ["DEFAULT_WORKSPACE"]
