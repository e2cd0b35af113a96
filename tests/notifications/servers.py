"""A Slack stand-in and an SMTP server, both real and on loopback."""

import asyncio
import json
import socket
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal, Self, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

At = Literal["RSET", "MAIL", "RCPT", "DATA"]


@dataclass
class SlackStandIn:
    """Answers POSTs with the queued statuses, then with 200; keeps the bodies it got."""

    answers: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/T0/B0/secretWXYZ"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        self.received.append(json.loads(await reader.readexactly(length)))
        status, headers, body = self.answers.pop(0) if self.answers else (200, {}, "ok")
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", body]).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@dataclass
class MailServer:
    """Answers DATA with the queued replies, then accepts; keeps the mails it accepted."""

    replies: list[str] = field(default_factory=list)
    recipient_reply: str = "250 ok"
    mails: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: SMTP(self, hostname="loopback", loop=asyncio.get_running_loop()),
            "127.0.0.1",
            0,
            family=socket.AF_INET,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        await self._server.wait_closed()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.recipient_reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.recipient_reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        reply = self.replies.pop(0) if self.replies else "250 accepted"
        if reply.startswith("2"):
            mail = message_from_bytes(cast("bytes", envelope.content), policy=policy.default)
            self.mails.append(cast("EmailMessage", mail))
            self.raw.append(cast("bytes", envelope.content))
            self.envelopes.append((envelope.mail_from or "", list(envelope.rcpt_tos)))
        return reply


@dataclass
class ShortTempered(MailServer):
    """Takes so many mails over one connection; then it answers at one of its words with what `says`, or drops the line."""

    most: int = 1_000
    at: At = "RSET"
    says: str | None = None
    sessions: list[Session] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _taken: dict[int, int] = field(default_factory=dict)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.sessions.append(session)
        session.host_name = hostname
        return responses

    async def _enough(self, at: At, server: SMTP, session: Session) -> str | None:
        if self.at != at or self._taken.get(id(session), 0) < self.most:
            return None
        if self.says == "nothing":
            try:
                await self.over.wait()
            except asyncio.CancelledError:  # The other side has closed the connection.
                self.left.set()
                raise
        if self.says is None or self.says == "nothing":
            server.transport.close()
        return self.says or "451 never heard"

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return await self._enough("RSET", server, session) or "250 forgotten"

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        said = await self._enough("MAIL", server, session)
        envelope.mail_from = None if said else address
        return said or "250 ok"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        said = await self._enough("RCPT", server, session)
        return said or await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.begun.append(envelope.rcpt_tos[0])
        if said := await self._enough("DATA", server, session):
            return said
        reply = await super().handle_DATA(server, session, envelope)
        self._taken[id(session)] = self._taken.get(id(session), 0) + reply.startswith("2")
        return reply

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.left.set()
        return "221 bye"


@dataclass
class SlackApi:
    """Slack's Web API as far as a bot posts with it: keeps the messages of each channel as they stand.

    Answers each method with what is queued for it, then as Slack would.
    """

    messages: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    answers: dict[str, list[tuple[int, dict[str, str], dict[str, Any]]]] = field(default_factory=dict)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def thread(self, channel: str) -> list[dict[str, Any]]:
        return [message for (where, _), message in sorted(self.messages.items()) if where == channel]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = [line.partition(":") for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value.strip() for name, _, value in lines}
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
                method = head.split()[1].rpartition("/")[2]
                self.calls.append((method, body, headers))
                queued = self.answers.get(method)
                status, extra, answer = queued.pop(0) if queued else (200, {}, self._do(method, body))
                raw = json.dumps(answer).encode()
                out = [f"HTTP/1.1 {status} x", f"content-length: {len(raw)}", "content-type: application/json"]
                out += [f"{name}: {value}" for name, value in extra.items()]
                writer.write("\r\n".join([*out, "", ""]).encode() + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _do(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "auth.test":
            return {"ok": True, "team_id": "T0TEAM", "user_id": "U0BOT"}
        channel = f"C{body['channel'].strip('#').upper()}" if body["channel"].startswith("#") else body["channel"]
        if method == "chat.update":
            if (channel, body["ts"]) not in self.messages:
                return {"ok": False, "error": "message_not_found"}
            self.messages[channel, body["ts"]] |= body
            return {"ok": True, "channel": channel, "ts": body["ts"]}
        ts = f"1700000000.{len(self.messages):06}"
        self.messages[channel, ts] = {**body, "ts": ts}
        return {"ok": True, "channel": channel, "ts": ts, "message": {"ts": ts, "team": "T0TEAM"}}
