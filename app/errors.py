"""The error tree: every refusal and failure Parley names, with its stable code and HTTP status.

The first line of a class's docstring is the meaning of its code; `docs/errors.md` lists them all.
Nothing below the API raises an HTTP exception: an error carries its status, the edge writes the
problem document (RFC 9457).
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ParleyError(Exception):
    """Something went wrong that has no better name."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str | None = None,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what happened.

        Args:
            detail: One plain sentence for the person who reads it; the class's meaning when left out.
            field: The body or query field at fault, as `a.b.0.c`.
            retry_after: Seconds after which the same call may succeed.
            extra: Further members of the problem document.
        """
        self.detail = detail or self.meaning()
        self.field = field
        self.retry_after = retry_after
        self.extra = dict(extra or {})
        super().__init__(self.detail)

    @classmethod
    def meaning(cls) -> str:
        """The one-line meaning of this code: the first line of the class's docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]


# --- what the caller sent --------------------------------------------------------------------


class InvalidRequest(ParleyError):
    """The request is not valid: the named field says what would be right."""

    code = "invalid_request"
    status = 422


class UnknownField(InvalidRequest):
    """The body or the query holds a field that does not exist here."""

    code = "unknown_field"


class UnknownReference(InvalidRequest):
    """The body names something that does not exist in this workspace."""

    code = "unknown_reference"


class NotAvailable(InvalidRequest):
    """This version of Parley does not offer that yet."""

    code = "not_available"


class MalformedBody(ParleyError):
    """The body could not be read."""

    code = "malformed_body"
    status = 400


class InvalidCursor(ParleyError):
    """The cursor or position was not issued by this server."""

    code = "invalid_cursor"
    status = 400


class ForbiddenText(InvalidRequest):
    """Text must not hold NUL characters or lone surrogates."""

    code = "forbidden_text"


class InvalidSchedule(InvalidRequest):
    """The schedule can't be read or never comes due."""

    code = "invalid_schedule"


class InvalidTimezone(InvalidRequest):
    """The time zone is not in the IANA database."""

    code = "invalid_timezone"


class InvalidModel(InvalidRequest):
    """The model string names no provider that Parley knows."""

    code = "invalid_model"


class InvalidTool(InvalidRequest):
    """The tool's definition is not valid."""

    code = "invalid_tool"


class ImportNotAllowed(InvalidTool):
    """The code imports a module that registered functions may not use."""

    code = "import_not_allowed"


class InvalidArguments(InvalidRequest):
    """The arguments do not fit the tool's parameters."""

    code = "invalid_arguments"


class UnreadableDocument(InvalidRequest):
    """The file holds no text that can be read: the detail says why."""

    code = "unreadable_document"


class BodyTooLarge(ParleyError):
    """The body is larger than this server accepts."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(ParleyError):
    """The content type is not supported; send application/json."""

    code = "unsupported_media_type"
    status = 415


class MethodNotAllowed(ParleyError):
    """This path does not answer that method."""

    code = "method_not_allowed"
    status = 405


class NotFound(ParleyError):
    """There is nothing with that id or at that path in this workspace."""

    code = "not_found"
    status = 404


# --- who asks ---------------------------------------------------------------------------------


class Unauthenticated(ParleyError):
    """An API key is needed: send it as `Authorization: Bearer <key>`."""

    code = "unauthenticated"
    status = 401


class MissingScope(ParleyError):
    """The API key lacks the scope this call needs."""

    code = "missing_scope"
    status = 403


class ForeignOrigin(ParleyError):
    """A page of another site may not call this server."""

    code = "foreign_origin"
    status = 403


class ForeignHost(ParleyError):
    """With authentication off the Host must be a loopback name."""

    code = "foreign_host"
    status = 403


class WebhookRefused(ParleyError):
    """The webhook call was refused."""

    code = "webhook_refused"
    status = 401


class RateLimited(ParleyError):
    """Too many requests; wait and try again."""

    code = "rate_limited"
    status = 429
    retryable = True


# --- what state things are in -------------------------------------------------------------------


class Conflict(ParleyError):
    """The request does not fit the present state."""

    code = "conflict"
    status = 409


class Duplicate(Conflict):
    """Something with that name or key exists already."""

    code = "duplicate"


class MemoryFull(Conflict):
    """Its owner has as many memories as are kept; delete or replace some."""

    code = "memory_full"


class IdempotencyConflict(Conflict):
    """This Idempotency-Key was used with another body."""

    code = "idempotency_conflict"


class ConversationBusy(Conflict):
    """A run of this conversation is not finished and its policy is to reject."""

    code = "conversation_busy"


class ApprovalPending(Conflict):
    """The conversation waits for a decision; decide or cancel it first."""

    code = "approval_pending"


class AlreadyDecided(Conflict):
    """The approval has been decided, or has expired; that stands."""

    code = "already_decided"


class AlreadyFinished(Conflict):
    """The run has already ended; a retry is a new run."""

    code = "already_finished"


class NotFinished(Conflict):
    """The run has not ended yet."""

    code = "not_finished"


class UseFork(Conflict):
    """Only the conversation's latest run can go on from its failed step; fork it instead."""

    code = "use_fork"


class Disabled(Conflict):
    """The task, tool or agent is disabled."""

    code = "disabled"


# --- runs ---------------------------------------------------------------------------------------


class LeaseLost(ParleyError):
    """Another process took the run over; this one may write nothing more."""

    code = "lease_lost"


class RunFailed(ParleyError):
    """The run failed."""

    code = "run_failed"


class ModelKeyMissing(RunFailed):
    """The agent's model needs a provider key that is not set."""

    code = "model_key_missing"


class ModelFailed(RunFailed):
    """The model provider refused or broke the request."""

    code = "model_failed"


class ModelUnavailable(RunFailed):
    """The model provider is overloaded, limiting, failing or out of reach."""

    code = "model_unavailable"
    retryable = True


class BreakerOpen(ModelUnavailable):
    """The model provider failed again and again; it is asked again at the next probe, and the run waits for that."""

    code = "breaker_open"


class ContextTooLong(RunFailed):
    """The conversation no longer fits the model's context window."""

    code = "context_too_long"


class LimitReached(RunFailed):
    """The run reached one of its limits (requests, tokens, tool calls or money)."""

    code = "limit_reached"


class TimedOut(RunFailed):
    """The run used up its running time."""

    code = "timed_out"


class DeadlineExceeded(RunFailed):
    """The run's deadline passed before it ended."""

    code = "deadline_exceeded"


class QueueTimeout(RunFailed):
    """The run was not started in the time it was given."""

    code = "queue_timeout"


class Poison(RunFailed):
    """The run took down its worker too often and was stopped."""

    code = "poison"


class ApprovalExpired(RunFailed):
    """Nobody decided in time, and the agent's policy is to fail then."""

    code = "approval_expired"


class DependencyFailed(RunFailed):
    """A task that this one depends on did not end well."""

    code = "dependency_failed"


class EffectUnknown(RunFailed):
    """A tool that must not run twice was interrupted, and whether it took effect is unknown."""

    code = "effect_unknown"


class OutputInvalid(RunFailed):
    """The model did not produce an output of the asked shape."""

    code = "output_invalid"


class InputInvalid(RunFailed):
    """The task's input does not fit the input schema of its agent."""

    code = "input_invalid"


class AgentGone(RunFailed):
    """The agent of this conversation was deleted before the run began."""

    code = "agent_gone"


class CredentialUnreadable(RunFailed):
    """A credential that the run needs can't be opened with the configured encryption keys."""

    code = "credential_unreadable"
    retryable = True


# --- tools --------------------------------------------------------------------------------------


class ToolError(ParleyError):
    """The tool could not do what was asked; the model is told why."""

    code = "tool_error"
    status = 422


class EgressRefused(ToolError):
    """The address may not be reached from here."""

    code = "egress_refused"


class EgressFailed(ToolError):
    """The address could not be reached or did not answer properly."""

    code = "egress_failed"
    retryable = True


class ToolUnavailable(ToolError):
    """What the tool needs can't answer right now; the same call may succeed in a moment."""

    code = "tool_unavailable"
    retryable = True


class ResponseTooLarge(ToolError):
    """The answer is longer than this tool may read."""

    code = "response_too_large"


# --- the machine ----------------------------------------------------------------------------------


class DatabaseUnavailable(ParleyError):
    """PostgreSQL can't be reached; a change may have landed: repeat it with the same Idempotency-Key."""

    code = "database_unavailable"
    status = 503
    retryable = True


class Unavailable(ParleyError):
    """The server can't do that right now."""

    code = "unavailable"
    status = 503
    retryable = True


class Unreadable(ParleyError):
    """A sealed value can't be opened with the configured encryption keys."""

    code = "unreadable_secret"


class ConfigurationError(ParleyError):
    """A setting is wrong or missing."""

    code = "configuration"


class DeliveryFailed(ParleyError):
    """A notification could not be handed over; it will be tried again."""

    code = "delivery_failed"
    retryable = True


class DeliveryRefused(ParleyError):
    """The receiving side refused the notification for good."""

    code = "delivery_refused"


def all_errors() -> list[type[ParleyError]]:
    """Every error class, the root first; the documentation test walks this list."""
    found: list[type[ParleyError]] = [ParleyError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return found
