import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app import sandbox
from app.errors import ImportNotAllowed, InvalidArguments, InvalidTool, ToolError
from app.tools import BUILT_IN
from tests.tools.context import Context


@pytest.fixture(autouse=True, scope="module")
def _workers_end() -> Iterator[None]:
    yield
    asyncio.run(sandbox.aclose())


async def call(code: str) -> Any:
    return await BUILT_IN["execute_code"].call(Context.of(), {"code": code})


async def test_the_last_value_and_what_was_printed_come_back() -> None:
    code = "import math\nfor n in range(3):\n    print(n)\nmath.comb(5, 2)\n"
    assert await call(code) == {"result": 10, "printed": "0\n1\n2\n"}
    assert await call("x = 5") == {"result": None, "printed": ""}
    assert await call("import asyncio\nawait asyncio.sleep(0)\n[1, (2, 3)]") == {"result": [1, [2, 3]], "printed": ""}


async def test_calls_share_nothing() -> None:
    await call("left = 1")
    with pytest.raises(ToolError, match="NameError"):
        await call("left")


async def test_a_failure_says_its_line_and_what_was_printed_before() -> None:
    with pytest.raises(ToolError, match=r"ZeroDivisionError: division by zero \(line 2\); printed before: here"):
        await call("print('here')\n1 / 0")


async def test_what_the_sandbox_does_not_have_is_refused_by_line() -> None:
    with pytest.raises(ImportNotAllowed, match="line 2: import of os"):
        await call("x = 1\nimport os")
    with pytest.raises(InvalidTool, match="line 1: generators"):
        await call("def f(): yield 1")
    with pytest.raises(InvalidTool, match="line 1: syntax error"):
        await call("1 +")


@pytest.mark.parametrize("arguments", [{}, {"code": ""}, {"code": "1" * 20_001}, {"code": "1", "more": 1}])
async def test_bad_arguments_name_the_argument(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await BUILT_IN["execute_code"].call(Context.of(), arguments)
    assert caught.value.field == ("more" if "more" in arguments else "code")
