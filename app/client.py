"""The typed client of the command line: JSON calls, and streams that survive a broken connection."""

import json
import mimetypes
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
from httpx_sse import EventSource, SSEError

from app.settings import is_loopback

Json = dict[str, Any]

TERMINAL = ("run.completed", "run.failed", "run.cancelled")
CONNECT_SECONDS = 5.0
# An answer that is waited for comes within 60 s; heartbeats of a stream are at most 15 s apart.
READ_SECONDS = 75.0
SILENCE_SECONDS = 45.0
# How long a stream tries to come back when nobody answers any more.
PATIENCE_SECONDS = 60.0
# A connection that held longer than this was not one of a row of failures.
HELD_SECONDS = 15.0
PAUSES_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0)


class ApiError(Exception):
    """The server refused or failed a call, or can't be reached.

    Attributes:
        status: The HTTP status; 0 when nobody answered.
        code: The problem's stable code.
        detail: What went wrong, for people.
        field: The field at fault, if it was one.
        problem: The whole problem document.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        """Take a problem document."""
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code") or "unknown")
        self.detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
        self.field = cast("str | None", problem.get("field"))
        super().__init__(self.detail)

    @property
    def lines(self) -> list[str]:
        """What is wrong with each field, one line for each."""
        errors: list[Json] = self.problem.get("errors") or []
        return [f"{each['field']}: {each['detail']} ({self.code})" for each in errors] or [self.line]

    @property
    def line(self) -> str:
        """All of it on one readable line."""
        field = f"field {self.field}, " if self.field and self.field not in self.detail else ""
        return f"{self.detail} ({field}{self.code})"


@dataclass(frozen=True)
class Event:
    """One server-sent event; `id` is its number, or the last one's for text that is still being written."""

    name: str
    data: Json
    id: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether its run ended with it."""
        return self.name in TERMINAL


class Client:
    """Talks to one Parley server.

    A context manager. Every call raises `ApiError` when the server refuses it or can't be reached.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Say which server; nothing is sent yet.

        Args:
            url: Its address, such as `http://localhost:8000`.
            api_key: Sent as a bearer token.
        """
        self.url = url.rstrip("/")
        headers = {"User-Agent": "parley-cli"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            # A proxy can't reach this machine's loopback.
            trust_env=not is_loopback(urlsplit(self.url).hostname or ""),
        )

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET; query values that are None are left out."""
        return self._call("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of a POST, sent with an idempotency key of its own."""
        headers = {"Idempotency-Key": str(uuid4())}
        return self._call("POST", path, json=body or {}, headers=headers)

    def upload(self, path: Path) -> Any:
        """Keep a file as an artifact; answers what it is, with its id."""
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        files = {"file": (path.name, path.read_bytes(), media_type)}
        return self._call("POST", "/artifacts", files=files, headers={"Idempotency-Key": str(uuid4())})

    def put(self, path: str, body: Mapping[str, Any], **query: Any) -> Any:
        """The JSON of a PUT."""
        return self._call("PUT", path, json=body, params=query)

    def text(self, path: str) -> str:
        """The text of a GET that does not answer JSON."""
        return self._send("GET", path).text

    def delete(self, path: str) -> None:
        """A DELETE."""
        self._call("DELETE", path)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Event]:
        """The events of the run that a POST with `stream: true` starts, to its end.

        When the connection breaks, reading goes on from the run's own stream.
        """
        key = {"Idempotency-Key": str(uuid4())}
        run: str | None = None

        def connect(last: str | None) -> Iterator[Event]:
            if run is None:
                return self._events("POST", path, headers=key, json={**body, "stream": True})
            return self._resumed(f"/runs/{run}/events", last)

        for event in _patiently(connect):
            run = event.data.get("run_id") or run
            yield event

    def follow(self, path: str, *, after: str | None = None) -> Iterator[Event]:
        """The events of a run's stream, to its end; reading goes on by itself when the connection breaks.

        Args:
            path: The stream's path.
            after: The last event's id that is known already.
        """
        return _patiently(lambda last: self._resumed(path, last), after)

    # --- one call -----------------------------------------------------------------------------

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return _json(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error
        _refuse(response)
        return response

    def _resumed(self, path: str, last: str | None) -> Iterator[Event]:
        return self._events("GET", path, headers={} if last is None else {"Last-Event-ID": last})

    def _events(self, method: str, path: str, *, headers: Mapping[str, str], **options: Any) -> Iterator[Event]:
        """The events of one connection."""
        asked = {**headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        silence = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        try:
            with self._http.stream(method, path, headers=asked, timeout=silence, **options) as response:
                if response.status_code == 204:
                    raise _AllRead
                if response.is_error:
                    response.read()
                    _refuse(response)
                for sent in EventSource(response).iter_sse():
                    if sent.data:  # A heartbeat comes out of the decoder as an event without data.
                        yield Event(sent.event, json.loads(sent.data), sent.id or None)
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error
        except (SSEError, ValueError) as error:
            raise ApiError(0, {"code": "no_stream", "detail": f"{self.url}{path} sent no events: {error}"}) from error


class _AllRead(Exception):
    """The run has ended and we have read it all."""


def _patiently(connect: Callable[[str | None], Iterator[Event]], last: str | None = None) -> Iterator[Event]:
    """The events of connection after connection, each once, up to the terminal one.

    The first connection must succeed; later ones are tried for a while.
    """
    patience = _Patience()
    while True:
        try:
            for event in connect(last):
                patience.heard()
                # The decoder repeats the last number on events that have none of their own.
                last = None if event.name == "stream.reset" else event.id or last
                yield event
                if event.is_terminal:
                    return
            if patience.is_over:
                raise ApiError(0, {"code": "no_stream", "detail": "the stream ended before its run did"})
        except _AllRead:
            return
        except ApiError as error:
            if 0 < error.status < 500 or patience.is_over:
                raise
        patience.pause()


class _Patience:
    """How long to go on trying: not at all before the first event, then a while from each break on."""

    def __init__(self) -> None:
        self._heard = False
        self._tries = 0
        self._since = self._began = time.monotonic()

    def heard(self) -> None:
        """An event came."""
        self._heard, self._tries = True, 0
        self._since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether to give up; a connection that held for a while starts the count anew."""
        now = time.monotonic()
        if now - self._began > HELD_SECONDS:
            self._since = now
        return not self._heard or now - self._since > PATIENCE_SECONDS

    def pause(self) -> None:
        """Wait before the next connection."""
        time.sleep(PAUSES_SECONDS[min(self._tries, len(PAUSES_SECONDS) - 1)])
        self._tries += 1
        self._began = time.monotonic()


def _refuse(response: httpx.Response) -> None:
    if response.is_error:
        problem = _json(response)
        raise ApiError(response.status_code, cast("Json", problem) if isinstance(problem, dict) else {})


def _json(response: httpx.Response) -> Any:
    try:
        return response.json() if response.content else None
    except ValueError:
        return None


def _unreachable(url: str, error: httpx.TransportError) -> ApiError:
    said = str(error) or type(error).__name__
    return ApiError(0, {"code": "unreachable", "detail": f"{url} can't be reached: {said}"})
