"""Strict JSON: what is ambiguous, endless or can't be stored is refused before anything reads it."""

import json
import math
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NoReturn, cast
from urllib.parse import parse_qsl, unquote_to_bytes

from fastapi import APIRouter, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.types import Scope

from app.api.problems import RESPONSES
from app.errors import BodyTooLarge, ForbiddenText, MalformedBody, UnknownField, UnsupportedMediaType

MAX_DEPTH = 64
SAFE_DIGITS = 300
MAX_FORM_FIELDS = 20


def read_json(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        MalformedBody: when it is not JSON, nested too deeply, or holds a number JSON has not.
        ForbiddenText: when a string holds NUL or half of a surrogate pair, naming the field.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error.msg} at character {error.pos}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"the body can't be read: {error or 'it is nested too deeply'}") from error
    _check_depth(value)
    # Only an escape can bring in what is forbidden: raw NUL is no JSON, a raw surrogate no UTF-8.
    if b"\\u" in body:
        check_text(value)
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _whole(text: str) -> int:
    # No reader of stored JSON takes what is beyond a double; what is shorter than that needs no look.
    if len(text) > SAFE_DIGITS:
        _finite(text)
    return int(text)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise MalformedBody(f"the body is nested deeper than {MAX_DEPTH} levels")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def is_forbidden(text: str) -> bool:
    """Whether a text can't be stored: it holds NUL or a lone surrogate."""
    return "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text)


def check_text(value: Any, field: str = "") -> None:
    """Refuse forbidden text anywhere in a value.

    Raises:
        ForbiddenText: naming the field.
    """
    if isinstance(value, str):
        if is_forbidden(value):
            raise ForbiddenText(field=field or "body")
    elif isinstance(value, dict):
        for key, child in cast("dict[Any, Any]", value).items():
            check_text(str(key), field)
            check_text(child, f"{field}.{key}" if field else str(key))
    elif isinstance(value, list):
        for position, child in enumerate(cast("list[Any]", value)):
            check_text(child, f"{field}.{position}" if field else str(position))


def check_url(scope: Scope) -> None:
    """Refuse a path or query that holds NUL or is not UTF-8.

    Raises:
        ForbiddenText: naming which.
    """
    for field, raw in (("path", scope.get("raw_path") or b""), ("query", scope.get("query_string", b""))):
        if b"%" not in raw:
            continue
        try:
            text = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise ForbiddenText(f"the {field} is not UTF-8", field=field) from error
        if is_forbidden(text):
            raise ForbiddenText(f"the {field} holds a NUL character", field=field)


def check_query(request: Request, known: Collection[str]) -> None:
    """Refuse a query parameter that nobody reads: a filter that is mistyped would find everything.

    Raises:
        UnknownField: naming it.
    """
    for name in request.query_params:
        if name not in known:
            there = f"; there are {', '.join(sorted(known))}" if known else ""
            raise UnknownField(f"there is no query parameter {name[:64]!r} here{there}", field=name[:64])


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def raw_body(request: Request, limit: int) -> bytes:
    """The body as it came: what a signature is over.

    Raises:
        UnsupportedMediaType: it has a Content-Encoding.
        BodyTooLarge: it has more than `limit` bytes.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("send the body as it is, without a Content-Encoding")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(f"the body may have {limit} bytes")
    return bytes(body)


def joined_headers(request: Request) -> dict[str, str]:
    """Every header under its name in lower case; one that came twice holds both values with a comma between."""
    return {name: ",".join(request.headers.getlist(name)) for name in request.headers}


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form that a page sent.

    Raises:
        MalformedBody: when it is no form.
        ForbiddenText: when a field holds NUL.
    """
    try:
        form = dict(parse_qsl(body.decode(), errors="strict", max_num_fields=MAX_FORM_FIELDS))
    except UnicodeDecodeError as error:
        raise MalformedBody("the form is not UTF-8") from error
    except ValueError as error:
        raise MalformedBody(f"a form has at most {MAX_FORM_FIELDS} fields") from error
    check_text(form)
    return form


class StrictRequest(Request):
    """A request whose JSON was read by `read_json`."""

    value: Any = None

    async def json(self) -> Any:
        """The body's value."""
        return self.value


class StrictRoute(APIRoute):
    """A route whose body, where it declares one, is strict JSON, and whose query holds what it declares alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read query and body first, so that their faults have names."""
        handle, known = super().get_route_handler(), self._query_parameters()

        async def read_and_handle(request: Request) -> Response:
            if known is not None and request.scope["query_string"]:
                check_query(request, known)
            if self.body_field is None:
                return await handle(request)
            strict = StrictRequest(request.scope, request.receive)
            body = await strict.body()
            if body:
                if not is_json(request.headers.get("content-type", "")):
                    raise UnsupportedMediaType
                strict.value = read_json(body)
            return await handle(strict)

        return read_and_handle

    def _query_parameters(self) -> frozenset[str] | None:
        """The names it declares; None where any may come.

        That is a door of other systems, which reads the request itself, and a page, to which links lead that others have
        added to on their way.
        """
        if self.dependant.request_param_name or self.response_class is HTMLResponse:
            return None
        fields = get_flat_params(self.dependant)
        return frozenset(field.alias for field in fields if isinstance(field.field_info, params.Query))


def resource(tag: str) -> APIRouter:
    """The router of one resource: strict JSON in, problem documents for what is refused."""
    return APIRouter(tags=[tag], route_class=StrictRoute, responses=RESPONSES)
