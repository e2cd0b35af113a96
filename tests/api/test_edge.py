"""The outermost layers: prefixes, request ids, logs and counts."""

import asyncio
import logging

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.edge import Observed
from app.api.metrics import Metrics


@pytest.mark.parametrize("prefix", ["", "/api", "/api/v1"])
async def test_a_leading_prefix_is_stripped(client: httpx.AsyncClient, prefix: str) -> None:
    assert (await client.get(f"{prefix}/agents/assistant")).json()["name"] == "assistant"
    assert (await client.get(f"{prefix}/agents/a%20b")).json()["detail"] == "there is no agent 'a b'"


@pytest.mark.parametrize("path", ["/apiv1/agents", "/api/v2/agents", "/api/api/agents", "/apis"])
async def test_only_the_two_prefixes_are(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


async def test_the_root_leads_to_the_docs(client: httpx.AsyncClient) -> None:
    for path in ("/", "/api", "/api/v1/"):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_a_request_id_is_echoed_or_made(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz", headers={"X-Request-ID": "my-id.1"})
    assert answer.headers["x-request-id"] == "my-id.1"
    made = (await client.get("/healthz")).headers["x-request-id"]
    for bad in ("a b", "x" * 200, "a\tb", "<script>"):
        answer = await client.get("/healthz", headers={"X-Request-ID": bad})
        assert answer.headers["x-request-id"] not in (bad, made)


async def test_each_request_is_logged_with_its_id(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="app.api.edge"):
        await client.get("/audit?subject_id=secret", headers={"X-Request-ID": "abc"})
        await client.get("/healthz", headers={"X-Request-ID": "routine"})
    lines = [record.getMessage() for record in caplog.records if "request_id='abc'" in record.getMessage()]
    assert len(lines) == 1
    assert "path='/audit'" in lines[0]
    assert "status=200" in lines[0]
    assert "secret" not in caplog.text
    assert "routine" not in caplog.text


@pytest.mark.parametrize("place", ["decisions", "unsubscribe"])
async def test_a_link_that_decides_is_in_no_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        for path in (f"/{place}/a-live-token", f"/api/v1/{place}/a-live-token", f"/{place}/a-live-token/x"):
            assert (await client.get(path)).status_code == 404
    assert f"path='/{place}/...'" in caplog.text
    assert "a-live-token" not in "".join(text for text in caplog.messages if "HTTP Request" not in text)


async def test_requests_are_counted_by_route(client: httpx.AsyncClient) -> None:
    for name in ("assistant", "nobody", "other"):
        await client.get(f"/agents/{name}")
    await client.get("/nowhere")
    text = (await client.get("/metrics")).text
    assert 'parley_http_requests_total{method="GET",route="/agents/{agent}",status="200"} 1.0' in text
    assert 'parley_http_requests_total{method="GET",route="/agents/{agent}",status="404"} 2.0' in text
    assert 'parley_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'parley_http_request_seconds_count{method="GET",route="/agents/{agent}"} 3.0' in text
    assert "nobody" not in text


async def test_who_still_waits_when_the_server_stops_is_told_to_ask_again() -> None:
    begun = asyncio.Event()

    async def wait(request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        return Response(request.method)

    app = Observed(Starlette(routes=[Route("/wait", wait)]), Metrics())
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        asked = asyncio.create_task(client.get("/wait"))
        await begun.wait()
        server.should_exit = True
        answer = await asked
    await serving
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "2"
