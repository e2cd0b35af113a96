"""The registry, arguments, and the tools that only hand on to the run."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.errors import InvalidArguments
from app.settings import Settings
from app.tools import BUILT_IN, Risk, Tool, offered
from app.tools.schema import fitting
from tests.tools.context import Context

# What they write has the effect key as its id, or is a deletion: a repeat changes nothing.
WRITES_ONCE = ("remember", "forget", "add_document")


@pytest.mark.parametrize("tool", BUILT_IN.values(), ids=BUILT_IN)
def test_every_tool_can_be_shown_to_a_model(tool: Tool) -> None:
    assert BUILT_IN[tool.name] is tool
    Draft202012Validator.check_schema(tool.parameters)
    assert tool.parameters["additionalProperties"] is False
    assert '"title": "' not in json.dumps(tool.parameters), "a parameter may be called title, a schema needs none"
    assert tool.description.endswith(".")
    assert tool.idempotent == (tool.risk in (Risk.READ, Risk.CODE) or tool.name in WRITES_ONCE)


def test_the_arguments_are_those_of_the_contract() -> None:
    assert {name: list(tool.parameters["properties"]) for name, tool in BUILT_IN.items()} == {
        "calculator": ["expression"],
        "current_time": ["timezone"],
        "web_search": ["query"],
        "fetch_url": ["url"],
        "chatbot": ["query"],
        "summarizer": ["text", "max_length", "method"],
        "execute_code": ["code"],
        "create_chart": ["chart_type", "data", "title"],
        "describe_database": ["table"],
        "query_database": ["query"],
        "ask_person": ["question"],
        "notify": ["text", "channel"],
        "schedule_task": ["prompt", "schedule_expression", "timezone"],
        "propose_state": ["patch"],
        "search_documents": ["query", "filters"],
        "add_document": ["title", "text", "metadata"],
        "remember": ["text", "about", "key"],
        "recall": ["query", "about"],
        "forget": ["id"],
    }


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, False),
        ({"search_provider": "searxng"}, False),
        ({"search_provider": "tavily", "brave_api_key": "k"}, False),
        ({"search_provider": "searxng", "searxng_url": "http://10.0.0.1"}, True),
        ({"search_provider": "tavily", "tavily_api_key": "k"}, True),
        ({"search_provider": "brave", "brave_api_key": "k"}, True),
        ({"search_provider": "duckduckgo"}, True),
    ],
)
def test_web_search_is_offered_when_its_provider_is_set_up(settings: dict[str, Any], there: bool) -> None:
    names = set(offered(Settings.of(**settings)))
    assert names == set(BUILT_IN) - {"describe_database", "query_database"} - (set() if there else {"web_search"})


@pytest.mark.parametrize(
    ("name", "arguments", "field", "message"),
    [
        ("calculator", {}, "expression", "is missing"),
        ("calculator", {"expression": "1", "x": 1}, "x", "no such argument .there are: expression"),
        ("calculator", {"expression": 5}, "expression", "string"),
        ("chatbot", {"query": " "}, "query", "at least 1"),
        ("notify", {"text": "x", "channel": 3}, "channel", "string"),
        ("schedule_task", {"prompt": "x"}, "schedule_expression", "is missing"),
        ("fetch_url", {"url": "http://x/" + "a" * 5000}, "url", "at most 4000"),
    ],
)
async def test_bad_arguments_name_the_argument(name: str, arguments: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidArguments, match=f"{field}: .*{message}") as caught:
        await BUILT_IN[name].call(Context.of(), arguments)
    assert caught.value.field == field


async def test_chatbot_notify_and_schedule_task_hand_on_to_the_run() -> None:
    context = Context.of()
    schedule = {"prompt": "report", "schedule_expression": "0 9 * * *", "timezone": "Europe/Berlin"}
    assert await BUILT_IN["chatbot"].call(context, {"query": "Capital of France?"}) == "Paris."
    assert await BUILT_IN["notify"].call(context, {"text": "done", "channel": "email"}) == "planned"
    assert await BUILT_IN["notify"].call(context, {"text": "done"}) == "planned"
    assert await BUILT_IN["schedule_task"].call(context, schedule) == "stored"
    assert context.asked == [
        ("complete", "Capital of France?"),
        ("notify", "done", "email"),
        ("notify", "done", "None"),
        ("schedule_task", "report", "0 9 * * *", "Europe/Berlin"),
    ]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({}, "a"), ({"a": "x"}, "a"), ({"a": 1, "c": 2}, "c"), ({"a": 1, "b": ["x", 2]}, "b.1")],
)
def test_a_json_schema_names_the_argument_at_fault(arguments: dict[str, Any], field: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "string"}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert fitting(schema, {"a": 1, "b": []}) == {"a": 1, "b": []}
    with pytest.raises(InvalidArguments) as caught:
        fitting(schema, arguments)
    assert caught.value.field == field
