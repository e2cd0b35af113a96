"""The real provider classes, over HTTP, against the loopback provider."""

import asyncio
import threading
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_ai import Agent, StructuredDict
from pydantic_ai.messages import AgentStreamEvent, ModelResponse, PartDeltaEvent, TextPartDelta, ThinkingPart
from pydantic_ai.run import AgentRunResult

from app.errors import ContextTooLong, ModelFailed, ModelUnavailable, ParleyError
from app.providers import Providers, clients
from app.settings import Settings
from tests.provider_server import KEY, ProviderServer

PROTOCOLS = {
    "openai-chat": "chat",
    "openai-responses": "responses",
    "anthropic": "messages",
    "google": "gemini",
    "ollama": "chat",
}

both_ways = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
each_provider = pytest.mark.parametrize("provider", PROTOCOLS)


def calculator(expression: str) -> str:
    """Calculate."""
    assert expression == "6*7"
    return "42"


def current_time(timezone: str = "UTC") -> str:
    """Tell the time."""
    return f"noon in {timezone}"


def reverse_string(text: str) -> str:
    """Reverse."""
    return text[::-1]


@dataclass
class Answered:
    result: AgentRunResult[Any]
    deltas: list[str]

    @property
    def responses(self) -> list[ModelResponse]:
        return [message for message in self.result.all_messages() if isinstance(message, ModelResponse)]


async def ask(
    server: ProviderServer, model: str, *, streamed: bool = True, output: Any = str, fallbacks: list[str] | None = None
) -> Answered:
    deltas: list[str] = []

    async def listen(_: object, events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                deltas.append(event.delta.content_delta)

    providers = Providers(server.settings())
    try:
        agent = Agent(
            await providers.load(model, fallbacks or []),
            tools=[calculator, current_time, reverse_string],
            output_type=output,
        )
        result = await agent.run("hello there", event_stream_handler=listen if streamed else None)
        return Answered(result, deltas)
    finally:
        await providers.aclose()


async def failure(server: ProviderServer, model: str, *, streamed: bool = True) -> ParleyError:
    with pytest.raises(Exception) as caught:
        await ask(server, model, streamed=streamed)
    return Providers(server.settings()).failure(caught.value)


@both_ways
@each_provider
async def test_text_arrives_with_its_usage(server: ProviderServer, provider: str, streamed: bool) -> None:
    answered = await ask(server, f"{provider}:text", streamed=streamed)
    assert answered.result.output == "The loopback provider heard: hello there"
    usage = answered.responses[-1].usage
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)
    assert (len(answered.deltas) > 2) is streamed
    assert [request.protocol for request in server.asked] == [PROTOCOLS[provider]]
    if streamed:
        assert server.asked[0].stream


@both_ways
@each_provider
async def test_a_tool_is_called_and_its_result_used(server: ProviderServer, provider: str, streamed: bool) -> None:
    answered = await ask(server, f"{provider}:tool-calculator", streamed=streamed)
    assert "42" in answered.result.output
    assert len(server.asked) == 2


@both_ways
@each_provider
async def test_three_tools_in_a_row_and_at_once(server: ProviderServer, provider: str, streamed: bool) -> None:
    row = await ask(server, f"{provider}:three-tools", streamed=streamed)
    assert len(row.responses) == 4
    once = await ask(server, f"{provider}:parallel-tools", streamed=streamed)
    assert [len(response.tool_calls) for response in once.responses] == [3, 0]
    for answered in (row, once):
        assert "42" in answered.result.output
        assert "noon in UTC" in answered.result.output


@both_ways
@pytest.mark.parametrize("provider", ["openai-chat", "openai-responses", "anthropic", "google"])
async def test_thinking_is_kept_apart(server: ProviderServer, provider: str, streamed: bool) -> None:
    answered = await ask(server, f"{provider}:thinking", streamed=streamed)
    thoughts = [part.content for part in answered.responses[-1].parts if isinstance(part, ThinkingPart)]
    assert thoughts == ["First I weigh the question."]
    assert answered.result.output == "The loopback provider heard: hello there"


@both_ways
@each_provider
async def test_output_of_a_given_shape(server: ProviderServer, provider: str, streamed: bool) -> None:
    shape = {"type": "object", "properties": {"verdict": {"type": "string"}}, "required": ["verdict"]}
    output = StructuredDict(shape, name="judgement")
    answered = await ask(server, f"{provider}:text", streamed=streamed, output=output)
    assert answered.result.output == {"verdict": "hello there"}


@both_ways
@each_provider
@pytest.mark.parametrize(
    ("fault", "kind", "wait"),
    [
        ("error-429", ModelUnavailable, 1),
        ("error-500", ModelUnavailable, None),
        ("error-503", ModelUnavailable, 1),
        ("error-401", ModelFailed, None),
        ("error-404", ModelFailed, None),
        ("error-context", ContextTooLong, None),
        ("cut", ModelUnavailable, None),
    ],
)
async def test_faults_become_our_errors(
    server: ProviderServer, provider: str, streamed: bool, fault: str, kind: type[ParleyError], wait: float | None
) -> None:
    found = await failure(server, f"{provider}:{fault}", streamed=streamed)
    assert type(found) is kind, found.detail
    assert found.retry_after == wait
    assert KEY not in found.detail
    # The run engine repeats, the provider's library does not.
    assert len(server.asked) == 1


@each_provider
async def test_an_error_inside_a_stream(server: ProviderServer, provider: str) -> None:
    found = await failure(server, f"{provider}:stream-error")
    assert type(found) is ModelUnavailable, found.detail


@pytest.mark.parametrize("provider", ["openai-chat", "openai-responses", "anthropic"])
async def test_used_up_credit_is_not_retried(server: ProviderServer, provider: str) -> None:
    assert type(await failure(server, f"{provider}:error-quota")) is ModelFailed


async def test_anthropic_overload(server: ProviderServer) -> None:
    assert type(await failure(server, "anthropic:error-529")) is ModelUnavailable


@each_provider
async def test_a_server_that_is_away(provider: str, server: ProviderServer) -> None:
    away = "http://127.0.0.1:9"
    addresses = {f"{name}_base_url": away for name in ("openai", "anthropic", "google", "ollama")}
    providers = Providers(server.settings(**addresses))
    with pytest.raises(Exception) as caught:
        await Agent(await providers.load(f"{provider}:text")).run("hello")
    await providers.aclose()
    assert type(providers.failure(caught.value)) is ModelUnavailable


async def test_a_silent_server_times_out(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "TIMEOUT", 0.1)
    assert type(await failure(server, "openai-chat:slow-5000ms")) is ModelUnavailable


@both_ways
async def test_the_fallback_answers(server: ProviderServer, streamed: bool) -> None:
    answered = await ask(server, "openai-chat:error-503", fallbacks=["anthropic:text"], streamed=streamed)
    assert answered.responses[-1].provider_name == "anthropic"
    assert [request.protocol for request in server.asked] == ["chat", "messages"]


async def test_a_fault_that_strikes_once(server: ProviderServer) -> None:
    assert type(await failure(server, "openai-chat:error-429-once+three-tools")) is ModelUnavailable
    answered = await ask(server, "openai-chat:error-429-once+three-tools")
    assert len(answered.responses) == 4


async def test_one_client_per_provider_and_credential(server: ProviderServer) -> None:
    providers = Providers(server.settings())
    first, second = providers.model("openai-chat:text"), providers.model("openai-responses:text")
    assert first.client is second.client  # type: ignore[attr-defined]
    await providers.aclose()
    assert first.client.is_closed()  # type: ignore[attr-defined]


async def test_openai_means_responses_at_openai_and_chat_elsewhere(server: ProviderServer) -> None:
    here = Providers(server.settings())
    assert type(here.model("openai:x")).__name__ == "OpenAIChatModel"
    there = Providers(Settings.of(openai_api_key="k"))
    assert type(there.model("openai:x")).__name__ == "OpenAIResponsesModel"
    assert type(there.model("openai-chat:x")).__name__ == "OpenAIChatModel"
    await here.aclose()
    await there.aclose()


async def test_an_ollama_address_needs_no_path(server: ProviderServer) -> None:
    providers = Providers(server.settings(ollama_base_url=server.url))
    assert str(providers.model("ollama:x").base_url).rstrip("/") == f"{server.url}/v1"
    await providers.aclose()


async def test_loading_keeps_the_event_loop_free(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    connect = clients._CONNECTORS["anthropic"]

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return connect(*arguments)

    monkeypatch.setitem(clients._CONNECTORS, "anthropic", noted)
    providers = Providers(server.settings())
    await asyncio.gather(*(providers.load("anthropic:text") for _ in range(3)))
    await providers.aclose()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
