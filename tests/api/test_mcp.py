"""MCP servers as tool sources: a real server on loopback, its tools called, its list read again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.db import DEFAULT_WORKSPACE, Database
from app.settings import Settings
from app.tools import sources
from app.tools.mcp import McpSpec, mcp_tool
from app.tools.mcp_sessions import Server, Sessions
from tests.api.conftest import serve
from tests.mcp_server import Running, running
from tests.services import Service, service
from tests.tools.context import Context

ALL = {"add", "ask", "count", "environment", "fail", "greet", "learn", "picture", "sleep", "steps", "unlearn"}


@pytest.fixture(params=[False, True], ids=["new", "old"])
async def there(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running(old=request.param) as made:
        yield made


@pytest.fixture
async def client(settings: Settings, there: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(settings.model_copy(update={"parley_egress_allow": f"127.0.0.1:{there.port}"})) as opened:
        yield opened


async def connected(client: httpx.AsyncClient, there: Running, **fields: Any) -> dict[str, Any]:
    body = {"kind": "mcp", "name": "things", "description": "Things to try", "url": there.url}
    answer = await client.post("/tools", json=body | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def called(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.post(f"/tools/things_{tool}/execute", json={"arguments": arguments})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def shown(client: httpx.AsyncClient, tool: str) -> dict[str, Any]:
    return (await client.get(f"/tools/things_{tool}")).json()


async def test_a_server_becomes_working_tools(client: httpx.AsyncClient, there: Running) -> None:
    made = await connected(client, there)
    assert {tool["name"] for tool in made["tools"]} == {f"things_{name}" for name in ALL}
    assert {(tool["action"], tool["version"], tool["risk"]) for tool in made["tools"]} == {("create", 1, "external")}
    tool = await shown(client, "add")
    assert (tool["kind"], tool["source"], tool["tool"], tool["idempotent"]) == ("mcp", "things", "add", False)
    assert tool["parameters"]["required"] == ["a", "b"]
    assert tool["output_schema"]["properties"]["total"]["type"] == "integer"
    assert (await called(client, "add", a=1, b=2))["result"] == {"total": 3}
    assert (await called(client, "greet", name="you"))["result"] == "Hello, you!"
    assert "fail" in (await called(client, "fail", text="why"))["error"]
    assert (await called(client, "steps"))["result"] == "done"
    wrong = await client.post("/tools/things_add/execute", json={"arguments": {"a": 1, "b": "x"}})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "arguments.b")
    [source] = (await client.get("/tool-sources")).json()["items"]
    assert (source["name"], source["kind"], source["tools"], source["error"]) == ("things", "mcp", len(ALL), None)
    assert source["next_read_at"] > source["read_at"]


async def test_a_server_may_not_ask_our_model(client: httpx.AsyncClient, there: Running) -> None:
    await connected(client, there)
    assert (await called(client, "ask"))["error"] is not None
    assert (await called(client, "add", a=1, b=2))["result"] == {"total": 3}


async def test_what_a_server_says_of_risk_counts_only_where_it_is_believed(
    client: httpx.AsyncClient, there: Running
) -> None:
    risks = {tool["name"]: tool["risk"] for tool in (await connected(client, there, trust_hints=True))["tools"]}
    assert (risks["things_add"], risks["things_greet"]) == ("read", "external")
    assert (await shown(client, "add"))["idempotent"] is True
    risks = {tool["risk"] for tool in (await connected(client, there, risk="write"))["tools"]}
    assert risks == {"write"}


async def test_a_persons_word_on_a_tool_outlives_the_next_reading(client: httpx.AsyncClient, there: Running) -> None:
    await connected(client, there)
    changed = await client.patch("/tools/things_greet", json={"risk": "read", "timeout_seconds": 7})
    assert (changed.json()["version"], changed.json()["risk"]) == (2, "read")
    refused = await client.patch("/tools/things_greet", json={"url": "http://else.example"})
    assert (refused.status_code, refused.json()["field"]) == (422, "url")
    again = (await client.post("/tool-sources/things/read")).json()
    assert {tool["action"] for tool in again["tools"]} == {"unchanged"}
    tool = await shown(client, "greet")
    assert (tool["version"], tool["risk"], tool["timeout_seconds"]) == (2, "read", 7)


async def test_a_source_that_is_sent_again_asks_nobody(client: httpx.AsyncClient, there: Running) -> None:
    body = {"kind": "mcp", "name": "things", "description": "Things of a server", "url": there.url}
    key = {"Idempotency-Key": "one"}
    first = await client.post("/tools", json=body, headers=key)
    there.token = "changed"  # It would not answer any more.
    second = await client.post("/tools", json=body, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert {each["name"] for each in second.json()["tools"]} == {each["name"] for each in first.json()["tools"]}
    assert {each["action"] for each in second.json()["tools"]} == {"unchanged"}


async def test_a_tool_that_is_gone_is_disabled_and_comes_back(client: httpx.AsyncClient, there: Running) -> None:
    await connected(client, there)
    await client.patch("/tools/things_count", json={"enabled": False})
    await called(client, "unlearn", name="greet")
    await called(client, "unlearn", name="count")
    await client.post("/tool-sources/things/read")
    tool = await shown(client, "greet")
    assert (tool["enabled"], tool["disabled_reason"]) == (False, sources.GONE)
    assert (await client.post("/tools/things_greet/execute", json={"arguments": {"name": "x"}})).status_code == 409
    for name in ("greet", "count"):
        await called(client, "learn", name=name)
    made = {tool["name"]: tool for tool in (await client.post("/tool-sources/things/read")).json()["tools"]}
    assert (made["things_greet"]["action"], made["things_greet"]["version"]) == ("update", 2)
    assert (await shown(client, "greet"))["enabled"] is True
    # What a person has disabled stays so.
    tool = await shown(client, "count")
    assert (tool["enabled"], tool["disabled_reason"]) == (False, None)


async def test_a_server_that_is_away_keeps_its_tools(client: httpx.AsyncClient, there: Running) -> None:
    await connected(client, there)
    there.token = "changed"
    refused = await client.post("/tool-sources/things/read")
    assert refused.status_code == 422
    for said in ("127.0.0.1", "401"):
        assert said in refused.json()["detail"]
    source = (await client.get("/tool-sources/things")).json()
    assert "401" in source["error"]
    assert source["tools"] == len(ALL)
    there.token = None
    await client.post("/tool-sources/things/read")
    assert (await client.get("/tool-sources/things")).json()["error"] is None


async def test_deleting_a_source_takes_its_tools(client: httpx.AsyncClient, there: Running) -> None:
    await connected(client, there)
    assert (await client.delete("/tool-sources/things")).status_code == 204
    assert (await client.get("/tools/things_add")).status_code == 404
    assert (await client.get("/tool-sources/things")).status_code == 404
    assert len((await connected(client, there))["tools"]) == len(ALL)


async def test_a_credential_is_sent_and_never_shown(client: httpx.AsyncClient, there: Running) -> None:
    there.token = "key-secret-1"
    body = {"kind": "mcp", "name": "things", "description": "Things", "url": there.url}
    refused = await client.post("/tools", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "tool_error")
    await client.post("/credentials", json={"name": "c", "kind": "bearer", "token": "key-secret-1"})
    await connected(client, there, credential="c")
    assert (await called(client, "greet", name="key-secret-1"))["result"] == "Hello, ****!"
    unknown = await client.post("/tools", json=body | {"credential": "nothing"})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "credential")


async def test_a_refused_token_is_fetched_anew(settings: Settings, there: Running) -> None:
    async with service() as tokens:
        allow = {"parley_egress_allow": f"127.0.0.1:{there.port},127.0.0.1:{tokens.port}"}
        async with serve(settings.model_copy(update=allow)) as client:
            await client.post("/credentials", json=oauth(tokens))
            there.token = "access-secret-1"
            await connected(client, there, credential="c")
            there.token = "access-secret-2"
            assert (await called(client, "add", a=1, b=2))["result"] == {"total": 3}
    assert tokens.tokens == 2


def oauth(tokens: Service) -> dict[str, Any]:
    grant = {"grant": "client_credentials", "client_id": "me", "client_secret": "client-secret-1"}
    return {"name": "c", "kind": "oauth2", "token_url": tokens.url("/token"), **grant}


# --- refusals before anything is saved ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"url": "ftp://example.com"}, 422, "url"),
        ({"url": None}, 422, "url"),
        ({"name": "a b"}, 422, "name"),
        ({"method": "GET"}, 422, "method"),
        ({"url": "http://127.0.0.1:9/mcp"}, 422, None),
    ],
)
async def test_a_wrong_source_is_refused(app: Any, fields: dict[str, Any], status: int, field: str | None) -> None:
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        body = {"kind": "mcp", "name": "things", "description": "Things", "url": "https://mcp.example/"} | fields
        refused = await client.post("/tools", json=body)
        assert (refused.status_code, refused.json().get("field")) == (status, field), refused.text
        if field is None:
            assert refused.json()["code"] == "egress_refused"
            assert "127.0.0.1" in refused.json()["detail"]
        assert (await client.get("/tool-sources")).json()["items"] == []


# --- sessions -----------------------------------------------------------------------------------------


@pytest.fixture
async def context(there: Running) -> AsyncIterator[Context]:
    made = Context.of(parley_egress_allow=f"127.0.0.1:{there.port}")
    made.sessions = Sessions(made.egress, made.credentials)
    yield made
    await made.sessions.aclose()
    await made.egress.aclose()


def tool_of(there: Running, name: str) -> Callable[..., Any]:
    spec = {"name": name, "description": name, "parameters": {}, "risk": "read", "idempotent": True}
    tool = mcp_tool(McpSpec(**spec, source="things", tool=name, url=there.url, timeout_seconds=5))

    async def call(context: Context, **arguments: Any) -> Any:
        return await tool.call(context, arguments)

    return call


async def test_files_become_artifacts_and_progress_is_told(context: Context, there: Running) -> None:
    result = await tool_of(there, "picture")(context)
    assert (result["text"], result["files"][0]["media_type"]) == ("one pixel", "image/png")
    await tool_of(there, "steps")(context)
    assert context.asked == [("keep", "picture_1.png", "image/png", "70"), ("progress", "half of it", "1", "2")]


async def test_a_conversation_has_a_session_of_its_own(context: Context, there: Running) -> None:
    for conversations in (1, 2):
        context.conversation_id = uuid4()
        for _ in range(2):
            await tool_of(there, "greet")(context, name="you")
        known = {asked["mcp-session-id"] for asked in there.asked if "mcp-session-id" in asked}
        # A server of the newer kind knows no sessions.
        assert len(known) == (conversations if there.old else 0)


async def test_a_session_that_the_server_has_lost_is_begun_anew(context: Context, there: Running) -> None:
    greet = tool_of(there, "greet")
    await greet(context, name="a")
    there.lost = there.old
    assert await greet(context, name="b") == "Hello, b!"
    assert there.lost is False


async def test_many_calls_at_once_share_a_session(context: Context, there: Running) -> None:
    add = tool_of(there, "add")
    results = await asyncio.gather(*(add(context, a=n, b=1) for n in range(20)))
    assert results == [{"total": n + 1} for n in range(20)]
    handshakes = [asked for asked in there.asked if asked.get("mcp-method") == "server/discover"]
    assert len(handshakes) == 1


async def test_a_call_that_is_given_up_leaves_the_session_to_others(context: Context, there: Running) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await tool_of(there, "sleep")(context, seconds=60)
    assert await tool_of(there, "add")(context, a=1, b=2) == {"total": 3}


async def test_a_server_whose_list_may_have_changed_is_told_of(context: Context, there: Running) -> None:
    heard: list[Server] = []
    told = asyncio.Event()
    context.sessions.on_change = lambda server: (heard.append(server), told.set())
    context.conversation_id = uuid4()
    await tool_of(there, "learn")(context, name="more")
    if there.old:  # Newer servers tell only those who listen; their lists are read by the clock.
        async with asyncio.timeout(5):
            await told.wait()
        assert heard[0].name == "things"
    heard.clear()
    with pytest.raises(Exception, match="Unknown tool"):
        await tool_of(there, "nothing")(context)
    assert [server.name for server in heard] == ["things"]


# --- read again by the clock --------------------------------------------------------------------------


@pytest.fixture
async def sessions(settings: Settings, there: Running) -> AsyncIterator[Sessions]:
    made = Context.of(parley_egress_allow=f"127.0.0.1:{there.port}")
    opened = Sessions(made.egress, made.credentials)
    yield opened
    await opened.aclose()
    await made.egress.aclose()


async def due(database: Database) -> None:
    await database.execute("update tool_sources set due_at = now(), read_at = now() - interval '1 hour'")


async def read_next(database: Database, sessions: Sessions) -> bool:
    """Read what has been due longest; whether there was anything."""
    found = await sources.next_due(database)
    if found is not None:
        await sources.read_again(database, sessions, found)
    return found is not None


async def test_one_of_many_processes_reads_a_server_that_is_due(
    client: httpx.AsyncClient, database: Database, sessions: Sessions, there: Running
) -> None:
    await connected(client, there)
    await called(client, "learn", name="more")
    assert await read_next(database, sessions) is False
    await due(database)
    read = await asyncio.gather(*(read_next(database, sessions) for _ in range(4)))
    assert sorted(read) == [False, False, False, True]
    assert (await shown(client, "more"))["description"] == "Learned later"
    # The same list again changes nothing but the time of reading.
    await due(database)
    assert await read_next(database, sessions) is True
    assert (await shown(client, "more"))["version"] == 1


async def test_the_clock_notes_why_a_server_could_not_be_read(
    client: httpx.AsyncClient, database: Database, sessions: Sessions, there: Running
) -> None:
    await connected(client, there)
    await due(database)
    there.token = "changed"
    assert await read_next(database, sessions) is True
    source = (await client.get("/tool-sources/things")).json()
    assert "401" in source["error"]
    assert source["tools"] == len(ALL)
    assert await read_next(database, sessions) is False


async def test_a_changed_list_is_read_soon_but_not_ever_so_often(
    client: httpx.AsyncClient, database: Database, sessions: Sessions, there: Running
) -> None:
    await connected(client, there)
    server = Server("things", UUID(str(DEFAULT_WORKSPACE)), there.url)
    await sources.soon(database, server)
    seconds = await database.fetchval("select extract(epoch from due_at - read_at)::float from tool_sources")
    assert seconds == pytest.approx(sources.SOONEST_SECONDS, abs=0.5)
