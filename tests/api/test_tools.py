"""/tools over HTTP."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.db import Database
from app.tools import BUILT_IN
from tests.engine import tool, tools

REVERSE = {
    "name": "reverse_string",
    "description": "Reverse the characters in a string",
    "code": "async def reverse_string(text: str) -> str:\n    return text[::-1]",
}

SAY = "async def say_it() -> int:\n    return {}"


async def test_the_example_of_the_contract(client: httpx.AsyncClient) -> None:
    made = await client.post("/api/tools/register", json=REVERSE)
    assert (made.status_code, made.headers["location"]) == (201, "/tools/reverse_string")
    tool = made.json()
    assert (tool["kind"], tool["version"], tool["risk"]) == ("python", 1, "code")
    assert tool["parameters"]["required"] == ["text"]
    done = (await client.post("/tools/reverse_string/execute", json={"arguments": {"text": "Parley"}})).json()
    assert (done["result"], done["error"]) == ("yelraP", None)
    again = await client.post("/tools/register", json=REVERSE)
    assert (again.status_code, again.json()["code"]) == (409, "duplicate")


async def test_new_code_is_a_new_version_in_force(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json=REVERSE)
    code = "async def reverse_string(text: str) -> str:\n    return text.upper()"
    changed = (await client.patch("/tools/reverse_string", json={"code": code})).json()
    assert (changed["version"], changed["description"]) == (2, REVERSE["description"])
    same = (await client.patch("/tools/reverse_string", json={"code": code})).json()
    assert (same["version"], same["sha256"]) == (2, changed["sha256"])
    versions = (await client.get("/tools/reverse_string/versions")).json()["items"]
    assert [each["version"] for each in versions] == [2, 1]
    assert versions[0]["sha256"] != versions[1]["sha256"]
    done = await client.post("/tools/execute", json={"tool": "reverse_string", "arguments": {"text": "a"}})
    assert done.json()["result"] == "A"


async def test_a_longer_limit_gives_the_call_more_time(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json=REVERSE)
    changed = (await client.patch("/tools/reverse_string", json={"limits": {"seconds": 30}})).json()
    assert changed["timeout_seconds"] > 30


async def test_a_disabled_tool_is_not_executed(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json=REVERSE)
    shown = (await client.patch("/tools/reverse_string", json={"enabled": False})).json()
    assert (shown["enabled"], shown["version"]) == (False, 1)
    refused = await client.post("/tools/reverse_string/execute", json={"arguments": {"text": "a"}})
    assert (refused.status_code, refused.json()["code"]) == (409, "disabled")


async def test_a_deleted_tool_frees_its_name(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json=REVERSE)
    assert (await client.delete("/tools/reverse_string")).status_code == 204
    assert (await client.get("/tools/reverse_string")).status_code == 404
    assert (await client.post("/tools/register", json=REVERSE)).status_code == 201


async def test_built_in_and_registered_tools_are_one_list(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json=REVERSE)
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/tools", params=params)).json()
        names += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert names == sorted([*BUILT_IN, "reverse_string"])
    only = (await client.get("/tools?kind=python")).json()["items"]
    assert [each["name"] for each in only] == ["reverse_string"]
    assert (await client.get("/tools/calculator")).json()["kind"] == "builtin"


async def test_a_kind_is_listed_whole_whatever_stands_between(client: httpx.AsyncClient) -> None:
    for number in range(4):
        body = {"kind": "http", "name": f"aaa_{number}", "description": "Look at it", "url": "https://x.example/"}
        assert (await client.post("/tools", json=body)).status_code == 201
    for name in ("zzz_one", "zzz_two"):
        code = f"async def {name}(text: str) -> str:\n    return text"
        await client.post("/tools/register", json={"name": name, "description": "Say it again", "code": code})
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"kind": "python", "limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/tools", params=params)).json()
        names += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert names == ["zzz_one", "zzz_two"]
    built_in = (await client.get("/tools", params={"kind": "builtin"})).json()["items"]
    assert {each["kind"] for each in built_in} == {"builtin"}


async def test_versions_come_in_pages(client: httpx.AsyncClient) -> None:
    await client.post("/tools/register", json={"name": "say_it", "description": "Say it", "code": SAY.format(0)})
    for number in (1, 2):
        await client.patch("/tools/say_it", json={"code": SAY.format(number)})
    first = (await client.get("/tools/say_it/versions?limit=2")).json()
    assert [each["version"] for each in first["items"]] == [3, 2]
    rest = (await client.get("/tools/say_it/versions", params={"cursor": first["next_cursor"]})).json()
    assert ([each["version"] for each in rest["items"]], rest["next_cursor"]) == ([1], None)


async def test_a_call_by_hand_has_an_author(client: httpx.AsyncClient, database: Database) -> None:
    key = {"Idempotency-Key": "one"}
    for _ in range(2):
        body = {"arguments": {"expression": "6*7"}}
        assert (await client.post("/tools/calculator/execute", json=body, headers=key)).status_code == 200
    [entry] = (await client.get("/audit", params={"action": "tool.execute"})).json()["items"]
    assert (entry["subject_id"], entry["principal_id"] is None) == ("calculator", False)
    assert UUID(entry["detail"]["call"]) == await database.fetchval("select id from tool_calls")


async def test_how_deep_calls_may_nest_is_a_limit_of_the_function(client: httpx.AsyncClient) -> None:
    code = "async def nest_it(depth: int) -> int:\n    return down(depth)\n\n"
    code += "def down(left: int) -> int:\n    return 0 if left == 0 else 1 + down(left - 1)"
    body = {"kind": "python", "name": "nest_it", "description": "Call oneself", "code": code}
    assert (await client.post("/tools", json=body)).status_code == 201
    call = {"arguments": {"depth": 400}}
    assert "recursion" in (await client.post("/tools/nest_it/execute", json=call)).json()["error"].lower()
    await client.patch("/tools/nest_it", json={"limits": {"recursion_depth": 1000}})
    done = (await client.post("/tools/nest_it/execute", json=call)).json()
    assert (done["result"], done["error"]) == (400, None)
    refused = await client.patch("/tools/nest_it", json={"limits": {"recursion_depth": 1001}})
    assert (refused.status_code, refused.json()["field"]) == (422, "limits.recursion_depth")


async def test_a_plain_function_with_a_dataclass_and_a_helper(client: httpx.AsyncClient) -> None:
    code = "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: float\n    y: float\n"
    code += "def square(n: float) -> float:\n    return n * n\n"
    code += "def distance(a: Point, b: Point) -> float:\n    return (square(a.x - b.x) + square(a.y - b.y)) ** 0.5"
    body = {"kind": "python", "name": "distance", "description": "How far two points are apart", "code": code}
    made = await client.post("/tools", json=body)
    assert (made.status_code, made.json()["output_schema"]) == (201, {"type": "number"}), made.text
    points = {"a": {"x": 0, "y": 0}, "b": {"x": 3, "y": 4}}
    done = await client.post("/tools/distance/execute", json={"arguments": points})
    assert (done.json()["result"], done.json()["error"]) == (5.0, None)
    wrong = await client.post("/tools/distance/execute", json={"arguments": points | {"a": {"x": 0}}})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "arguments.a")


@pytest.mark.parametrize(
    "signature",
    ["a: float = 1e999", "a: str = '\\x00'", "a: " + "-" * 1500 + "1", "a: x" + ".a" * 900, "a: Literal['\\ud800']"],
)
async def test_odd_signatures_are_no_error_of_ours(client: httpx.AsyncClient, signature: str) -> None:
    code = f"from typing import Literal\nasync def odd({signature}):\n    return 1"
    answer = await client.post("/tools/register", json={"name": "odd", "description": "Odd parameters", "code": code})
    assert answer.status_code in (201, 422), answer.text


@pytest.mark.parametrize(
    ("changes", "status", "code", "field", "text"),
    [
        ({"name": "x"}, 422, "invalid_tool", "name", "3 to 31"),
        ({"name": "execute"}, 422, "invalid_tool", "name", "reserved"),
        ({"name": "calculator"}, 409, "duplicate", "name", "built-in"),
        ({"description": "no"}, 422, "invalid_tool", "description", "5 to 120"),
        ({"code": "def f(): pass"}, 422, "invalid_tool", "code", "async def"),
        ({"code": "async def f() -> str:\n    return 1 +"}, 422, "invalid_tool", "code", "line 2"),
        ({"code": "import os\nasync def f() -> str:\n    return ''"}, 422, "import_not_allowed", "code", "line 1"),
        ({"code": "async def f(a: int) -> str:\n    return a"}, 422, "invalid_tool", "code", "line 2"),
        ({"kode": "x"}, 422, "unknown_field", "kode", "kode"),
    ],
)
async def test_a_registration_is_refused(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int, code: str, field: str, text: str
) -> None:
    answer = await client.post("/tools/register", json=REVERSE | changes)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert text in problem["detail"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"kind": "mcp", "url": "https://x"}, "invalid_request", "name"),
        ({"kind": "shell"}, "invalid_request", "kind"),
        ({**REVERSE}, "invalid_request", "kind"),
        ({**REVERSE, "kind": "python", "parameters": {}}, "invalid_request", "parameters"),
        ({**REVERSE, "kind": "python", "limits": {"seconds": 1000}}, "invalid_request", "limits.seconds"),
        ({**REVERSE, "kind": "python", "risk": "none"}, "invalid_request", "risk"),
    ],
)
async def test_what_is_no_tool_is_refused_by_field(client: httpx.AsyncClient, body: Any, code: str, field: str) -> None:
    answer = await client.post("/tools", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field), answer.json()


async def test_bad_arguments_and_failing_calls(client: httpx.AsyncClient, database: Database) -> None:
    wrong = await client.post("/tools/calculator/execute", json={"arguments": {"expresion": "1"}})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_arguments")
    assert wrong.json()["field"] in ("arguments.expression", "arguments.expresion")
    failing = await client.post("/tools/calculator/execute", json={"arguments": {"expression": "1/0"}})
    assert (failing.status_code, failing.json()["result"]) == (200, None)
    assert failing.json()["error"]
    unknown = await client.post("/tools/execute", json={"tool": "teleport"})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "tool")
    rows = await database.fetch("select tool, state, conversation_id from tool_calls")
    assert [(row["tool"], row["state"], row["conversation_id"]) for row in rows] == [("calculator", "failed", None)]


async def test_built_in_tools_by_hand(client: httpx.AsyncClient) -> None:
    async def call(name: str, **arguments: Any) -> Any:
        return (await client.post(f"/tools/{name}/execute", json={"arguments": arguments})).json()

    assert (await call("calculator", expression="0.1+0.2"))["result"] is not None
    assert "demo" in str((await call("chatbot", query="Hello"))["result"])
    assert "conversation" in (await call("notify", text="x"))["error"]
    assert "refused" in (await call("fetch_url", url="http://127.0.0.1:1/"))["error"]


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('\\x00 \\ud800')",
        "print('\\x00 \\ud800')\n1 / 0",
        "print('\\x00 \\ud800')\n{'\\x00': '\\ud800', 1: float('nan'), None: 10 ** 1000, (1, 2): {3}}",
        "x = []\nfor _ in range(60):\n    x = [x]\nx",
        "'x' * 49000",
        "while True:\n    print('x' * 1000)",
    ],
)
async def test_code_says_odd_things(client: httpx.AsyncClient, database: Database, code: str) -> None:
    answer = await client.post("/tools/execute_code/execute", json={"arguments": {"code": code}})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["result"] is None) != (answer.json()["error"] is None)
    assert await database.fetchval("select state from tool_calls") in ("done", "failed")


async def test_built_in_tools_are_not_changed(client: httpx.AsyncClient) -> None:
    assert (await client.patch("/tools/calculator", json={"enabled": False})).status_code == 409
    assert (await client.delete("/tools/calculator")).status_code == 409


@pytest.mark.parametrize(("idempotent", "state"), [(True, "failed"), (False, "unknown")])
async def test_a_call_by_hand_that_takes_too_long(
    client: httpx.AsyncClient, database: Database, idempotent: bool, state: str
) -> None:
    async def slow(context: Any, arguments: dict[str, Any]) -> Any:
        await asyncio.sleep(60)

    async with tools(tool("slow", slow, idempotent=idempotent, timeout_seconds=0.02)):
        answer = (await client.post("/tools/slow/execute", json={"arguments": {}})).json()
    assert "timed out" in answer["error"]
    assert await database.fetchval("select state from tool_calls") == state


SUM_UP = {
    "kind": "python",
    "name": "sum_up",
    "description": "Add numbers with the calculator",
    "code": "async def sum_up(numbers: list[int]) -> str:\n"
    "    return await calculator(' + '.join(str(n) for n in numbers))",
    "tools": ["calculator"],
}


async def test_a_function_that_calls_tools_is_tried_by_hand(client: httpx.AsyncClient, database: Database) -> None:
    made = await client.post("/tools", json=SUM_UP)
    assert (made.status_code, made.json()["tools"]) == (201, ["calculator"])
    done = (await client.post("/tools/sum_up/execute", json={"arguments": {"numbers": [1, 2, 39]}})).json()
    assert (done["result"], done["error"]) == ("42", None)
    called = await database.fetch("select tool, state from tool_calls order by id")
    assert [tuple(row) for row in called] == [("sum_up", "done"), ("calculator", "done")]
    failed = (await client.post("/tools/sum_up/execute", json={"arguments": {"numbers": []}})).json()
    assert "expression" in failed["error"]


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"tools": ["nothing_such"]}, "tools.0", "there is no tool 'nothing_such'"),
        ({"tools": ["calculator", "sum_up"]}, "tools.1", "a function can't call itself as a tool"),
        ({"tools": []}, "code", "line 2"),
        ({"idempotent": False}, "idempotent", "can always be repeated"),
    ],
)
async def test_tools_that_code_can_not_call_are_refused_by_name(
    client: httpx.AsyncClient, change: dict[str, Any], field: str, said: str
) -> None:
    refused = await client.post("/tools", json=SUM_UP | change)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert said in refused.json()["detail"]
