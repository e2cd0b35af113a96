"""The outermost layers of every request, as plain ASGI: nothing in them buffers a stream."""

import asyncio
import re
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.metrics import Metrics, route_of
from app.api.problems import problem
from app.api.strict import check_url
from app.errors import BodyTooLarge, ForeignHost, ForeignOrigin, ParleyError, Unavailable
from app.models import new_id
from app.settings import is_loopback
from app.telemetry import bound

log = structlog.stdlib.get_logger(__name__)

PREFIX = re.compile(r"^/api(?:/v1)?(?=/|$)")
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_GONE = 499  # For logs and metrics: nobody is left to read it.
# Asked every few seconds by machines.
ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})


class PathPrefix:
    """Strips a leading `/api` or `/api/v1`."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its own path."""
        if scope["type"] in ("http", "websocket") and (matched := PREFIX.match(scope["path"])):
            raw = scope.get("raw_path") or scope["path"].encode()
            scope = {
                **scope,
                "path": scope["path"][matched.end() :] or "/",
                "raw_path": raw[matched.end() :] or b"/",
            }
        await self.app(scope, receive, send)


class Observed:
    """Gives each request its id, logs and counts it, and answers for what nobody caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics, secret: tuple[str, ...] = ()) -> None:
        """Wrap an application.

        Args:
            app: The application.
            metrics: Where requests are counted.
            secret: Beginnings of paths whose rest is nobody's to read in a log: who has it may decide.
        """
        self.app = app
        self.metrics = metrics
        self.secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, watching it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        with bound(request_id=request_id):
            await _Watch(scope, send, request_id, self.metrics, self._shown(scope["path"])).run(self.app, receive)

    def _shown(self, path: str) -> str:
        """A path as logs may hold it."""
        return next((f"{each}..." for each in self.secret if path.startswith(each)), path)


class _Watch:
    """One request as it is seen from outside."""

    def __init__(self, scope: Scope, send: Send, request_id: str, metrics: Metrics, path: str) -> None:
        self.scope = scope
        self.path = path
        self.status = 0
        self._send = send
        self._request_id = request_id
        self._metrics = metrics

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        began = time.perf_counter()
        try:
            check_url(self.scope)
            await app(self.scope, receive, self.send)
        except ParleyError as error:
            await self._answer(error, receive)
        except ClientDisconnect:
            self.status = self.status or CLIENT_GONE
        except asyncio.CancelledError:
            # This process stops and waits no longer. What was accepted goes on elsewhere, and a repeat finds it.
            if not self.status:
                await self._answer(Unavailable("the server is restarting: ask again", retry_after=2), receive)
            raise
        except Exception as error:
            log.error("request.broke", method=self.scope["method"], path=self.path, exc_info=error)
            if self.status:
                raise  # The answer has begun: only a closed connection can say that it is not whole.
            await self._answer(ParleyError(), receive)
        finally:
            self._note(time.perf_counter() - began)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
        await self._send(message)

    async def _answer(self, error: ParleyError, receive: Receive) -> None:
        response = problem(error, path=self.scope["path"], request_id=self._request_id)
        await response(self.scope, receive, self.send)

    def _note(self, seconds: float) -> None:
        method, path, route = self.scope["method"], self.path, route_of(self.scope)
        self._metrics.request(method, route, self.status, seconds)
        say = log.debug if path in ROUTINE else log.info
        say("request", method=method, path=path, status=self.status, ms=round(seconds * 1000, 1))


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else str(new_id())


class PlainStart:
    """Says in one line why the application could not start, where the reason has a name."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; a failed start loses its traceback."""

        async def said(message: Message) -> None:
            error = sys.exc_info()[1]
            if message["type"] == "lifespan.startup.failed" and isinstance(error, ParleyError):
                message = {**message, "message": error.detail}
            await send(message)

        await self.app(scope, receive, said if scope["type"] == "lifespan" else send)


class LocalOnly:
    """With authentication off: only this machine's names as Host, only our own pages and allowed origins."""

    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        """Wrap an application.

        Args:
            app: The application.
            origins: Further origins whose pages may call.
        """
        self.app = app
        self.origins = {origin.rstrip("/").lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and (error := self._refusal(Headers(scope=scope))):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.code})
                return
            raise error
        await self.app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ParleyError | None:
        host = headers.get("host", "")
        if not is_loopback(_hostname(host)):
            return ForeignHost()
        origin = headers.get("origin")
        if origin is None or origin.rstrip("/").lower() in self.origins or _same_origin(origin, host):
            return None
        return ForeignOrigin(f"pages of {origin[:200]!r} may not call this server: name it in PARLEY_CORS_ORIGINS")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_origin(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


class BodyLimit:
    """Refuses a body above the limit: by its announced length, else by counting."""

    def __init__(
        self, app: ASGIApp, limit: int, uploads: Mapping[str, int] | None = None, counting: tuple[str, ...] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            limit: Bytes.
            uploads: Resources to which forms may be larger, with their limits.
            counting: Beginnings of the paths whose routes count for themselves.
        """
        self.app = app
        self.limit = limit
        self.uploads = uploads or {}
        self.counting = counting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["path"].startswith(self.counting):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit, announced = self._limit(scope, headers), headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise _too_large(limit)
        await self.app(scope, _counting(receive, limit), send)

    def _limit(self, scope: Scope, headers: Headers) -> int:
        resource = "/" + scope["path"].split("/")[1]
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        return max(self.limit, self.uploads.get(resource, 0)) if is_form else self.limit


def _counting(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message: Any = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes")
