import asyncio
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolReturnPart

from app.executor import Engine
from app.executor.research import Source, Sources, checked, with_sources
from tests.engine import World, tool, tools
from tests.executor.test_stops import cancel, die, started
from tests.executor.test_turns import calls, done, spawn, text

REPORT = "# Report\n\nA is so [1]. B is so [2]. C is so [3]. Nothing cited here."


async def fetch(context: Any, arguments: dict[str, Any]) -> Any:
    del context
    url = arguments["url"]
    return {"url": url, "title": f"Title of {url}", "status": 404 if "gone" in url else 200, "text": "..."}


class Script:
    """Plans two questions, fetches a page for each, reports; can stand still once before any of its answers."""

    def __init__(self, stall_at: int | None = None) -> None:
        self.stall_at = stall_at
        self.stalled = asyncio.Event()
        self.asked: list[str] = []

    async def __call__(self, messages: list[ModelMessage], info: Any) -> ModelResponse:
        if len(self.asked) == self.stall_at:
            self.stall_at = None
            self.stalled.set()
            await asyncio.sleep(60)
        answer, name = self._answer(messages, info)
        self.asked.append(name)
        return answer

    def _answer(self, messages: list[ModelMessage], info: Any) -> tuple[ModelResponse, str]:
        last = str(messages[-1].parts[-1].content)  # type: ignore[union-attr]
        if info.output_tools:
            return calls(("final_result", {"questions": ["What is A?", "What is B?"]})), "plan"
        if "What is" in last:
            which = "A" if "What is A" in last else "B"
            page = "https://a.example/" if which == "A" else "https://gone.example/"
            return calls(("fetch_url", {"url": page}), prefix=which), f"fetch {which}"
        if "Write the report" in last:
            assert not info.function_tools
            return text(REPORT), "report"
        return text("Found it."), "found"


STEPS = ["plan", "fetch A", "found", "fetch B", "found", "report"]


async def test_research_from_plan_to_report(world: World, engine: Engine) -> None:
    script = Script()
    async with tools_for_research():
        conversation = await spawn(world, engine, script, pattern="research", tools=["fetch_url"])
        row = await done(world, conversation)
    assert (row["state"], row["error"]) == ("completed", None)
    assert script.asked == STEPS
    _whole_report(row["result"])
    assert [(source["number"], source["fetched"]) for source in row["output"]["sources"]] == [(1, True), (2, False)]
    assert (await world.messages(conversation))[-1]["text"] == row["result"]
    types = await world.types(conversation)
    assert types.count("plan.updated") == 1
    assert types.count("source.added") == 2
    progress = [event.fields for event in await world.events(conversation) if event.type == "run.progress"]
    assert [(each["done"], each["total"]) for each in progress] == [(0, 2), (1, 2), (2, 2)]
    assert row["requests"] == len(STEPS)


def _whole_report(report: str) -> None:
    assert "A is so [1]. B is so [2]. [unverified]" in report
    assert "C is so [3]. [unverified]" in report
    assert "Nothing cited here.\n" in report
    assert "## Sources" in report


def tools_for_research() -> Any:
    return tools(tool("fetch_url", fetch))


@pytest.mark.parametrize("at", range(len(STEPS)))
async def test_research_goes_on_after_a_death(world: World, engine: Engine, at: int) -> None:
    script = Script(stall_at=at)
    async with tools_for_research():
        conversation = await spawn(world, engine, script, pattern="research", tools=["fetch_url"])
        run = await started(world, conversation)
        await asyncio.wait_for(script.stalled.wait(), 5)
        engine.spawn(await die(world, engine, run))
        row = await done(world, conversation)
    assert row["state"] == "completed"
    assert script.asked == STEPS
    _whole_report(row["result"])
    assert len(row["output"]["sources"]) == 2
    assert [each["number"] for each in row["output"]["sources"]] == [1, 2]
    assert (await world.types(conversation)).count("plan.updated") == 1


@pytest.mark.parametrize("at", range(len(STEPS)))
async def test_research_cancelled_in_any_phase_keeps_a_whole_history(world: World, engine: Engine, at: int) -> None:
    script = Script(stall_at=at)
    async with tools_for_research():
        conversation = await spawn(world, engine, script, pattern="research", tools=["fetch_url"])
        run = await started(world, conversation)
        await asyncio.wait_for(script.stalled.wait(), 5)
        before = await world.said(conversation)
        await cancel(engine, run, conversation)
        assert (await done(world, conversation))["state"] == "cancelled"
    after = await world.said(conversation)
    assert after == before, "nothing was said meanwhile, so nothing is added"


async def test_research_cancelled_while_it_reports_keeps_what_was_said(world: World, engine: Engine) -> None:
    script = Script()
    async with tools_for_research():
        conversation = await spawn(world, engine, script, pattern="research", tools=["fetch_url"], pause=0.05)
        run = await started(world, conversation)
        async with asyncio.timeout(10):
            while script.asked != STEPS:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await cancel(engine, run, conversation)
        row = await done(world, conversation)
    last = (await world.messages(conversation))[-1]
    assert (row["state"], last["role"], last["interrupted"]) == ("cancelled", "assistant", True)
    assert REPORT.startswith(last["text"])
    assert row["result"] == last["text"] != ""


def test_citations_are_checked_sentence_by_sentence() -> None:
    assert checked("So [1]. And [2]!\nNo [1][3]", {1, 2}) == "So [1]. And [2]!\nNo [1][3] [unverified]"
    assert checked("Known [9] [unverified].", {1}).count("[unverified]") == 1
    assert checked("", set()) == ""


def test_the_list_of_sources_is_added_once() -> None:
    sources = Sources({"https://a.example/": Source(1, "https://a.example/", "A", fetched=True)})
    report = with_sources("Text.", sources)
    assert report.endswith("- [1] A - https://a.example/")
    assert with_sources(report, sources) == report
    assert with_sources("Text.", Sources()) == "Text."


def test_a_document_that_was_read_is_a_source() -> None:
    """Each document is one source, named by where it comes from, else by its place in the API."""
    passages = [
        {"document_id": "d1", "title": "Handbook", "source": None},
        {"document_id": "d1", "title": "Handbook", "source": None},
        {"document_id": "d2", "title": "Prices", "source": "https://example.com/prices"},
    ]
    answer = ToolReturnPart("search_documents", {"query": "x", "results": passages}, "call")
    sources = Sources()
    sources.take([ModelRequest([answer])])
    assert sources.listed() == "[1] Handbook - /documents/d1\n[2] Prices - https://example.com/prices"
    assert sources.fetched == {1, 2}
