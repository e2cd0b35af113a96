import asyncio
from collections.abc import Iterator

import pytest

from app import sandbox
from app.errors import ImportNotAllowed, InvalidArguments, InvalidTool, ToolError
from app.sandbox import Limits
from app.tools import Risk
from app.tools.invoke import invoke
from app.tools.python import define, python_tool
from tests.tools.context import Context

NAME, DESCRIPTION = "reverse_string", "Reverse the characters in a string"
CODE = "async def reverse_string(text: str) -> str:\n    return text[::-1]"


@pytest.fixture(autouse=True, scope="module")
def _workers_end() -> Iterator[None]:
    yield
    asyncio.run(sandbox.aclose())


async def test_the_example_of_the_contract_becomes_a_tool() -> None:
    defined = await define(NAME, DESCRIPTION, CODE)
    tool = python_tool(defined.spec)
    assert (tool.name, tool.description, tool.risk, tool.idempotent) == (NAME, DESCRIPTION, Risk.CODE, True)
    assert (tool.kind, tool.output_schema) == ("python", {"type": "string"})
    assert tool.parameters["properties"] == {"text": {"type": "string"}}
    assert await tool.call(Context.of(), {"text": "hello"}) == "olleh"


async def test_equal_content_is_the_same_version() -> None:
    first, again = await define(NAME, DESCRIPTION, CODE), await define(NAME, DESCRIPTION, CODE)
    other = await define(NAME, DESCRIPTION, CODE.replace("text[::-1]", "text"))
    assert first.sha256 == again.sha256 != other.sha256
    assert len(first.sha256) == 64


@pytest.mark.parametrize(
    ("name", "description", "code", "field"),
    [
        ("ab", DESCRIPTION, CODE, "name"),
        ("a" * 32, DESCRIPTION, CODE, "name"),
        ("1abc", DESCRIPTION, CODE, "name"),
        ("a-bc", DESCRIPTION, CODE, "name"),
        ("abc\n", DESCRIPTION, CODE, "name"),
        ("execute", DESCRIPTION, CODE, "name"),
        (NAME, "abcd", CODE, "description"),
        (NAME, "a" * 121, CODE, "description"),
        (NAME, DESCRIPTION, "async def", "code"),
        (NAME, DESCRIPTION, CODE + " " * 2000, "code"),
        (NAME, DESCRIPTION, "reverse_string = lambda text: text", "code"),
    ],
)
async def test_the_rules_of_a_registration_name_the_field(name: str, description: str, code: str, field: str) -> None:
    with pytest.raises(InvalidTool) as caught:
        await define(name, description, code)
    assert caught.value.field == field


@pytest.mark.parametrize("module", ["os", "sys", "subprocess"])
async def test_imports_of_the_machine_are_refused_by_line(module: str) -> None:
    with pytest.raises(ImportNotAllowed, match=f"line 1: import of {module}") as caught:
        await define(NAME, DESCRIPTION, f"import {module}\n{CODE}")
    assert caught.value.code == "import_not_allowed"


async def test_type_errors_have_their_line() -> None:
    with pytest.raises(InvalidTool, match="line 2"):
        await define(NAME, DESCRIPTION, CODE.replace("-> str", "-> int"))


@pytest.mark.parametrize("arguments", [{}, {"text": 5}, {"text": "x", "more": 1}])
async def test_bad_arguments_name_the_argument(arguments: dict[str, object]) -> None:
    tool = python_tool((await define(NAME, DESCRIPTION, CODE)).spec)
    with pytest.raises(InvalidArguments) as caught:
        await invoke(tool, Context.of(), arguments)
    assert caught.value.field == ("more" if "more" in arguments else "text")


async def test_a_failing_function_is_a_tool_error_with_its_line() -> None:
    code = "async def divide(a: int, b: int) -> float:\n    return a / b"
    tool = python_tool((await define("divide", "Divide two numbers", code)).spec)
    assert await tool.call(Context.of(), {"a": 1, "b": 4}) == 0.25
    with pytest.raises(ToolError, match=r"ZeroDivisionError.*line 2"):
        await tool.call(Context.of(), {"a": 1, "b": 0})


async def test_limits_belong_to_the_version() -> None:
    code = "async def forever() -> None:\n    while True:\n        pass"
    defined = await define("forever", "Never ends by itself", code, limits=Limits(seconds=0.3))
    tool = python_tool(defined.spec)
    assert tool.timeout_seconds == pytest.approx(2.3)
    with pytest.raises(ToolError, match=r"longer than 0.3 s"):
        await tool.call(Context.of(), {})


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        ("int", "json.loads('1.5')", r"the result does not fit output_schema: \$: 1.5 is not of type 'integer'"),
        ("list[str]", "json.loads('[\"a\", 1]')", r"the result .*: \$\[1\]: 1 is not of type 'string'"),
        ("dict[str, int]", 'json.loads(\'{"a": "12"}\')', r"the result .*: \$\.a: '12' is not of type 'integer'"),
        ("Literal['a']", "json.loads('\"b\"')", "the result .*: 'b' is not one of"),
    ],
)
async def test_a_result_that_does_not_fit_the_signature_is_refused(annotation: str, value: str, said: str) -> None:
    code = f"import json\nfrom typing import Literal\nasync def answer() -> {annotation}:\n    return {value}"
    tool = python_tool((await define("answer", "Says something else", code)).spec)
    with pytest.raises(ToolError, match=said):
        await invoke(tool, Context.of(), {})


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        ("int", "2 ** 100", str(2**100)),
        ("int", "-(1 << 13000)", hex(-(1 << 13000))),
        ("float", "float('inf')", "inf"),
        ("float", "3", 3),
        ("bool", "True", True),
        ("P", "P(1)", {"x": 1, "more": 2}),
    ],
)
async def test_a_result_that_json_has_no_word_for_fits(annotation: str, value: str, result: object) -> None:
    code = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    def __post_init__(self):\n"
    code += f"        self.more = 2\nasync def answer() -> {annotation}:\n    return {value}"
    tool = python_tool((await define("answer", "Says something large", code)).spec)
    assert await invoke(tool, Context.of(), {}) == result
