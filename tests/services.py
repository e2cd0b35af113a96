"""An HTTP service on loopback that wants to see a credential, with the token endpoint of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Service:
    """Answers /echo with what it was asked, /token with tokens; anything else from `answers`."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    tokens: int = 0
    valid: str = ""
    refresh_token: str = "refresh-secret-0"
    expires_in: float = 3600
    client_auth: str = "post"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    async def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.path == "/token":
            await asyncio.sleep(0.05)  # As long as it takes for others to want one too.
            return self._token(asked)
        if asked.path == "/guarded":
            given = asked.headers.get("authorization")
            return (200, {"you": given}) if given == f"Bearer {self.valid}" else (401, {"said": given})
        if waiting := self.answers.get(asked.path):
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]
        seen = {"method": asked.method, "query": asked.query, "headers": asked.headers, "body": asked.body.decode()}
        return 200, seen | {"path": asked.path}

    def _token(self, asked: Asked) -> tuple[int, Any]:
        secret = asked.form.get("client_secret")
        if (self.client_auth == "post") != (secret == "client-secret-1"):
            return 401, {
                "error": "invalid_client",
                "error_description": f"not {secret} {asked.headers.get('authorization')}",
            }
        if asked.form["grant_type"] == "refresh_token":
            if asked.form["refresh_token"] != self.refresh_token:
                return 400, {"error": "invalid_grant", "error_description": asked.form["refresh_token"]}
            self.refresh_token = f"refresh-secret-{self.tokens + 1}"
        self.tokens += 1
        self.valid = f"access-secret-{self.tokens}"
        return 200, {"access_token": self.valid, "expires_in": self.expires_in, "refresh_token": self.refresh_token}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                asked = _read(head)
                asked.body = await reader.readexactly(int(asked.headers.get("content-length", 0)))
                self.asked.append(asked)
                status, value = await self.answer(asked)
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                kind = "text/plain" if isinstance(value, bytes) else "application/json"
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _read(head: str) -> Asked:
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split()
    parts = urlsplit(target)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Asked(method, parts.path, parse_qs(parts.query), headers, b"")


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """A service on a free port."""
    made = Service()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
