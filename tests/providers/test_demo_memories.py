"""What the offline model takes for a wish to remember, and what not."""

from typing import Any

import pytest
from pydantic_ai.tools import ToolDefinition

from app.providers.demo.intents import plan
from app.tools import BUILT_IN

TOOLS = {
    name: ToolDefinition(name=name, parameters_json_schema=BUILT_IN[name].parameters)
    for name in ("calculator", "remember", "recall", "forget")
}


def keep(text: str, about: str = "person") -> tuple[str, dict[str, Any]]:
    return "remember", {"text": text, "about": about}


@pytest.mark.parametrize(
    ("prompt", "calls"),
    [
        (
            "Remember that I like tea, and that my dog is called Rex.",
            [keep("I like tea, and that my dog is called Rex")],
        ),
        ("Please remember: the code is 1234", [keep("the code is 1234")]),
        ("Remember for this task that last time it was 3.", [keep("last time it was 3", "task")]),
        ("remember for yourself that you are brief!", [keep("you are brief", "agent")]),
        ("Could you remember my birthday is 3 May? Thanks.", [keep("my birthday is 3 May")]),
        (
            "Calculate 2+2 and remember that I use tea",
            [("calculator", {"expression": "2+2"}), keep("I use tea")],
        ),
        ("What do you remember about cats?", [("recall", {"query": "cats"})]),
        ("Do you remember that I like tea?", [("recall", {"query": "I like tea"})]),
        ("What do you remember about me?", [("recall", {})]),
        ("Recall everything.", [("recall", {})]),
        ("Recalculate 2+3", [("calculator", {"expression": "2+3"})]),
        ("I remember that once it rained.", []),
        ("Forget it.", []),
    ],
)
def test_the_wish_decides(prompt: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert [(call.tool, call.arguments) for call in plan(prompt, TOOLS)] == calls


def test_without_the_tools_nothing_is_remembered() -> None:
    assert plan("Remember that I like tea. What do you remember?", {}) == []
