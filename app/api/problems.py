"""Problem documents (RFC 9457): how every error leaves the server."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast, get_args

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from app.db import dump_json
from app.errors import (
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    ParleyError,
    RateLimited,
    Unauthenticated,
    UnknownField,
)
from app.wording import nearest, said

MEDIA_TYPE = "application/problem+json"
SHOWN_ERRORS = 20

# What people call our fields elsewhere; the first that the body has is offered.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "agent_id": ("agent",),
    "agent_name": ("agent",),
    "args": ("arguments",),
    "callback": ("callback_url",),
    "content": ("message",),
    "context": ("context_data",),
    "cron": ("schedule_expression",),
    "email": ("email_address",),
    "expression": ("schedule_expression",),
    "input": ("message", "arguments", "prompt"),
    "instruction": ("instructions",),
    "llm": ("model",),
    "max_tokens": ("model_settings",),
    "message": ("prompt",),
    "model_name": ("model",),
    "notification": ("notification_config",),
    "notifications": ("notification_config",),
    "notify": ("notification_config",),
    "params": ("arguments",),
    "pattern": ("pattern_type",),
    "prompt": ("message", "instructions"),
    "schedule": ("schedule_expression",),
    "slack_url": ("slack_webhook_url",),
    "system": ("instructions",),
    "systemPrompt": ("instructions",),
    "system_prompt": ("instructions",),
    "temperature": ("model_settings",),
    "text": ("message", "prompt"),
    "tool_name": ("tool", "name"),
    "trigger": ("trigger_config",),
    "type": ("task_type", "pattern_type", "kind"),
    "tz": ("timezone",),
    "user_id": ("user",),
    "webhook_url": ("callback_url", "slack_webhook_url"),
}


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="The field, as `a.b.0.c`.", examples=["limits.requests"])
    detail: str = Field(description="What would be right.", examples=["must be greater than or equal to 1"])


class Problem(BaseModel):
    """An error as RFC 9457 describes it. `code` is stable: branch on it, not on the texts."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:parley:problem:unknown_field",
                    "title": "The body or the query holds a field that does not exist here.",
                    "status": 422,
                    "code": "unknown_field",
                    "detail": "there is no field 'system_prompt' here: use instructions",
                    "field": "system_prompt",
                    "instance": "/agents",
                    "request_id": "0198c0de-0000-7000-8000-000000000001",
                }
            ]
        },
    )

    type: str = Field(description="Names the kind of problem: `urn:parley:problem:<code>`.")
    title: str = Field(description="What the code means.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="The stable code.")
    detail: str = Field(description="What went wrong this time.")
    instance: str | None = Field(default=None, description="The path that was called.")
    field: str | None = Field(default=None, description="The field at fault, if it was one.")
    request_id: str | None = Field(default=None, description="Also in the X-Request-ID header and in the logs.")
    errors: list[FieldProblem] | None = Field(default=None, description="Every field at fault, when there are several.")


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused.", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}},
    "5XX": {"description": "Failed.", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}},
}


def problem(
    error: ParleyError, *, path: str, request_id: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The response of an error."""
    document = {
        "type": f"urn:parley:problem:{error.code}",
        "title": type(error).meaning(),
        "status": error.status,
        "code": error.code,
        # The words of a fault inside are for the log.
        "detail": type(error).meaning() if error.status == 500 else error.detail,
        "instance": path,
        "field": error.field,
        "request_id": request_id,
        **error.extra,
    }
    kept = {key: value for key, value in document.items() if value is not None}
    return Response(dump_json(kept), error.status, {**_headers(error), **(headers or {})}, MEDIA_TYPE)


def _headers(error: ParleyError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RateLimited) and "limit" in error.extra:
        headers["RateLimit-Limit"] = str(error.extra["limit"])
        headers["RateLimit-Remaining"] = str(error.extra["remaining"])
        headers["RateLimit-Reset"] = str(math.ceil(error.extra["reset_seconds"]))
    return headers


# --- shapes that do not fit -----------------------------------------------------------------------


def misfit(error: ValidationError | RequestValidationError, declared: Collection[str] = ()) -> ParleyError:
    """A failed validation as one error that names the fields.

    Args:
        error: What did not fit.
        declared: The fields there are, to offer the right one for a synonym.
    """
    found = cast("Sequence[dict[str, Any]]", error.errors())
    first = found[0]
    if first["loc"][:1] == ("path",):
        return NotFound("there is nothing with that id")
    if first["type"] == "json_invalid":
        return MalformedBody("the body is not JSON")
    body = getattr(error, "body", None)
    problems = [(_field(each, body), _said(each, declared)) for each in found[:SHOWN_ERRORS]]
    unknown = next(
        (index for index, each in enumerate(found[:SHOWN_ERRORS]) if each["type"] == "extra_forbidden"), None
    )
    kind = InvalidRequest if unknown is None else UnknownField
    field, detail = problems[unknown or 0]
    errors = [{"field": name, "detail": text} for name, text in problems] if len(problems) > 1 else None
    return kind(detail if unknown is not None else f"{field}: {detail}", field=field, extra={"errors": errors})


def _field(error: Mapping[str, Any], body: Any) -> str:
    """Where it is, as the body was written: one value that stands for a list of one has no position."""
    place: tuple[Any, ...] = error["loc"]
    inner = place[1:] if place[:1] in (("body",), ("query",), ("header",), ("cookie",)) else place
    named: list[str] = []
    for part in inner:
        if not isinstance(part, int) or body is None or isinstance(body, list):
            named.append(str(part))
            body = _member(body, part)
    return ".".join(named) or "body"


def _member(value: Any, part: int | str) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _said(error: Mapping[str, Any], declared: Collection[str]) -> str:
    if error["type"] != "extra_forbidden":
        return said(error)
    name = str(error["loc"][-1])
    right = next((each for each in SYNONYMS.get(name, ()) if each in declared), None) or nearest(name, declared)
    return said(error) + (f": use {right}" if right else "")


# --- handlers -------------------------------------------------------------------------------------


def request_id_of(scope: Mapping[str, Any]) -> str | None:
    """The id that the edge gave to a request."""
    return scope.get("state", {}).get("request_id")


def answer(request: Request, error: ParleyError, headers: Mapping[str, str] | None = None) -> Response:
    """The response of an error that ended a request."""
    if error.status >= 500:
        structlog.stdlib.get_logger(__name__).error("request.failed", code=error.code, exc_info=error)
    return problem(error, path=request.url.path, request_id=request_id_of(request.scope), headers=headers)


async def _on_parley_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParleyError)
    return answer(request, error)


async def _on_misfit(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer(request, misfit(error, _declared(request.scope.get("route"))))


def _declared(route: Any) -> Collection[str]:
    """The names of the fields in the body of a route, those of the models inside included."""
    body = getattr(getattr(route, "body_field", None), "field_info", None)
    return fields_of(getattr(body, "annotation", None))


def fields_of(kind: Any) -> set[str]:
    """The names of a model's fields, those of the models inside included."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        return set(fields).union(*(fields_of(field.annotation) for field in fields.values()))
    return set[str]().union(*(fields_of(each) for each in get_args(kind)))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return answer(request, NotFound(f"there is nothing at {request.url.path}"), headers)
    if error.status_code == 405:
        return answer(request, MethodNotAllowed(f"{request.url.path} does not answer {request.method}"), headers)
    kind = MalformedBody if error.status_code == 400 else InvalidRequest
    return answer(request, kind(error.detail or None), headers)


def install(app: FastAPI) -> None:
    """Let every error leave as a problem document."""
    app.add_exception_handler(ParleyError, _on_parley_error)
    app.add_exception_handler(RequestValidationError, _on_misfit)
    app.add_exception_handler(HTTPException, _on_http_exception)
