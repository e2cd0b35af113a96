"""The client against a server that breaks off, refuses and comes back."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.client import ApiError, Client

RUN = "01a1f879-206d-708e-862c-c0d2d3105d5d"


def sse(*events: tuple[str, int | None]) -> bytes:
    lines = [
        (f"id: {number}\n" if number else "") + f"event: {name}\ndata: {json.dumps({'run_id': RUN})}\n\n"
        for name, number in events
    ]
    return ("".join(lines) + ": ping\n\n").encode()


class Scripted(BaseHTTPRequestHandler):
    """Answers requests one after the other from the server's script."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        status, kind, content, promised = self.server.script.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(promised or len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.script: list[tuple[int, str, bytes, int | None]] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def streams(self, *events: tuple[str, int | None], broken: bool = False) -> None:
        """Send these events; broken: promise more than is sent."""
        content = sse(*events)
        self.script.append((200, "text/event-stream", content, len(content) + 100 if broken else None))

    def says(self, status: int, value: Any) -> None:
        content = b"" if value is None else json.dumps(value).encode()
        self.script.append((status, "application/problem+json", content, None))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{server.server_port}", "the-key") as made:
        yield made


def test_a_broken_stream_goes_on_after_the_last_number(server: Server, client: Client) -> None:
    server.streams(("run.started", 3), ("text.delta", None), broken=True)
    server.says(503, {"code": "unavailable"})
    server.streams(("text.snapshot", None), broken=True)
    server.streams(("message.completed", 4), ("run.completed", 5))
    names = [event.name for event in client.follow(f"/runs/{RUN}/events", after="2")]
    assert names == ["run.started", "text.delta", "text.snapshot", "message.completed", "run.completed"]
    assert [asked[2]["Last-Event-ID"] for asked in server.asked] == ["2", "3", "3", "3"]
    assert {asked[2]["Authorization"] for asked in server.asked} == {"Bearer the-key"}


def test_a_streamed_post_goes_on_as_the_runs_own_stream(server: Server, client: Client) -> None:
    server.streams(("run.started", 1), broken=True)
    server.streams(("run.failed", 2))
    assert [event.id for event in client.stream("/runs", {"message": "hi"})] == ["1", "2"]
    assert [(method, path) for method, path, *_ in server.asked] == [("POST", "/runs"), ("GET", f"/runs/{RUN}/events")]
    assert json.loads(server.asked[0][3]) == {"message": "hi", "stream": True}
    assert server.asked[1][2]["Last-Event-ID"] == "1"


def test_a_reset_begins_from_the_first(server: Server, client: Client) -> None:
    server.streams(("stream.reset", None), broken=True)
    server.streams(("run.completed", 1))
    assert len(list(client.follow("/e", after="99"))) == 2
    assert "Last-Event-ID" not in server.asked[1][2]


def test_all_read_ends_at_once(server: Server, client: Client) -> None:
    server.says(204, None)
    assert list(client.follow("/e", after="5")) == []


def test_a_refused_stream_says_why(server: Server, client: Client) -> None:
    server.says(404, {"code": "not_found", "detail": "there is no run x"})
    with pytest.raises(ApiError) as refused:
        list(client.follow("/e"))
    assert (refused.value.status, refused.value.line) == (404, "there is no run x (not_found)")


def test_a_stream_that_never_began_is_not_waited_for(server: Server, client: Client) -> None:
    server.says(503, {"code": "database_unavailable"})
    with pytest.raises(ApiError):
        list(client.follow("/e"))
    assert len(server.asked) == 1


def test_a_refusal_names_the_field(server: Server, client: Client) -> None:
    server.says(422, {"code": "invalid_timezone", "detail": "no such zone", "field": "timezone"})
    with pytest.raises(ApiError) as refused:
        client.post("/tasks", {})
    assert refused.value.line == "no such zone (field timezone, invalid_timezone)"


def test_every_post_has_a_key_of_its_own(server: Server, client: Client) -> None:
    for _ in range(2):
        server.says(200, {})
        client.post("/tasks", {"prompt": "x"})
    assert len({asked[2]["Idempotency-Key"] for asked in server.asked}) == 2


def test_what_is_no_problem_document_is_still_one_error(server: Server, client: Client) -> None:
    server.script.append((502, "text/html", b"<h1>Bad gateway</h1>", None))
    with pytest.raises(ApiError, match="the server answered 502"):
        client.get("/runs")
