"""Slack as Parley sees it: a Web API on loopback, and calls to our endpoints with real signatures."""

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

TEAM, BOT, SECRET = "T0TEAM", "U0BOT", "8f742231b10e8888abcd99yyyzzz85a5"
CHANNEL = "C0OPS"


@dataclass
class Workspace:
    """One Slack workspace: its people, what was posted, and where the app's endpoints are.

    Attributes:
        users: By id, as `users.info` answers.
        files: Media type and content by path; of others there is a page to sign in at, as Slack shows it.
        posted: Messages of the bot, newest last, each with its `ts`; changed in place by `chat.update`.
    """

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    posted: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fails: int = 0
    port: int = 0
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def ts(self) -> str:
        return f"{int(time.time())}.{next(self._numbers):06d}"

    # --- the Web API ---------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.splitlines()}
                body = await reader.readexactly(int(lines.get("content-length", 0)))
                assert lines["authorization"] == "Bearer xoxb-test"
                url = urlsplit(head.split()[1])
                if url.path.startswith("/files/"):
                    kind, content = self.files.get(url.path, ("text/html", b"<title>Sign in</title>"))
                    writer.write(f"HTTP/1.1 200 x\r\nContent-Length: {len(content)}\r\n".encode())
                    writer.write(f"Content-Type: {kind}\r\n\r\n".encode() + content)
                    await writer.drain()
                    continue
                status, answer = await self._answer(url.path.removeprefix("/api/"), parse_qs(url.query), body)
                text = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(text)}\r\n".encode())
                writer.write(b"Content-Type: application/json\r\n\r\n" + text)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, query: dict[str, list[str]], body: bytes) -> tuple[int, dict[str, Any]]:
        self.asked.append(method)
        if self.fails:
            self.fails -= 1
            return 503, {"ok": False}
        if method == "users.info":
            user = self.users.get(query["user"][0])
            return 200, {"ok": True, "user": user} if user else {"ok": False, "error": "user_not_found"}
        if method == "auth.test":
            return 200, {"ok": True, "team_id": TEAM, "user_id": BOT}
        said = json.loads(body)
        async with self.news:
            self.news.notify_all()
            if method == "chat.update":
                (message,) = [each for each in self.posted if each["ts"] == said["ts"]]
                message.update(said)
                return 200, {"ok": True, "ts": said["ts"], "channel": CHANNEL}
            message = {**said, "ts": self.ts()}
            self.posted.append(message)
        return 200, {"ok": True, "ts": message["ts"], "channel": CHANNEL, "message": {"team": TEAM}}

    async def until(self, condition: Any) -> None:
        """Wait until the messages are as they should be."""
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(condition)

    # --- what the app is told ------------------------------------------------------------------------

    async def tell(
        self, http: httpx.AsyncClient, path: str, body: bytes, kind: str = "application/json", **wrong: Any
    ) -> httpx.Response:
        """A call with Slack's signature; `wrong` changes one of its parts."""
        at = str(wrong.get("at", int(time.time())))
        signed = f"v0:{at}:".encode() + wrong.get("signed", body)
        mac = hmac.new(wrong.get("secret", SECRET).encode(), signed, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": kind,
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": wrong.get("signature", f"v0={mac}"),
        }
        return await http.post(path, content=body, headers=headers)

    def event(self, user: str, text: str, thread_ts: str | None, /, **fields: Any) -> dict[str, Any]:
        number, ts = next(self._numbers), self.ts()
        event = {"type": "message", "user": user, "text": text, "ts": ts, "channel": CHANNEL, "team": TEAM}
        event |= {"thread_ts": thread_ts} if thread_ts else {}
        return {"type": "event_callback", "team_id": TEAM, "event_id": f"Ev{number}", "event": event | fields}

    async def say(
        self, http: httpx.AsyncClient, user: str, text: str, thread_ts: str, /, **fields: Any
    ) -> httpx.Response:
        body = json.dumps(self.event(user, text, thread_ts, **fields)).encode()
        return await self.tell(http, "/slack/events", body)

    def click_form(self, user: str, message: dict[str, Any], action: str, **changes: Any) -> bytes:
        (button,) = [
            element
            for block in message["blocks"]
            for element in block.get("elements", [])
            if element.get("action_id", "").startswith(f"{action}:")
        ]
        payload = {
            "type": "block_actions",
            "user": {"id": user},
            "team": {"id": TEAM},
            "channel": {"id": CHANNEL},
            "message": {"ts": message["ts"], "thread_ts": message.get("thread_ts")},
            "actions": [{"action_id": button["action_id"], "value": button["value"], "action_ts": self.ts()}],
        }
        return urlencode({"payload": json.dumps(payload | changes)}).encode()

    async def click(
        self, http: httpx.AsyncClient, user: str, message: dict[str, Any], action: str, **changes: Any
    ) -> httpx.Response:
        form = self.click_form(user, message, action, **changes)
        return await self.tell(http, "/slack/interactivity", form, "application/x-www-form-urlencoded")


@asynccontextmanager
async def slack_workspace() -> AsyncIterator[Workspace]:
    """A workspace on a free port."""
    workspace = Workspace()
    server = await asyncio.start_server(workspace._serve, "127.0.0.1", 0)
    workspace.port = server.sockets[0].getsockname()[1]
    yield workspace
    server.close()


def member(email: str | None, **fields: Any) -> dict[str, Any]:
    """What Slack says of one of the team."""
    return {"team_id": TEAM, "is_email_confirmed": True, "profile": {"email": email}} | fields
