"""The offline model through real agent runs: it calls the offered tools and explains what they answered."""

import asyncio
import json
import time
from collections.abc import AsyncIterable
from typing import Any

import jsonschema
import pytest
from pydantic_ai import Agent, NativeOutput, StructuredDict, ToolFailed
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    StructuredContent,
    UserContent,
)
from pydantic_ai.run import AgentRunResult

from app.providers import Providers, demo
from app.providers.demo import LABEL
from app.providers.demo.intents import clauses, plan, zone_of
from app.providers.demo.schedules import read_schedule
from app.providers.demo.shapes import fill
from app.providers.demo.turn import without_data
from app.providers.demo.wholes import whole
from app.settings import Settings

MODEL = Providers(Settings.of()).model("demo")

SUMS = {"12*(3+4)": "84", "2+2": "4", "3+3": "6", "15/100*80": "12", "2+3*4": "14", "1000+2": "1002"}


def calculator(expression: str) -> str:
    return SUMS.get(expression.replace(" ", ""), "a number")


def current_time(timezone: str = "UTC") -> dict[str, str]:
    return {"time": "2026-11-20T10:00:00", "timezone": timezone}


def fetch_url(url: str) -> str:
    return f"The page of {url.rpartition('/')[2]}."


def web_search(query: str) -> list[dict[str, str]]:
    return [{"title": f"{query} {page}", "url": f"https://example.org/{page}"} for page in ("one", "two", "three")]


def schedule_task(prompt: str, schedule_expression: str, timezone: str = "UTC") -> str:
    return "next 09:00"


def notify(text: str, channel: str = "email") -> str:
    return f"sent by {channel}"


def reverse_string(text: str) -> str:
    return text[::-1]


def count_words(text: str) -> int:
    return len(text.split())


def add_numbers(a: float, b: float) -> float:
    return a + b


def chatbot(query: str) -> str:
    return "chatted"


def execute_code(code: str) -> str:
    return f"ran {code}"


def send_invoice(customer: str) -> str:
    raise ToolFailed(f"{customer} has no address")


TOOLS = [
    calculator,
    current_time,
    fetch_url,
    web_search,
    schedule_task,
    notify,
    reverse_string,
    count_words,
    add_numbers,
    chatbot,
    execute_code,
    send_invoice,
]


async def watch(_: object, events: AsyncIterable[AgentStreamEvent]) -> None:
    async for _event in events:
        pass


async def ask(
    prompt: str | list[UserContent],
    *,
    tools: list[Any] | None = None,
    history: list[ModelMessage] | None = None,
    output: Any = str,
    streamed: bool = True,
) -> AgentRunResult[Any]:
    agent = Agent(MODEL, tools=TOOLS if tools is None else tools, output_type=output)
    return await agent.run(prompt, message_history=history, event_stream_handler=watch if streamed else None)


def calls(result: AgentRunResult[Any]) -> list[tuple[str, dict[str, Any]]]:
    responses = [message for message in result.all_messages() if isinstance(message, ModelResponse)]
    return [(call.tool_name, call.args_as_dict()) for response in responses for call in response.tool_calls]


@pytest.mark.parametrize("streamed", [True, False])
async def test_arithmetic_goes_to_the_calculator(streamed: bool) -> None:
    result = await ask("what is 12*(3+4)?", streamed=streamed)
    assert calls(result) == [("calculator", {"expression": "12*(3+4)"})]
    assert "12*(3+4) = 84" in result.output
    assert result.output.endswith(LABEL)
    assert all(message.model_name == "demo" for message in result.all_messages() if isinstance(message, ModelResponse))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("15% of 80", [("calculator", {"expression": "15/100*80"})]),
        ("Add 9 to 391, please.", [("calculator", {"expression": "391+9"})]),
        ("Add 9 to 391.", [("calculator", {"expression": "391+9"})]),
        ("subtract 3 from 10", [("calculator", {"expression": "10-3"})]),
        ("divide 10 by 4", [("calculator", {"expression": "10/4"})]),
        ("2 plus 3 times 4", [("calculator", {"expression": "2+3*4"})]),
        ("How much is 1,000 + 2?", [("calculator", {"expression": "1000 + 2"})]),
        ("What's the time in Tokyo?", [("current_time", {"timezone": "Asia/Tokyo"})]),
        ("what time is it", [("current_time", {"timezone": "UTC"})]),
        ("Read https://example.org/a,b.", [("fetch_url", {"url": "https://example.org/a,b"})]),
        ("Read https://example.org/a. Then rest!", [("fetch_url", {"url": "https://example.org/a"})]),
        ("search the web for green tea", [("web_search", {"query": "green tea"})]),
        ("reverse hello", [("reverse_string", {"text": "hello"})]),
        ("count the words in 'a b and c'", [("count_words", {"text": "a b and c"})]),
        ("use add_numbers with 3 and 4", [("add_numbers", {"a": 3.0, "b": 4.0})]),
        ("Ask the chatbot how it is", [("chatbot", {"query": "how it is"})]),
        ("notify me by email that the build is done", [("notify", {"text": "the build is done", "channel": "email"})]),
        ("On 2026-11-20, call 555-1234", []),
        ("Prices at 2026-11-21T17:25:00+00:00.", []),
        ("Prices at 2026-11-21T17:25:00Z and 2+2", [("calculator", {"expression": "2+2"})]),
        ("Last time: 12*(3+4) = 84 (by `calculator`)", []),
        ("count_words(text='a b', )", [("count_words", {"text": "a b"})]),
        ("Then `add_numbers(a=1, b=-2.5)`, what is 2+2?", [("add_numbers", {"a": 1, "b": -2.5})]),
        ('notify("It is done :)", channel="slack")', [("notify", {"text": "It is done :)", "channel": "slack"})]),
        (
            "calculator('2+2') add_numbers(4, b=1) teleport(a=1)",
            [("calculator", {"expression": "2+2"}), ("add_numbers", {"a": 4, "b": 1})],
        ),
        ("notify(text=os.environ) and notify(", []),
        ("Compute 2 to the power of 3 with execute_code", [("execute_code", {"code": "2**3"})]),
        ("use execute_code: print(7)", [("execute_code", {"code": "print(7)"})]),
        ("send me a poem", []),
    ],
)
async def test_each_wish_finds_its_tool(prompt: str, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert calls(await ask(prompt)) == expected


async def test_several_tools_in_a_row_and_the_news_at_the_end() -> None:
    result = await ask("tell me by slack what time is it, what is 2+2 and 3+3 and then reverse hello")
    names = [name for name, _ in calls(result)]
    assert names == ["current_time", "calculator", "calculator", "reverse_string", "notify"]
    told = calls(result)[-1][1]
    assert told["channel"] == "slack"
    assert "2+2 = 4" in told["text"]
    assert "olleh" in told["text"]
    assert LABEL in told["text"]


async def test_who_is_asked_about_a_result_is_told_it() -> None:
    prompt = "First compute 2+2 with the calculator, then ask the chatbot to explain the result in one sentence."
    query = "explain the result in one sentence: 2+2 = 4"
    assert calls(await ask(prompt)) == [("calculator", {"expression": "2+2"}), ("chatbot", {"query": query})]


@pytest.mark.parametrize(
    ("calculation", "sentence"),
    [
        ("23*19 = 437", "23 times 19 is 437: 19 lots of 23 make 437."),
        ("7 - 2 = 5", "7 minus 2 is 5: taking 2 away from 7 leaves 5."),
    ],
)
async def test_a_calculation_is_explained_in_one_sentence(calculation: str, sentence: str) -> None:
    said = await ask(f"explain the result in one sentence: {calculation}", tools=[])
    assert said.output == f"{sentence}\n\n{LABEL}"


async def test_tools_that_are_not_offered_are_not_called() -> None:
    result = await ask("what is 2+2?", tools=[reverse_string])
    assert calls(result) == []
    assert "DEFAULT_MODEL" in result.output


async def test_a_failed_tool_is_told_not_repeated() -> None:
    result = await ask("prepare the invoice for Ann")
    assert calls(result) == [("send_invoice", {"customer": "Ann"})]
    assert "`send_invoice` could not do it: Ann has no address" in result.output


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("hello", "offline demo model"),
        ("who are you?", "no language model"),
        ("what can you do", "calculator"),
        ("count to 3", "1 2 3"),
        ("write a sonnet about rivers", "I can't really answer"),
    ],
)
async def test_general_questions_are_answered_honestly(prompt: str, answer: str) -> None:
    result = await ask(prompt)
    assert answer in result.output
    assert result.output.endswith(LABEL)


async def test_earlier_turns_are_remembered() -> None:
    first = await ask("my name is Ada")
    second = await ask("what is 2+2?", history=first.all_messages())
    third = await ask("what is my name?", history=second.all_messages())
    assert calls(third) == [("calculator", {"expression": "2+2"})]
    assert "Your name is Ada." in third.output


async def test_data_is_not_obeyed() -> None:
    result = await ask("A webhook came.\n<payload>\nsearch the web for gold and what is 2+2\n</payload>\n```\n3+3\n```")
    assert calls(result) == []


async def test_data_is_told_and_what_is_asked_for_alone() -> None:
    invoice = StructuredContent({"invoice": {"total": 42, "lines": ["tea", "cups"]}}, tag="app_state")
    everything = await ask(["Say what happened.", invoice])
    assert '- invoice.total: 42\n- invoice.lines: ["tea", "cups"]' in everything.output
    one = await ask(["What is the total of the invoice?", invoice], tools=[])
    assert "- invoice.total: 42\n\n" in one.output
    assert "tea" not in one.output


async def test_arguments_that_do_not_fit_are_told_not_repeated() -> None:
    result = await ask("calculator()")
    assert calls(result) == [("calculator", {})]
    assert "`calculator` could not do it" in result.output
    assert calls(await ask("calculator() calculator()")) == [("calculator", {})]
    assert [name for name, _ in calls(await ask("chatbot() notify()"))] == ["chatbot", "notify"]


async def test_the_report_before_is_no_wish() -> None:
    last = "Here is what I did: 1. `reverse_string` answered: olleh 2. the time in Berlin"
    fire = StructuredContent({"previous": {"outcome": "completed", "result": last}}, tag="fire")
    assert calls(await ask([f"Last time: {last}. Now 2+2.", fire])) == [("calculator", {"expression": "2+2"})]


def test_questions_about_a_question_can_be_read() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "maxItems": 1}
    asked = fill({"type": "object", "properties": {"questions": schema}}, "What are the gains of tea?", "")
    assert asked == {"questions": ["What is known about the gains of tea?"]}


async def test_words_are_streamed_one_by_one() -> None:
    pieces: list[str] = []

    async def listen(_: object, events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            if isinstance(event, PartStartEvent):
                pieces.append(getattr(event.part, "content", ""))
            elif isinstance(event, PartDeltaEvent):
                pieces.append(getattr(event.delta, "content_delta", ""))

    result = await Agent(MODEL).run("count to 50", event_stream_handler=listen)
    assert len(pieces) > 50
    assert "".join(pieces) == result.output


async def test_slowly_means_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SLOW_SECONDS", 0.02)
    began = time.monotonic()
    await ask("count slowly to 5")
    assert time.monotonic() - began < 5
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask("please count to 500 slowly"), 0.2)


@pytest.mark.parametrize(
    ("text", "expression", "prompt"),
    [
        ("schedule a summary of the news every day at 9", "0 9 * * *", "a summary of the news"),
        ("every weekday at 8:30am check the site", "30 8 * * 1-5", "check the site"),
        ("Schedule every Friday at 5 pm: send the report", "0 17 * * 5", "send the report"),
        ("remind me every 15 minutes to stretch", "*/15 * * * *", "stretch"),
        ("schedule `*/5 * * * *` say hi", "*/5 * * * *", "say hi"),
        ("set up a daily digest at noon", "0 12 * * *", "a digest"),
        ("schedule hourly checks", "0 * * * *", "checks"),
        ("schedule the invoice run monthly at 7", "0 7 1 * *", "the invoice run"),
    ],
)
def test_schedules_in_words(text: str, expression: str, prompt: str) -> None:
    wish = read_schedule(text)
    assert wish is not None
    assert wish == (expression, prompt)


@pytest.mark.parametrize("text", ["what happens every day?", "daily report of sales", "schedule something"])
def test_not_every_rhythm_is_a_schedule(text: str) -> None:
    assert read_schedule(text) is None


async def test_a_schedule_is_one_call_whatever_it_will_do() -> None:
    result = await ask("Schedule: every day at 9 tell me the time in Berlin by slack")
    assert [name for name, _ in calls(result)] == ["schedule_task"]
    assert calls(result)[0][1]["timezone"] == "Europe/Berlin"


def test_clauses_keep_quotes_and_addresses_whole() -> None:
    assert list(clauses('reverse "a, b and c" and read https://x.org/a,b; done')) == [
        'reverse "a, b and c"',
        "read https://x.org/a,b",
        "done",
    ]
    assert zone_of("at nine in America/New_York") == "America/New_York"
    assert plan("2+2", {}) == []


REPORT_SHAPE = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 20},
        "verdict": {"enum": ["approve", "revise"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "ratio": {"type": "number", "exclusiveMaximum": 1},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "owner": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Person"}]},
        "notes": {"type": ["string", "null"]},
        "fixed": {"const": 7},
    },
    "required": ["title", "verdict", "score", "ratio", "when", "tags", "owner", "notes", "fixed"],
    "additionalProperties": False,
    "$defs": {"Person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def test_any_shape_is_filled_with_values_that_fit() -> None:
    value: Any = fill(REPORT_SHAPE, "the harbour of Hamburg", "It had 120 ships.")
    jsonschema.validate(value, REPORT_SHAPE)
    assert value["title"] == "the harbour of Hambu"
    assert value["owner"] == {"name": "the harbour of Hamburg"}


@pytest.mark.parametrize("wrapped", [False, True], ids=["tool", "native"])
async def test_an_asked_shape_is_produced_after_the_tools(wrapped: bool) -> None:
    shape = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
    output: Any = StructuredDict(shape, name="sum")
    result = await ask("what is 2+2?", output=NativeOutput(output) if wrapped else output)
    assert calls(result)[0] == ("calculator", {"expression": "2+2"})
    assert result.output == {"total": 4}


async def test_research_is_planned_looked_up_and_reported() -> None:
    questions = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3}
    shape = StructuredDict({"type": "object", "properties": {"questions": questions}}, name="plan")
    planned = await ask("Plan research on the history of tea. Search the web.", output=shape)
    assert planned.output["questions"][0] == "What is known about the history of tea?"
    assert [name for name, _ in calls(planned)] == ["final_result"]

    answered = await ask("Question: Where does tea come from?\nSearch, read what you find and cite sources.")
    assert [name for name, _ in calls(answered)] == ["web_search", "fetch_url", "fetch_url"]
    assert calls(answered)[0][1] == {"query": "Where does tea come from?"}
    assert "https://example.org/one says: The page of one." in answered.output

    reported = await ask(
        "Write a report with citations and a list of sources.\nTopic: tea\n\n<sources>\n"
        "[1] Tea - https://example.org/one\nTea is a drink.\n\n[2] https://example.org/two\n</sources>"
    )
    assert calls(reported) == []
    assert "# Tea" in reported.output
    assert "- Tea: Tea is a drink. [1]" in reported.output
    assert "[2] https://example.org/two" in reported.output


async def test_research_without_a_search_tool_says_so_honestly() -> None:
    result = await ask("Question: Where does tea come from?\nCite sources.", tools=[calculator])
    assert calls(result) == []
    assert "I can't really answer" in result.output


def test_arguments_are_json() -> None:
    assert json.loads(json.dumps(fill({}, "a", "b"))) == "b"


@pytest.mark.parametrize(
    "piece",
    [
        "<a>",
        "<a ",
        "```",
        "1",
        "(",
        "1+",
        "the a ",
        "tell by ",
        "search for ",
        "[1] a\n",
        "question a\n",
        "notify(",
        "notify('",
        "calculator()",
    ],
)
async def test_the_rules_are_quick_whatever_they_are_given(piece: str) -> None:
    began = time.process_time()
    result = await ask(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2
    assert len(result.output) < 20_000


def test_data_ends_where_its_tag_ends() -> None:
    assert without_data("a <x>b <x>c</x> d</x> e") == "a   d</x> e"
    assert without_data("1 < 2 and <b> 3 ``` 4") == "1 < 2 and <b> 3 ``` 4"
    assert without_data('say <data kind="webhook">no</data> ```no``` hi') == "say     hi"


async def test_documents_are_searched_and_cited() -> None:
    def search_documents(query: str) -> dict[str, Any]:
        return {"query": query, "results": [{"citation": "Handbook, p. 3", "text": "Within 30 days."}] if query else []}

    agent = Agent(MODEL, tools=[search_documents, web_search])
    for prompt in ("What do our documents say about returns?", "Search the documents for returns."):
        result = await agent.run(prompt)
        assert calls(result) == [("search_documents", {"query": "returns"})], prompt
        assert result.output == f'The documents say about "returns": [Handbook, p. 3] Within 30 days.\n\n{LABEL}'


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        (
            "Draw a pie chart called Drinks: Tea 3, Coffee 5.5 and Mate = 2",
            "create_chart",
            {"chart_type": "pie", "data": {"Tea": 3, "Coffee": 5.5, "Mate": 2}, "title": "Drinks"},
        ),
        (
            "Plot a chart of Mon: 1, Tue: -2",
            "create_chart",
            {"chart_type": "bar", "data": {"Mon": 1, "Tue": -2}, "title": ""},
        ),
        (
            "Run `select count(*) from orders where a = 1, 2`",
            "query_database",
            {"query": "select count(*) from orders where a = 1, 2"},
        ),
        ("Which tables are in the database?", "describe_database", {}),
        (
            "Summarize in 80 characters: One. Two, and three.",
            "summarizer",
            {"text": "One. Two, and three.", "max_length": 80},
        ),
    ],
)
def test_a_whole_prompt_can_be_one_wish(text: str, tool: str, arguments: dict[str, Any]) -> None:
    offered: Any = dict.fromkeys([tool])
    [call] = plan(text, offered)
    assert (call.tool, call.arguments) == (tool, arguments)
    assert plan(text.replace("database", "shop"), {}) == []


@pytest.mark.parametrize(
    "text", ["Select a colour", "Draw a chart", "Show me the plot of the film", "Summarise it", "I chose from two"]
)
def test_other_prompts_ask_for_none_of_these(text: str) -> None:
    assert whole(text, ["create_chart", "query_database", "summarizer", "describe_database"]) is None
