"""People's Python: what is refused with its line, what runs, and what attacks run into."""

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from app import sandbox
from app.errors import ImportNotAllowed, InvalidTool, ToolError, Unavailable
from app.sandbox import Host, Limits, ResultTooLarge, check, read_function, run, to_json
from app.sandbox.runtime import MAX_WORKERS, WORKERS_PER_OWNER

POINT = "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: int = 0\n"
REVERSE = "async def reverse_string(text: str) -> str:\n    return text[::-1]"


@pytest.fixture(autouse=True, scope="module")
def _workers_end() -> AsyncIterator[None]:
    yield
    asyncio.run(sandbox.aclose())


# --- checking -------------------------------------------------------------------------------------


async def test_the_example_of_the_contract_is_described() -> None:
    spec = await check(REVERSE)
    assert spec.name == "reverse_string"
    assert spec.parameters == {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    }
    assert spec.returns == {"type": "string"}


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("list", {"type": "array"}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("str | None", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("int | str | None", {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        ("typing.Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("Literal['a', 'b', -1]", {"enum": ["a", "b", -1]}),
        ("Annotated[int, 'how many']", {"type": "integer", "description": "how many"}),
        ("'list[str]'", {"type": "array", "items": {"type": "string"}}),
        ("Any", {}),
    ],
)
def test_annotations_become_schemas(annotation: str, schema: dict[str, Any]) -> None:
    spec = read_function(f"async def f(a: {annotation}) -> int:\n    return 1")
    assert spec.parameters["properties"]["a"] == schema


def test_defaults_make_parameters_optional() -> None:
    spec = read_function("async def f(a, b: int = 2, *, c: str = 'x', d: list[int] = [1], e: int) -> None:\n    pass")
    assert spec.parameters["required"] == ["a", "e"]
    assert spec.parameters["properties"]["b"] == {"type": "integer", "default": 2}
    assert spec.parameters["properties"]["c"] == {"type": "string", "default": "x"}
    assert "default" not in spec.parameters["properties"]["d"]


@pytest.mark.parametrize("default", ["1e999", "'\\x00'", "'\\ud800'", "1j", "b'x'", "..."])
def test_a_default_that_json_can_not_hold_is_left_out(default: str) -> None:
    spec = read_function(f"async def f(a={default}) -> int:\n    return 1")
    assert (spec.parameters["properties"], spec.parameters["required"]) == ({"a": {}}, [])


def test_an_async_function_may_be_asked_for() -> None:
    assert read_function("def f() -> int:\n    return 1").name == "f"
    with pytest.raises(InvalidTool, match="async def"):
        read_function("def f() -> int:\n    return 1", async_only=True)
    both = "def f() -> int:\n    return 1\nasync def g() -> int:\n    return f()"
    assert read_function(both).name == "g"
    assert read_function(both, "f").name == "f"
    assert read_function(both, "f", async_only=True).name == "g"


def test_dataclasses_of_the_code_are_objects() -> None:
    spec = read_function(POINT + "def f(a: Point, b: 'list[Point] | None' = None) -> Point:\n    return a")
    point = {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}},
        "required": ["x"],
        "additionalProperties": False,
    }
    assert spec.parameters["properties"]["a"] == point
    assert spec.returns == point | {"additionalProperties": True}
    assert spec.parameters["properties"]["b"]["anyOf"][0] == {"type": "array", "items": point}
    assert spec.parameters["required"] == ["a"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("async def f(a: str) -> int:\n    return a", r"line 2: Return type does not match"),
        ("async def f(a: str) -> int:\n    return len(b)", r"line 2: Name `b` used when not defined"),
        ("async def f(a: str) -> int:\n    x = (\n", r"line 2: syntax error"),
        (
            "async def f(a: str) -> int:\n    class A(dict):\n        pass\n    return 1",
            "line 2: classes with inheritance",
        ),
        ("async def f() -> int:\n    yield 1", "line 2: generators"),
        ("async def f() -> int:\n    a = 1\n    del a\n    return 1", "line 3: del is not supported"),
        ("async def f() -> int:\n    async with g():\n        return 1", "line 2: async with"),
        (
            "async def f() -> int:\n    try:\n        return 1\n    except* ValueError:\n        return 2",
            r"line 2: except\*",
        ),
        (
            "class A:\n    @property\n    def a(self):\n        return 1\nasync def f():\n    return 1",
            "line 3: property",
        ),
        ("from math import *\nasync def f():\n    return pi", r"line 1: import \* is not supported"),
        ("async def f(*a: int) -> int:\n    return 1", r"line 1: \*args"),
        ("async def f(a: int, /) -> int:\n    return 1", "line 1: positional-only"),
        ("async def f(a: set[int]) -> int:\n    return 1", r"line 1: parameter a: set\[int\] has no JSON form"),
        ("x = 1", "async def"),
        ("async def f():\n    pass\nasync def g():\n    pass", "several functions"),
        ("def f():\n    pass\ndef g():\n    pass", "several functions"),
        ("async def f(a):\n    async for x in a:\n        return x", "line 2: async for"),
        ("async def f(a):\n    return [x async for x in a]", "line 2: async comprehensions"),
        ("async def f(a: " + "-" * 1500 + "1):\n    return a", "line 1: the signature is nested too deeply"),
        ("async def f(a: " + "list[" * 100 + "int" + "]" * 100 + "):\n    return a", "nested more than 12"),
        ("async def f(a: " + "int | " * 400 + "str):\n    return a", "more than 300 parts|nested"),
        ("async def f(a: 'a b'):\n    return a", "line 1: parameter a: 'a b' has no JSON form"),
        ("async def f(a: Literal['\\x00']):\n    return a", "line 1: parameter a"),
        (POINT + "@dataclass\nclass Tree:\n    below: list['Tree']\ndef f(a: Tree):\n    return a", "in itself"),
        (POINT + "@dataclass\nclass Q:\n    x: int\ndef f(a: Point | Q):\n    return a", "several dataclasses"),
        ("async def f():\n    return 1\nassert 1 == 2", "line 3: AssertionError"),
        ("async def f():\n    return 1\nwhile True:\n    pass", "ran longer than 1 s"),
        ("x = " + "(" * 500, "line 1"),
        ("async def f():\n    return '\0'", "line 1"),
        ("x = " + "-" * 20000 + "1", "line 1"),
    ],
)
async def test_code_that_can_not_be_a_tool_is_refused_by_line(code: str, message: str) -> None:
    with pytest.raises(InvalidTool, match=message) as caught:
        await check(code)
    assert caught.value.field == "code"


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("import os", "no access to the machine"),
        ("import sys", "no access to the machine"),
        ("import subprocess", "no access to the machine"),
        ("from os import path", "no access to the machine"),
        ("import os.path as p", "no access to the machine"),
        ("import json, os", "no access to the machine"),
        ("import requests", "use an HTTP tool"),
        ("import openai", "use the chatbot tool"),
        ("import numpy", "use a trusted extension"),
        ("from . import x", "not allowed"),
    ],
)
async def test_imports_are_refused_by_line(module: str, instead: str) -> None:
    for code in (f"\n{module}\n{REVERSE}", f"async def f() -> int:\n    {module}\n    return 1"):
        with pytest.raises(ImportNotAllowed, match=f"line 2: import of .*{instead}"):
            await check(code)


async def test_allowed_imports_can_be_narrowed() -> None:
    code = "import math\nimport json\nasync def f() -> float:\n    return math.pi"
    assert (await check(code)).name == "f"
    with pytest.raises(ImportNotAllowed, match="line 2: import of json"):
        await check(code, allowed_imports=["math"])
    with pytest.raises(ImportNotAllowed, match="line 1: import of os"):
        await check("import os\n" + REVERSE, allowed_imports=["os"])


@pytest.mark.parametrize("module", sorted(sandbox.ALLOWED_IMPORTS))
async def test_every_allowed_import_exists(module: str) -> None:
    assert (await check(f"import {module}\n{REVERSE}")).name == "reverse_string"


async def test_the_named_function_is_chosen() -> None:
    code = "async def one() -> int:\n    return 1\nasync def two() -> int:\n    return 2"
    assert (await check(code, name="two")).name == "two"
    assert (await run(code, {}, function="two")).result == 2


# --- running --------------------------------------------------------------------------------------


async def test_the_example_of_the_contract_runs() -> None:
    outcome = await run(REVERSE, {"text": "grüße 🎈"})
    assert (outcome.result, outcome.error) == ("🎈 eßürg", None)
    assert outcome.duration_ms < 1000


async def test_prints_are_kept() -> None:
    outcome = await run("async def f() -> None:\n    print('a', 1)", {})
    assert (outcome.result, outcome.printed) == (None, "a 1\n")


async def test_an_error_has_its_type_and_line() -> None:
    outcome = await run("async def f(a: int) -> int:\n    b = a\n    return 1 // b", {"a": 0})
    assert outcome.result is None
    assert outcome.error == "ZeroDivisionError: division by zero (line 3)"


async def test_calls_share_nothing() -> None:
    code = "seen = []\nasync def f() -> int:\n    seen.append(1)\n    return len(seen)"
    assert [(await run(code, {})).result for _ in range(3)] == [1, 1, 1]


async def test_calls_run_at_the_same_time() -> None:
    code = "import asyncio\nasync def f(n: int) -> int:\n    await asyncio.sleep(0.5)\n    return n"
    await run(code, {"n": 0})  # The workers are there.
    started = time.perf_counter()
    outcomes = await asyncio.gather(*(run(code, {"n": n}) for n in range(4)))
    assert [outcome.result for outcome in outcomes] == [0, 1, 2, 3]
    assert time.perf_counter() - started < 4 * 0.5


def test_it_opens_again_in_another_loop() -> None:
    """Calls that come while the workers are started wait for one another, in each life of the pool."""

    async def life() -> list[Any]:
        await sandbox.aclose()
        outcomes = await asyncio.gather(*(run("async def f(n: int) -> int:\n    return n", {"n": n}) for n in range(3)))
        await sandbox.aclose()
        return [outcome.result for outcome in outcomes]

    assert [asyncio.run(life()) for _ in range(2)] == [[0, 1, 2]] * 2


async def test_results_become_json() -> None:
    code = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
    code += "async def f():\n    return {(1, 2): {3}, 'p': P(1), 'n': float('nan'), 'b': b'x', 4: 10**30, None: ...}"
    outcome = await run(code, {})
    expected = {"[1, 2]": [3], "p": {"x": 1}, "n": "nan", "b": "eA==", "4": str(10**30), "null": "Ellipsis"}
    assert outcome.result == expected


async def test_dataclasses_are_made_of_arguments() -> None:
    code = (
        POINT
        + "@dataclass\nclass Box:\n    low: Point\n    more: dict[str, list[Point]]\n    high: Point | None = None\n"
    )
    code += (
        "def f(box: Box, word: Literal['Point'], *, at: Annotated[Point, 'where'] = Point(9), rest: list[Box] = []):\n"
    )
    code += "    high = box.high.y if box.high else 0\n"
    code += "    return [box.low.x, high, box.more['k'][0].x, at.x, len(rest), sum(b.low.x for b in rest), word]"
    code = "from typing import Annotated, Literal\n" + code
    assert (await check(code)).name == "f"
    box = {"low": {"x": 1}, "more": {"k": [{"x": 3}]}, "high": {"x": 0, "y": 2}}
    given = {"box": box, "word": "Point"}
    assert (await run(code, given)).result == [1, 2, 3, 9, 0, 0, "Point"]
    more = given | {"at": {"x": 4}, "rest": [box, box], "box": {"low": {"x": 1}, "more": {"k": [{"x": 3}]}}}
    assert (await run(code, more)).result == [1, 0, 3, 4, 2, 2, "Point"]


async def test_a_plain_function_runs_with_its_helpers() -> None:
    code = "def half(n: float) -> float:\n    return n / 2\nasync def third(n: float) -> float:\n    return n / 3\n"
    code += "def sixth(n: float) -> float:\n    return half(n) / 3"
    assert (await check(code, name="sixth")).call == "sixth(**arguments)"
    assert (await run(code, {"n": 12}, function="sixth")).result == 2
    assert (await run(code, {"n": 12})).result == 4


async def test_a_script_answers_its_last_expression_and_what_it_printed() -> None:
    outcome = await sandbox.run_script("async def f(x: int) -> int:\n    print('hi')\n    return x\nawait f(2) + 1")
    assert (outcome.result, outcome.printed, outcome.error) == (3, "hi\n", None)
    assert (await sandbox.run_script("x = 1")).result is None
    assert (await sandbox.run_script("\n1 / 0")).error == "ZeroDivisionError: division by zero (line 2)"
    with pytest.raises(ImportNotAllowed, match="line 2: import of os"):
        await sandbox.run_script("x = 1\nimport os")
    with pytest.raises(InvalidTool, match="line 1: syntax error"):
        await sandbox.run_script("1 +")


# --- attacks --------------------------------------------------------------------------------------

SMALL = Limits(seconds=0.4, memory_mb=16, output_bytes=1000)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("while True:\n        pass", "ran longer than 0.4 s"),
        (
            "while True:\n        try:\n            while True:\n                pass\n        except BaseException:\n            pass",
            "longer",
        ),
        ("import time\n    time.sleep(60)", "ran longer than 0.4 s"),
        ("import asyncio\n    while True:\n        await asyncio.sleep(0.01)", "ran longer than 0.4 s"),
        ("x = []\n    while True:\n        x.append('a' * 100000)", "more than 16 MB of memory"),
        ("return 'x' * 500_000_000", "more than 16 MB of memory"),
        ("return str(9 ** 9 ** 9)", "memory|longer"),
        ("return await f()", "RecursionError"),
        ("return 'x' * 2000", "longer than 1000 bytes"),
        ("return [1] * 100000", "longer than 1000 bytes"),
        ("a = []\n    for _ in range(100000):\n        a = [a]\n    return a", "nested more than 64"),
        ("while True:\n        print('x' * 1000)", "printed more than"),
        ("return open('/etc/passwd').read()", "Error"),
        ("import pathlib\n    return pathlib.Path('/etc/passwd').read_text()", "PermissionError"),
        ("import os\n    return os.environ['PATH']", "not supported"),
        ("import os\n    return os.listdir('/')", "PermissionError"),
        ("import os\n    return os.system('id')", "Error"),
        ("import subprocess\n    return 1", "ModuleNotFoundError"),
        ("import socket\n    return 1", "ModuleNotFoundError"),
        ("return ().__class__.__bases__[0].__subclasses__()", "Error"),
        ("return __import__('os')", "NameError"),
        ("return f.__globals__", "AttributeError"),
        ("return eval(\"__import__('os')\")", "NameError"),
        ("raise SystemExit", "SystemExit"),
        ("return undefined", "NameError.*line 2"),
    ],
)
async def test_an_attack_ends_in_an_error_and_the_workers_live_on(
    body: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight to `run`: the interpreter is the boundary, not the check before it."""
    monkeypatch.setattr(
        "app.sandbox.source.ALLOWED_IMPORTS", sandbox.ALLOWED_IMPORTS | {"os", "pathlib", "subprocess", "socket"}
    )
    started = time.perf_counter()
    outcome = await run(f"async def f():\n    {body}", {}, SMALL)
    assert time.perf_counter() - started < 3
    assert outcome.result is None
    assert outcome.error is not None
    assert re.search(message, outcome.error), outcome.error
    assert (await run(REVERSE, {"text": "ab"}, SMALL)).result == "ba"


async def test_the_wall_clock_counts_work_and_sleep_together() -> None:
    code = "import time\nasync def f():\n    start = time.monotonic()\n    while time.monotonic() - start < 0.8:\n"
    code += "        pass\n    time.sleep(0.9)\n    return 1"
    outcome = await run(code, {}, Limits(seconds=1))
    assert outcome.error == "TimeoutError: it ran longer than 1 s"
    assert outcome.duration_ms < 3000


async def test_run_refuses_imports_too() -> None:
    with pytest.raises(ImportNotAllowed):
        await run("import os\nasync def f():\n    return os.getcwd()", {})


async def test_a_cancelled_call_frees_its_worker() -> None:
    slow = "async def f():\n    while True:\n        pass"
    call = asyncio.create_task(run(slow, {}, Limits(seconds=60)))
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    started = time.perf_counter()
    await sandbox.aclose()
    assert time.perf_counter() - started < 2
    assert (await run(REVERSE, {"text": "ab"})).result == "ba"


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": 61}, {"memory_mb": 1}, {"output_bytes": 0}, {"cpu": 1}])
def test_limits_have_bounds(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(limits)


# --- the converter --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (2**63, str(2**63)),
        (-(2**63) + 1, -(2**63) + 1),
        (math.inf, "inf"),
        (Decimal("0.10"), "0.10"),
        (datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),  # noqa: DTZ001
        ({"b", "a"}, ["a", "b"]),
        ((1, [2]), [1, [2]]),
        (1 + 2j, "(1+2j)"),
        ({b"k": 1, 1.5: 2, frozenset({1}): 3}, {"aw==": 1, "1.5": 2, "[1]": 3}),
    ],
)
def test_any_value_becomes_json(value: Any, expected: Any) -> None:
    converted = to_json(value, 1000)
    assert converted == expected
    json.dumps(converted, allow_nan=False)


def test_huge_integers_do_not_break_the_converter() -> None:
    assert to_json(1 << 100_000, 100_000).startswith("0x1")
    with pytest.raises(ResultTooLarge):
        to_json(1 << 100_000, 1000)


def test_a_cycle_is_too_deep() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ResultTooLarge, match="nested"):
        to_json(cycle, 1000)


# --- calling tools --------------------------------------------------------------------------------


class Tools:
    """Tools that code may call, and what it called them with."""

    def __init__(self) -> None:
        self.called: list[tuple[str, dict[str, Any]]] = []

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        self.called.append((name, arguments))
        if name == "slow":
            await asyncio.sleep(arguments["seconds"])
        if name == "broken":
            raise ToolError("it is broken")
        if name == "fatal":
            raise KeyError("nobody's business")
        return arguments

    @property
    def host(self) -> Host:
        names = {"echo": ["a", "b"], "slow": ["seconds"], "broken": [], "fatal": []}
        return Host(names, self.call)


async def test_code_calls_tools_by_position_and_name() -> None:
    tools = Tools()
    source = "[await echo(1, b={2}), await echo(a=(3,), c=None)]"
    outcome = await sandbox.run_script(source, host=tools.host)
    assert outcome.result == [{"a": 1, "b": [2]}, {"a": [3], "c": None}]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("echo(1, 2, 3)", "echo() takes 2 arguments at most: a, b"),
        ("echo(1, a=2)", "echo() got a twice"),
        ("echo(a='x' * 2_000_000)", "the arguments of echo() are too large: 1000000 bytes are allowed"),
        ("broken()", "it is broken"),
        ("nothing()", "name 'nothing' is not defined"),
    ],
)
async def test_a_call_that_fails_is_an_error_of_the_code(call: str, said: str) -> None:
    source = f"try:\n    r = await {call}\nexcept Exception as error:\n    r = str(error)\nr"
    assert (await sandbox.run_script(source, host=Tools().host)).result == said


async def test_an_error_that_is_not_for_the_code_stops_it_at_once() -> None:
    tools = Tools()
    source = "try:\n    await fatal()\nexcept BaseException:\n    pass\nawait echo(a='still here')"
    with pytest.raises(KeyError):
        await sandbox.run_script(source, host=tools.host)
    assert [name for name, _ in tools.called] == ["fatal"]
    assert (await sandbox.run_script("1 + 1")).result == 2  # and the next call has a worker


async def test_the_clock_of_the_code_stands_still_while_it_waits_for_a_tool() -> None:
    limits = Limits(seconds=0.3)
    source = "import asyncio\nawait asyncio.gather(slow(1.2), slow(1.0))\n'done'"
    assert (await sandbox.run_script(source, limits, host=Tools().host)).result == "done"
    late = await sandbox.run_script("await slow(0.1)\nwhile True: pass", limits, host=Tools().host)
    assert late.error == "TimeoutError: it ran longer than 0.3 s"


async def test_the_calls_of_one_piece_of_code_are_bounded() -> None:
    tools = Tools()
    source = "n = 0\nwhile True:\n    await echo(n)\n    n = n + 1"
    outcome = await sandbox.run_script(source, host=tools.host)
    assert outcome.error == "RuntimeError: code may call tools 100 times, not more (line 3)"
    assert len(tools.called) == 100


async def test_a_call_that_the_code_does_not_wait_for_is_over_when_the_code_is() -> None:
    tools = Tools()
    await sandbox.run_script("import asyncio\nasync def go():\n    await slow(0.2)\ngo()\n1", host=tools.host)
    assert not tools.called


async def test_registered_code_may_name_tools_that_it_calls() -> None:
    source = "async def f(text: str) -> str:\n    return await echo(a=text)"
    with pytest.raises(InvalidTool, match=r"line 2: .*echo"):
        await check(source)
    assert (await check(source, tools=["echo"])).name == "f"


async def test_code_that_calls_code_is_not_kept_waiting_by_its_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sandbox.runtime.CHECKOUT_SECONDS", 5)
    began: list[str] = []
    all_wait = asyncio.Event()

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        began.append(name)
        if len(began) == MAX_WORKERS:
            all_wait.set()
        await all_wait.wait()
        return (await sandbox.run_script("1 + 1", owner=uuid4())).result

    runs = (
        sandbox.run_script("await inner()", owner=uuid4(), host=Host({"inner": []}, call)) for _ in range(MAX_WORKERS)
    )
    assert [outcome.result for outcome in await asyncio.gather(*runs)] == [2] * MAX_WORKERS


async def test_one_owner_does_not_keep_every_worker_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sandbox.runtime.CHECKOUT_SECONDS", 0.2)
    greedy, other = uuid4(), uuid4()
    let_go, busy = asyncio.Event(), asyncio.Semaphore(0)

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        busy.release()
        await let_go.wait()

    host = {"hold": []}
    held = [
        asyncio.create_task(sandbox.run_script("await hold()", owner=greedy, host=Host(host, call)))
        for _ in range(WORKERS_PER_OWNER)
    ]
    for _ in held:
        await busy.acquire()
    with pytest.raises(Unavailable):
        await sandbox.run_script("1", owner=greedy)
    assert (await sandbox.run_script("1", owner=other)).result == 1
    let_go.set()
    await asyncio.gather(*held)
    assert (await sandbox.run_script("1", owner=greedy)).result == 1
