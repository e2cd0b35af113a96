from decimal import Decimal

import httpx2
import pytest
from pydantic_ai import exceptions as ai
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.usage import RequestUsage

from app.errors import (
    ContextTooLong,
    LimitReached,
    ModelFailed,
    ModelKeyMissing,
    ModelUnavailable,
    OutputInvalid,
    ParleyError,
    TimedOut,
)
from app.providers import Providers, classify, cost_of
from app.settings import Settings


def http(category: type[ai.ModelAPIError] | None, status: int, **more: object) -> ai.ModelHTTPError:
    return ai.ModelHTTPError.for_category(category, status_code=status, model_name="m", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (http(ai.ModelRateLimitError, 429), ModelUnavailable),
        (http(ai.ModelOverloadedError, 529), ModelUnavailable),
        (http(ai.ModelUnavailableError, 503), ModelUnavailable),
        (http(ai.ModelServerError, 500), ModelUnavailable),
        (http(None, 408), ModelUnavailable),
        (http(None, 502), ModelUnavailable),
        (http(None, 418), ModelFailed),
        (http(ai.ModelQuotaExceededError, 429), ModelFailed),
        (http(ai.ModelAuthenticationError, 401), ModelFailed),
        (http(ai.ModelNotFoundError, 404), ModelFailed),
        (http(ai.ModelRequestRejectedError, 400), ModelFailed),
        (http(ai.ModelContextWindowExceededError, 400), ContextTooLong),
        (ai.ModelConnectionError("m", "refused"), ModelUnavailable),
        (ai.ModelTimeoutError("m", "read timed out"), ModelUnavailable),
        (ai.ModelRequestTimeout("m", 3), ModelUnavailable),
        (ai.ModelAPIError("m", "odd"), ModelFailed),
        (httpx2.ReadError("reset"), ModelUnavailable),
        (ai.UsageLimitExceeded("The next request would exceed the request_limit of 1"), LimitReached),
        (ai.OutputTokenLimitExceeded("cut"), LimitReached),
        (ai.IncompleteToolCall("cut"), LimitReached),
        (ai.ContentFilterError("no"), ModelFailed),
        (ai.UnexpectedModelBehavior("Exceeded maximum output retries (1)"), OutputInvalid),
        (ai.UnexpectedModelBehavior("Streamed response ended without content or tool calls"), ModelUnavailable),
        (ai.UnexpectedModelBehavior("Tool 'x' exceeded max retries count of 1"), ModelFailed),
        (ai.UserError("no such feature"), ModelFailed),
        (ai.RunTimedOut("slow"), TimedOut),
        (ModelKeyMissing(), ModelKeyMissing),
        (KeyError("ours"), ParleyError),
        (TimeoutError(), ParleyError),
        (ConnectionRefusedError(), ParleyError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.__name__,
)
def test_each_exception_has_its_error(exc: BaseException, kind: type[ParleyError]) -> None:
    found = classify(exc)
    assert type(found) is kind
    assert found.detail


def test_the_wait_a_provider_asks_for_is_kept() -> None:
    assert classify(http(ai.ModelRateLimitError, 429, headers={"Retry-After": "7"})).retry_after == 7


def test_the_providers_own_words_are_told_without_the_body() -> None:
    body = {"error": {"message": "Slow down.", "type": "requests"}, "debug": "internal"}
    found = classify(http(ai.ModelRateLimitError, 429, body=body))
    assert found.detail == "m: the provider limits the rate of requests: 429 Slow down."


@pytest.mark.parametrize(
    "secret",
    ["sk-abcDEF0123456789", "AIzaSyA-0123456789abc", "parley_x1_secretpart", "Bearer abc.def.ghi", "key=hunter2secret"],
)
def test_what_looks_like_a_key_is_blanked(secret: str) -> None:
    found = classify(http(ai.ModelAuthenticationError, 401, body={"message": f"Wrong credentials: {secret}"}))
    assert secret.rpartition(" ")[2].rpartition("=")[2] not in found.detail
    assert "***" in found.detail


def test_configured_keys_are_blanked_whatever_they_look_like() -> None:
    providers = Providers(Settings.of(openai_api_key="plainword"))
    found = providers.failure(http(ai.ModelAuthenticationError, 401, body={"message": "No: plainword is wrong"}))
    assert "plainword" not in found.detail


def test_a_key_at_the_cut_is_blanked_too() -> None:
    found = classify(
        http(ai.ModelAuthenticationError, 401, body={"message": "x" * 285 + " topsecretvalue"}), ["topsecretvalue"]
    )
    assert "tops" not in found.detail


def test_a_defect_of_ours_shows_its_name_only() -> None:
    assert classify(ValueError("sk-abcdefgh and more")).detail == "The run stopped on an unexpected error (ValueError)."


def test_when_all_fallbacks_fail_one_that_may_recover_decides() -> None:
    limited = http(ai.ModelRateLimitError, 429, headers={"retry-after": "3"})
    group = ai.FallbackExceptionGroup("all failed", [http(ai.ModelAuthenticationError, 401), limited])
    found = classify(group)
    assert type(found) is ModelUnavailable
    assert found.retry_after == 3
    assert found.detail.startswith("All 2 models failed.")
    assert "refused the key" in found.detail


def test_when_no_fallback_can_recover_the_first_decides() -> None:
    first, second = http(ai.ModelContextWindowExceededError, 400), http(ai.ModelAuthenticationError, 401)
    assert type(classify(ai.FallbackExceptionGroup("all failed", [first, second]))) is ContextTooLong


def test_costs_are_known_unknown_or_nothing() -> None:
    def response(model: str, provider: str | None, cost: Decimal | None) -> ModelResponse:
        return ModelResponse([TextPart("x")], model_name=model, provider_name=provider, usage=RequestUsage(cost=cost))

    assert cost_of(response("gpt-6-luna", "openai", Decimal("0.01"))) == Decimal("0.01")
    assert cost_of(response("qwen3", "ollama", None)) is None
    assert cost_of(response("demo", "ollama", None)) is None
    assert cost_of(response("demo", None, None)) == 0
