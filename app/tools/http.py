"""HTTP tools: a request described by templates, its credential, and what of the answer is the result."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, cast
from urllib.parse import urlencode, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field

from app.credentials import Access, redact
from app.egress import Response
from app.errors import EgressFailed, InvalidTool, ToolError, ToolUnavailable
from app.tools.definition import NAME_CHARACTERS, RESERVED, Definition, defined
from app.tools.schema import check_schema
from app.tools.template import MISSING, PLACEHOLDER, as_text, filled, filled_headers, filled_url, names_in
from app.tools.tool import DEFAULT_TIMEOUT_SECONDS, Risk, Tool, ToolContext

NAME = re.compile(rf"[a-zA-Z_][a-zA-Z0-9_-]{{2,{NAME_CHARACTERS - 1}}}")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SAFE_METHODS = frozenset({"GET", "HEAD"})
# What a person may say of a document's operation, and the document not.
OWN = ("risk", "idempotent", "timeout_seconds", "retries", "cost_usd", "response_path", "digest", "validate_responses")
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
MAX_ANSWER_BYTES = 1_000_000
MAX_ERROR_CHARACTERS = 500
MAX_TEMPLATE_CHARACTERS = 100_000
# What a service may say in passing; the same request may do better in a moment.
PASSING = frozenset({429, 502, 503, 504})
RETRIES = 2
STEP = r"""\.?([^.\[\]'"]++)|\[([0-9]{1,9}|\*)\]|\['([^']+)'\]"""
PATH_STEP, RESPONSE_PATH = re.compile(STEP), re.compile(rf"\$?(?:{STEP})*")


class HttpSpec(BaseModel):
    """One version of an HTTP tool, as it is stored; tools of OpenAPI documents are the same.

    `own` is what a person has said of a document's tool; it stays when the document is imported again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["http", "openapi"] = "http"
    name: str
    description: str
    method: str
    url: str
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    query: dict[str, Any] = Field(default_factory=dict[str, Any])
    body: Any = None
    body_format: Literal["json", "form"] = "json"
    # Of tools of OpenAPI documents: how lists and objects are written in the query, and which arguments of path and
    # headers are lists joined by commas.
    styles: dict[str, str] = Field(default_factory=dict[str, str])
    joined: list[str] = Field(default_factory=list[str])
    response_path: str | None = None
    credential: str | None = None
    digest: str | None = None
    parameters: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    validate_responses: bool = True
    risk: Risk
    idempotent: bool
    timeout_seconds: float
    retries: int = RETRIES
    cost_usd: Decimal = Decimal(0)
    own: dict[str, Any] = Field(default_factory=dict[str, Any])


def define_http(
    name: str,
    description: str,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    parameters: dict[str, Any] | None = None,
    risk: Risk | None = None,
    idempotent: bool | None = None,
    timeout_seconds: float | None = None,
    **others: Any,
) -> Definition:
    """Check an HTTP tool.

    Args:
        name: What the model calls it.
        description: What the model is told about it.
        url: Where to; placeholders may stand behind the host.
        method: The HTTP method.
        headers: Header templates.
        query: Query templates; one whose argument is not given is left out.
        body: A JSON template; text that is JSON is read as such.
        parameters: JSON schema of the arguments; made of the placeholders when left out.
        risk: What a call may do; anything but GET and HEAD is external at least.
        idempotent: Whether a call may be repeated; GET and HEAD when left out.
        timeout_seconds: How long one call may take, tries included.
        others: Further fields of `HttpSpec`.

    Raises:
        InvalidTool: naming the field.
    """
    method, body = method.upper(), _read_body(body)
    _check_request(name, description, method, url, headers or {})
    _check_path(others.get("response_path"))
    templates = [url, dict(headers or {}), dict(query or {}), body]
    parameters = parameters or _parameters_of(names_in(templates))
    check_schema(parameters, "parameters", error=InvalidTool)
    check_schema(others.get("output_schema"), "output_schema", of_object=False, error=InvalidTool)
    _check_names(parameters, url=url, headers=headers or {}, query=query or {}, body=body)
    return defined(
        HttpSpec(
            name=name,
            description=description,
            method=method,
            url=url,
            headers=dict(headers or {}),
            query=dict(query or {}),
            body=body,
            parameters=parameters,
            risk=risk_of(method, risk),
            idempotent=method in SAFE_METHODS if idempotent is None else idempotent,
            timeout_seconds=timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
            **others,
        )
    )


def risk_of(method: str, risk: Risk | None) -> Risk:
    """What a request may do at least, whatever is said of it."""
    if method in SAFE_METHODS:
        return risk or Risk.READ
    return Risk.MONEY if risk is Risk.MONEY else Risk.EXTERNAL


def _read_body(body: Any) -> Any:
    """The body's template; JSON text becomes its value, so that arguments can't break out of their strings."""
    if not isinstance(body, str) or PLACEHOLDER.fullmatch(body):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _check_request(name: str, description: str, method: str, url: str, headers: Mapping[str, str]) -> None:
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InvalidTool(
            "name: 3 to 64 letters, digits, _ and -, beginning with a letter, and no reserved word", field="name"
        )
    if not 5 <= len(description) <= 1024:
        raise InvalidTool("description: must have 5 to 1024 characters", field="description")
    if method not in METHODS:
        raise InvalidTool(f"method: one of {', '.join(METHODS)}", field="method")
    check_url(url)
    for header in headers:
        if header.lower() in SECRET_HEADERS:
            raise InvalidTool(f"headers: {header} belongs into a credential, which is kept sealed", field="headers")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", header):
            raise InvalidTool(f"headers: {header!r} is no name of a header", field="headers")
        if not headers[header].isascii():
            raise InvalidTool(f"headers: only ASCII can stand in {header}", field="headers")


def _check_path(path: str | None) -> None:
    if path is not None and not RESPONSE_PATH.fullmatch(path):
        raise InvalidTool(
            f"response_path: {path[:100]!r} is no path such as $.items[0].name, $['a b'] or $.items[*].id",
            field="response_path",
        )


def check_url(url: str) -> None:
    """Refuse what is no URL of a service.

    Raises:
        InvalidTool: saying what it should be.
    """
    try:
        parts, parsed = urlsplit(url), httpx.URL(PLACEHOLDER.sub("x", url))
    except (ValueError, httpx.InvalidURL):
        raise InvalidTool("url: not a valid URL", field="url") from None
    if parts.scheme not in ("http", "https") or not parsed.host:
        raise InvalidTool("url: an http or https URL with a host", field="url")
    if parsed.userinfo:
        raise InvalidTool("url: user names and passwords belong into a credential", field="url")
    if "{" in parts.netloc:
        raise InvalidTool("url: the host can't be a placeholder", field="url")


def _parameters_of(names: set[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in sorted(names)},
        "required": sorted(names),
        "additionalProperties": False,
    }


def _check_names(parameters: Mapping[str, Any], **templates: Any) -> None:
    known: dict[str, Any] = parameters.get("properties") or {}
    for field, template in templates.items():
        if len(json.dumps(template)) > MAX_TEMPLATE_CHARACTERS:
            raise InvalidTool(f"{field}: longer than {MAX_TEMPLATE_CHARACTERS} characters", field=field)
        for name in sorted(names_in(template)):
            if name not in known:
                raise InvalidTool(f"{field}: {{{name}}} is none of the parameters", field=field)


# --- calling --------------------------------------------------------------------------------------


def http_tool(spec: HttpSpec) -> Tool:
    """The tool of a stored version."""

    async def call(context: ToolContext, arguments: dict[str, Any]) -> Any:
        return await execute(spec, context, arguments)

    return Tool(
        name=spec.name,
        description=spec.description,
        parameters=spec.parameters,
        risk=spec.risk,
        idempotent=spec.idempotent,
        call=call,
        timeout_seconds=spec.timeout_seconds,
        kind=spec.kind,
        credential=spec.credential,
        output_schema=spec.output_schema if spec.validate_responses else None,
        digest=spec.digest,
        retries=spec.retries,
        cost_usd=spec.cost_usd,
    )


async def execute(spec: HttpSpec, context: ToolContext, arguments: dict[str, Any]) -> Any:
    """Make the request and pick its result; no secret of its credential is in it, nor in an error.

    Raises:
        InvalidArguments: naming the argument that can't stand where it belongs.
        ToolError: the service refused, failed, or answered what is no result.
    """
    access = await _access(spec, context)
    try:
        answer = await _request(spec, context, arguments, access)
        if answer.status == 401 and access.token_no is not None:
            access = await _access(spec, context, stale=access.token_no)
            answer = await _request(spec, context, arguments, access)
        result = result_of(spec, answer)
    except ToolError as error:
        raise type(error)(redact(error.detail, access.secrets), retry_after=error.retry_after) from None
    return redact(result, access.secrets)


async def _access(spec: HttpSpec, context: ToolContext, *, stale: int | None = None) -> Access:
    if spec.credential is None:
        return Access()
    return await context.credentials.access(context.workspace_id, spec.credential, stale=stale)


async def _request(spec: HttpSpec, context: ToolContext, arguments: dict[str, Any], access: Access) -> Response:
    headers = {"accept": "application/json, text/*;q=0.9, */*;q=0.5"}
    placed = _joined(spec, arguments)
    headers |= {name.lower(): value for name, value in filled_headers(spec.headers, placed).items()}
    content = _content(spec, arguments, headers)
    if spec.method not in SAFE_METHODS:
        headers.setdefault("idempotency-key", str(context.effect_key))
    headers |= {name.lower(): value for name, value in access.headers.items()}
    return await context.egress.fetch(
        spec.method,
        _url(spec, arguments, access),
        headers=headers,
        content=content,
        timeout_seconds=spec.timeout_seconds,
        max_bytes=MAX_ANSWER_BYTES,
        follow_redirects=spec.method in SAFE_METHODS,
    )


def _content(spec: HttpSpec, arguments: dict[str, Any], headers: dict[str, str]) -> bytes | None:
    if spec.body is None:
        return None
    body = filled(spec.body, arguments)
    if body is MISSING:
        return None
    if spec.body_format == "form":
        headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return urlencode(_pairs(body)).encode()
    # A text that is no JSON and no single placeholder is sent as it reads.
    if isinstance(spec.body, str) and not PLACEHOLDER.fullmatch(spec.body):
        headers.setdefault("content-type", "text/plain; charset=utf-8")
        return str(body).encode()
    headers.setdefault("content-type", "application/json")
    return json.dumps(body, ensure_ascii=False).encode()


SEPARATORS = {"csv": ",", "ssv": " ", "pipes": "|"}


def _joined(spec: HttpSpec, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as they stand in path and headers: lists and objects joined by commas, where the tool says so."""
    lists = {name: _flat(arguments[name]) for name in spec.joined if isinstance(arguments.get(name), list | dict)}
    return arguments | {name: ",".join(as_text(one) for one in each) for name, each in lists.items()}


def _pairs(values: Mapping[str, Any], styles: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Names with their values; a list is its name several times, where no style says otherwise."""
    return [pair for name, value in values.items() for pair in _styled(name, value, (styles or {}).get(name))]


def _styled(name: str, value: Any, style: str | None) -> list[tuple[str, str]]:
    if style in ("deep", "members") and isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        own = {key: key if style == "members" else f"{name}[{key}]" for key in members}
        return [(own[key], as_text(one)) for key, each in members.items() for one in _each(each)]
    if style in SEPARATORS and isinstance(value, list | dict):
        return [(name, SEPARATORS[style].join(as_text(one) for one in _flat(value)))]
    return [(name, as_text(one)) for one in ([value] if style == "json" else _each(value))]


def _each(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _flat(value: Any) -> list[Any]:
    """The items of a list; an object's names and values in turn."""
    if isinstance(value, dict):
        return [one for member in cast("dict[str, Any]", value).items() for one in member]
    return _each(value)


def _url(spec: HttpSpec, arguments: dict[str, Any], access: Access) -> str:
    url, _, fragment = filled_url(spec.url, _joined(spec, arguments)).partition("#")
    del fragment
    added = urlencode([*_pairs(filled(spec.query, arguments), spec.styles), *access.query.items()])
    return f"{url}{'&' if '?' in url else '?'}{added}" if added else url


# --- the answer -----------------------------------------------------------------------------------


def result_of(spec: HttpSpec, answer: Response) -> Any:
    """What of an answer is the result.

    Raises:
        ToolError: for an answer that is a failure, or has nothing at the path.
    """
    if answer.status >= 300:
        said = answer.text.strip()[:MAX_ERROR_CHARACTERS]
        said = f"the service answered {answer.status}{': ' if said else ''}{said}"
        if answer.status in PASSING:
            raise ToolUnavailable(said, retry_after=answer.retry_after)
        raise ToolError(said)
    return picked(_value(answer), spec.response_path) if spec.response_path else _value(answer)


def _value(answer: Response) -> Any:
    kind = answer.content_type
    if not answer.body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return answer.json()
        except EgressFailed as error:
            raise ToolError(f"the service answered {answer.status} with JSON that can't be read") from error
    if kind.startswith("text/") or kind in ("", "application/xml", "application/yaml") or kind.endswith("+xml"):
        return answer.text
    raise ToolError(f"the service answered {answer.status} with {kind}, which is no text ({len(answer.body)} bytes)")


def picked(value: Any, path: str) -> Any:
    """What stands at a path such as `$.items[0].name`; `[*]` is every item.

    Raises:
        ToolError: when there is nothing.
    """
    steps = [next(part for part in found if part) for found in PATH_STEP.findall(path.removeprefix("$"))]
    return _picked(value, steps, path)


def _picked(value: Any, steps: list[str], path: str) -> Any:
    for position, step in enumerate(steps):
        if isinstance(value, list):
            items = cast("list[Any]", value)
            if step == "*":
                return [_picked(item, steps[position + 1 :], path) for item in items]
            if re.fullmatch("[0-9]{1,9}", step) and int(step) < len(items):
                value = items[int(step)]
                continue
        elif isinstance(value, dict) and step in value:
            value = cast("dict[str, Any]", value)[step]
            continue
        raise ToolError(f"response_path: the answer has nothing at {path} (no {step})")
    return value
