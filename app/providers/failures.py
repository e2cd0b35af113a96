"""What a failed model request means for a run: the library's exceptions as errors of `app.errors`."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, cast

import httpx2
from pydantic_ai import exceptions as ai
from pydantic_ai.messages import ModelResponse

from app.errors import (
    BreakerOpen,
    ContextTooLong,
    LimitReached,
    ModelFailed,
    ModelUnavailable,
    OutputInvalid,
    ParleyError,
    TimedOut,
)
from app.providers.names import DEMO
from app.redaction import MASK, redact

_MAX_MESSAGE = 300

# What keys look like when a provider or proxy repeats one in its answer.
_KEYS = re.compile(
    r"(?i)\b(?:sk|pk|rk|gsk|xai|hf|pplx)[-_][\w*.-]{6,}|\bAIza[\w-]{10,}|\bparley_\w+|\beyJ[\w.-]{20,}"
    r"|(?<=bearer )\S+|(?<=key=)[^\s&\"']+|(?<=key: )[^\s,\"']+|(?<=key provided: )[^\s,\"']+"
)

_Rule = tuple[type[BaseException], type[ParleyError], str]

# The first rule whose type fits decides; subclasses stand before their parents.
_RULES: tuple[_Rule, ...] = (
    (ai.ModelContextWindowExceededError, ContextTooLong, "the conversation does not fit the model's context window"),
    (ai.ModelAuthenticationError, ModelFailed, "the provider refused the key, or its rights for this model"),
    (ai.ModelNotFoundError, ModelFailed, "the provider does not know this model"),
    (ai.ModelQuotaExceededError, ModelFailed, "the provider account's quota or credit is used up"),
    (ai.ModelRequestRejectedError, ModelFailed, "the provider rejected the request"),
    (ai.ModelRateLimitError, ModelUnavailable, "the provider limits the rate of requests"),
    (ai.ModelOverloadedError, ModelUnavailable, "the provider is overloaded"),
    (ai.ModelUnavailableError, ModelUnavailable, "the provider is unavailable"),
    (ai.ModelServerError, ModelUnavailable, "the provider failed"),
    (ai.ModelTimeoutError, ModelUnavailable, "the provider did not answer in time"),
    (ai.ModelRequestTimeout, ModelUnavailable, "the provider did not answer in time"),
    (ai.ModelConnectionError, ModelUnavailable, "the connection to the provider failed"),
    (httpx2.TransportError, ModelUnavailable, "the connection to the provider failed"),
    (ai.UsageLimitExceeded, LimitReached, "the run reached one of its limits"),
    (ai.OutputTokenLimitExceeded, LimitReached, "the answer was cut off by the model's output token limit"),
    (ai.ContentFilterError, ModelFailed, "the provider's content filter stopped the answer"),
    (ai.RunTimedOut, TimedOut, "the run used up its running time"),
    (ai.UserError, ModelFailed, "the model can't be used like this"),
)

_RETRYABLE_STATUS = frozenset({408, 409, 425, 429})


def classify(exc: BaseException, secrets: Iterable[str] = ()) -> ParleyError:
    """The error of ours that a failed model request means, with no secret in its text.

    Args:
        exc: What `Agent.run` raised.
        secrets: Values to blank out beside everything that looks like a key.
    """
    if isinstance(exc, ParleyError):
        return exc
    if isinstance(exc, BaseExceptionGroup):
        return _of_group(cast("BaseExceptionGroup[BaseException]", exc), tuple(secrets))
    kind, phrase = _kind(exc)
    if kind is ParleyError:
        # A defect of ours: the log has the traceback, its message may hold anything.
        return ParleyError(f"The run stopped on an unexpected error ({type(exc).__name__}).")
    # Blanked before it is cut: half a key is no longer recognised.
    detail = _sentence(exc, phrase, _blanked(_message(exc), secrets)[:_MAX_MESSAGE])
    return kind(detail, retry_after=getattr(exc, "retry_after", None))


def cost_of(response: ModelResponse) -> Decimal | None:
    """What one response cost in USD; None when its price is unknown, never a guess."""
    if response.model_name == DEMO and response.provider_name in (None, "function"):
        return Decimal(0)
    return response.usage.cost


def _blanked(text: str, secrets: Iterable[str]) -> str:
    """The text with these secrets, and whatever looks like a key, blanked out."""
    return _KEYS.sub(MASK, redact(text, secrets))


def _kind(exc: BaseException) -> tuple[type[ParleyError], str]:
    for kind, error, phrase in _RULES:
        if isinstance(exc, kind):
            return error, phrase
    if isinstance(exc, ai.UnexpectedModelBehavior):
        return _misbehaviour(exc)
    if isinstance(exc, ai.ModelAPIError):
        return _by_status(getattr(exc, "status_code", None))
    return ParleyError, ""


def _misbehaviour(exc: ai.UnexpectedModelBehavior) -> tuple[type[ParleyError], str]:
    if "output retries" in exc.message or "final_result" in exc.message:
        return OutputInvalid, "the model did not produce an output of the asked shape"
    if "ended without content" in exc.message:
        return ModelUnavailable, "the answer broke off before it began"
    return ModelFailed, "the model misbehaved"


def _by_status(status: int | None) -> tuple[type[ParleyError], str]:
    if status is not None and (status in _RETRYABLE_STATUS or status >= 500):
        return ModelUnavailable, "the provider failed"
    return ModelFailed, "the provider reported an error"


def _of_group(group: BaseExceptionGroup[BaseException], secrets: tuple[str, ...]) -> ParleyError:
    """All fallbacks failed: one that was asked and may succeed later decides, otherwise the first."""
    found = [classify(each, secrets) for each in group.exceptions]
    later = sorted((error for error in found if error.retryable), key=lambda error: isinstance(error, BreakerOpen))
    chosen = later[0] if later else found[0]
    if len(found) == 1 or not isinstance(group, ai.FallbackExceptionGroup):
        return chosen
    details = " ".join(error.detail for error in found)
    return type(chosen)(f"All {len(found)} models failed. {details}", retry_after=chosen.retry_after)


def _sentence(exc: BaseException, phrase: str, message: str) -> str:
    model = getattr(exc, "model_name", None)
    start = f"{model}: {phrase}" if model else f"{phrase[:1].upper()}{phrase[1:]}"
    text = f"{start}: {message}" if message else start
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _message(exc: BaseException) -> str:
    """The provider's own words, without the body around them."""
    body = getattr(exc, "body", None)
    told = _told(body) if isinstance(exc, ai.ModelAPIError) else None
    status = getattr(exc, "status_code", None)
    text = told or ("" if status else str(getattr(exc, "message", "") or exc))
    text = " ".join(text.partition(" Consider raising")[0].split())
    return f"{status} {text}".strip() if status else text


def _told(body: object) -> str | None:
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return None
    fields = cast("dict[str, Any]", body)
    inner = fields.get("error")
    if isinstance(inner, dict | str):
        return _told(cast(object, inner))
    message = fields.get("message")
    return message if isinstance(message, str) else None
