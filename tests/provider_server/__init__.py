"""A loopback model provider: real wire protocols, scripted answers, nothing recorded from anyone.

It speaks OpenAI Chat Completions (`/v1/chat/completions`) and Responses (`/v1/responses`), Anthropic Messages
(`/v1/messages`) and Google generateContent, streamed and not. The model's name chooses the script: see
`tests.provider_server.scripts`. `GET /requests` lists what was asked, `POST /reset` forgets it.
In a test: `with provider_server() as server: ... server.url`. By hand: `python -m tests.provider_server --port 9000`.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import ModuleType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.settings import Settings
from tests.provider_server import chat, gemini, messages, responses
from tests.provider_server.scripts import RETRY_AFTER, Ask, Failure, Scripts
from tests.provider_server.wire import Cut, stream

KEY = "loopback-key-0123456789"


class ProviderServer:
    """The application and what it was asked."""

    def __init__(self) -> None:
        self.scripts = Scripts()
        self.asked: list[Ask] = []
        self.bodies: list[Any] = []
        self.url = ""
        self.app = Starlette(routes=self._routes())

    def reset(self) -> None:
        """Forget every request, so that `-once` faults strike again."""
        self.scripts.seen.clear()
        self.scripts.outage.clear()
        self.asked.clear()
        self.bodies.clear()

    def settings(self, **more: Any) -> Settings:
        """Settings whose providers are all this server."""
        addresses = {"openai_base_url": f"{self.url}/v1", "anthropic_base_url": self.url}
        addresses |= {"google_base_url": self.url, "ollama_base_url": self.url}
        keys = dict.fromkeys(("openai_api_key", "anthropic_api_key", "google_api_key"), KEY)
        return Settings.of(**(addresses | keys | more))

    def _routes(self) -> list[Route]:
        return [
            Route("/v1/chat/completions", self._endpoint(chat), methods=["POST"]),
            Route("/v1/responses", self._endpoint(responses), methods=["POST"]),
            Route("/v1/messages", self._endpoint(messages), methods=["POST"]),
            Route("/{version}/models/{call:path}", self._gemini, methods=["POST"]),
            Route("/requests", self._requests),
            Route("/reset", self._reset, methods=["POST"]),
        ]

    def _endpoint(self, protocol: ModuleType) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            self.bodies.append(await request.json())
            return self._reply(protocol, protocol.read(self.bodies[-1], _key(request)))

        return answer

    async def _gemini(self, request: Request) -> Response:
        model, _, method = request.path_params["call"].rpartition(":")
        streamed = method == "streamGenerateContent"
        return self._reply(gemini, gemini.read(await request.json(), _key(request), model, streamed))

    def _reply(self, protocol: ModuleType, ask: Ask) -> Response:
        self.asked.append(ask)
        reply = self.scripts.reply(ask)
        if isinstance(reply, Failure):
            headers = {"retry-after": str(RETRY_AFTER)} if reply.kind in ("rate", "overloaded") else {}
            return JSONResponse(protocol.failure(reply), reply.status, headers)
        if ask.stream:
            return stream(protocol.events(ask, reply), reply)
        if reply.cut:
            raise Cut
        return JSONResponse(protocol.whole(ask, reply))

    async def _requests(self, request: Request) -> Response:
        del request
        return JSONResponse([asdict(ask) | {"key": ""} for ask in self.asked])

    async def _reset(self, request: Request) -> Response:
        del request
        self.reset()
        return Response(status_code=204)


@contextmanager
def provider_server(port: int = 0) -> Iterator[ProviderServer]:
    """A running server on the loopback address, in a thread of this process."""
    provider = ProviderServer()
    listener = socket.create_server(("127.0.0.1", port))
    provider.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(provider.app, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def _key(request: Request) -> str:
    headers = request.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or headers.get("x-api-key") or headers.get("x-goog-api-key") or ""
