"""One call of any tool: held to its schemas before and after, and tried again where that is safe."""

from dataclasses import replace
from typing import Any

import pytest

from app.errors import InvalidArguments, ToolError, ToolUnavailable
from app.tools import Risk, Tool, ToolContext
from app.tools import invoke as invoking
from app.tools.invoke import invoke
from tests.tools.context import Context


class Service:
    """Answers after it has failed so often."""

    def __init__(self, *failures: Exception, answer: Any = 5) -> None:
        self.failures = list(failures)
        self.answer = answer
        self.calls = 0

    def tool(self, **fields: Any) -> Tool:
        async def call(context: ToolContext, arguments: dict[str, Any]) -> Any:
            self.calls += 1
            if self.failures:
                raise self.failures.pop(0)
            return self.answer

        parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
        plain = Tool("count", "Counts.", parameters, Risk.READ, idempotent=True, call=call)
        return replace(plain, **fields)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoking, "PAUSE_SECONDS", 0.0)


async def test_a_call_with_arguments_that_do_not_fit_is_not_made() -> None:
    service = Service()
    with pytest.raises(InvalidArguments, match="n: 'x' is not of type 'integer'"):
        await invoke(service.tool(), Context.of(), {"n": "x"})
    assert service.calls == 0


async def test_a_result_is_held_to_the_output_schema() -> None:
    tool = Service(answer={"total": "many"}).tool(
        output_schema={"type": "object", "properties": {"total": {"type": "integer"}}}
    )
    with pytest.raises(ToolError, match=r"does not fit output_schema: \$\.total: 'many' is not of type 'integer'"):
        await invoke(tool, Context.of(), {})
    assert await invoke(replace(tool, output_schema={"type": "object"}), Context.of(), {}) == {"total": "many"}


@pytest.mark.parametrize(
    ("fields", "failure", "calls", "answered"),
    [
        ({"retries": 2}, ToolUnavailable("busy"), 3, True),
        ({"retries": 1}, ToolUnavailable("busy"), 2, False),
        ({"retries": 0}, ToolUnavailable("busy"), 1, False),
        ({"retries": 2, "idempotent": False}, ToolUnavailable("busy"), 1, False),
        ({"retries": 2}, ToolError("no such order"), 1, False),
        ({"retries": 2}, RuntimeError("broken"), 1, False),
    ],
)
async def test_only_what_may_be_repeated_and_may_pass_is_tried_again(
    fields: dict[str, Any], failure: Exception, calls: int, answered: bool
) -> None:
    service = Service(failure, failure)
    if answered:
        assert await invoke(service.tool(**fields), Context.of(), {}) == 5
    else:
        with pytest.raises(type(failure)):
            await invoke(service.tool(**fields), Context.of(), {})
    assert service.calls == calls


async def test_a_long_result_is_digested_once_it_fits_its_schema() -> None:
    tool = Service(answer={"text": "x" * 5000}).tool(output_schema={"type": "object"}, digest="In one word?")
    context = Context.of()
    assert await invoke(tool, context, {}) == context.answer
    [(_, asked)] = context.asked
    assert asked.startswith("In one word?")
    assert "x" * 5000 in asked
    with pytest.raises(ToolError, match="does not fit output_schema"):
        await invoke(replace(tool, output_schema={"type": "string"}), Context.of(), {})
    short = replace(tool, call=Service(answer={"text": "x"}).tool().call)
    assert await invoke(short, Context.of(), {}) == {"text": "x"}
