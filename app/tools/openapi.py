"""OpenAPI documents as tools: each operation becomes the templates of one request."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, cast
from urllib.parse import urljoin

import yaml

from app.errors import InvalidTool
from app.tools.definition import Definition, cleaned, name_within
from app.tools.http import METHODS, define_http
from app.tools.openapi_schema import Json, Writer, wrong
from app.tools.plain_yaml import Loader, check_written, check_yaml

MAX_DOCUMENT_BYTES = 5_000_000
MAX_VALUES = 1_000_000  # Of a document in YAML, its aliases written out.
MAX_PATHS = 10_000
MAX_OPERATIONS = 1000  # Those that can't be a tool included.
MAX_ARGUMENTS = 500  # Of one operation.
MAX_MEDIA_TYPES = 20  # Of one body; those behind them are not looked at.
MAX_TEXT = 2_000  # Of a path, an operationId, or the URL of a server.
MAX_ANSWER_NODES = 2_000  # Of what one operation answers; a larger schema is left away.
# What may be wrong with one operation alone.
TOLD = ("url", "headers", "query", "body", "parameters", "name")
DESCRIPTION_CHARACTERS = 1024
IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})
# How a list or an object stands in a query, by its `style` and `explode`; else its name stands there several times.
STYLES = {
    ("form", False): "csv",
    ("spaceDelimited", False): "ssv",
    ("pipeDelimited", False): "pipes",
    ("deepObject", True): "deep",
    ("deepObject", False): "deep",
}
PATH_NAME = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Skipped:
    """An operation that can't be a tool."""

    operation: str
    reason: str


@dataclass
class Import:
    """What a document holds."""

    definitions: list[Definition] = field(default_factory=list[Definition])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    names: set[str] = field(default_factory=set[str])  # Of all its tools, those that are not wanted included.


def read_document(text: str | bytes) -> Json:
    """A document of its JSON or YAML text; slow for large ones, so not on the event loop.

    Raises:
        InvalidTool: when it is too long, or is no OpenAPI 3.0 or 3.1.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise wrong(f"longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _read_yaml(text)
    return check_document(value)


def _read_yaml(text: str | bytes) -> Any:
    try:
        check_yaml(text, aliases=True)
        value = yaml.load(text, Loader=Loader)  # noqa: S506 - one of the safe loaders
        check_written(value, MAX_VALUES)
        return value
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or str(error)
        raise wrong(f"neither JSON nor YAML{where}: {said[:200]}") from None


def check_document(value: Any) -> Json:
    """A value, provided it is an OpenAPI 3.0 or 3.1 document.

    Raises:
        InvalidTool: saying what it is instead.
    """
    if not isinstance(value, dict):
        raise wrong("not an OpenAPI document: it is no object")
    document = cast("Json", value)
    version = str(document.get("openapi") or "")
    if not version.startswith(("3.0", "3.1")):
        found = f"swagger {document['swagger']}" if "swagger" in document else f"openapi {version or 'is missing'}"
        raise wrong(f"OpenAPI 3.0 or 3.1 is needed; {found}")
    if not isinstance(document.get("paths"), dict):
        raise wrong("it has no paths")
    return document


def read_operations(
    document: Json,
    *,
    name: str,
    base_url: str | None = None,
    include: Sequence[str] | None = None,
    source: str | None = None,
    **fields: Any,
) -> Import:
    """The tools of a document's operations.

    Args:
        document: What `read_document` answered.
        name: Begins the tools' names.
        base_url: Stands before the paths; the document's own server when left out.
        include: The operations wanted; all when left out.
        source: Where the document was fetched; a relative server stands relative to it.
        fields: Further fields of each tool, such as `credential`.

    Raises:
        InvalidTool: naming what is wrong with the document, or with `include`.
    """
    found, known, writer = Import(), set[str](), Writer(document)
    for operation in _operations(document):
        known |= {operation.id}
        if include is not None and operation.id not in include:
            found.names.add(name_within(name, operation.id))
            continue
        try:
            found.definitions.append(_tried(writer, document, operation, name, base_url, source, fields))
            found.names.add(name_within(name, operation.id))
        except Unusable as error:
            found.skipped.append(Skipped(operation.id, str(error)))
        if len(found.definitions) + len(found.skipped) > MAX_OPERATIONS:
            raise wrong(f"more than {MAX_OPERATIONS} operations; choose some with include")
    for wanted in include or ():
        if wanted not in known:
            raise InvalidTool(f"include: the document has no operation {wanted!r}", field="include")
    if not found.definitions:
        reasons = "; ".join(f"{each.operation}: {each.reason}" for each in found.skipped[:3])
        raise wrong(f"it has no operation that can be a tool{': ' if reasons else ''}{reasons}")
    _check_unique(found.definitions)
    return found


class Unusable(Exception):
    """An operation that can't be a tool, with the reason."""


def _tried(writer: Writer, document: Json, operation: "Operation", *others: Any) -> Definition:
    """The operation's tool; what is wrong with one operation alone spares the others."""
    try:
        return _definition(writer, document, operation, *others)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unusable("its description is not what OpenAPI says") from error
    except RecursionError as error:
        raise Unusable("it holds values that are nested too deeply") from error
    except InvalidTool as error:
        if error.field not in ("document", *TOLD):
            raise
        raise Unusable(error.detail) from error


@dataclass(frozen=True)
class Operation:
    """One operation of a document, with what its path says of it."""

    method: str
    path: str
    spec: Json
    shared: Json

    @property
    def id(self) -> str:
        """Its operationId, or one made of method and path."""
        own = _text(self.spec.get("operationId"))[:MAX_TEXT]
        return own or cleaned(f"{self.method.lower()}{self.path[:MAX_TEXT]}").rstrip("_")


def _operations(document: Json) -> Iterator[Operation]:
    paths, writer = cast("Json", document["paths"]), Writer(document)
    if len(paths) > MAX_PATHS:
        raise wrong(f"more than {MAX_PATHS} paths")
    for path, item in paths.items():
        if str(path).startswith("x-"):
            continue
        shared = writer.resolved(item, [])
        for method in METHODS:
            spec = shared.get(method.lower())
            if isinstance(spec, dict):
                yield Operation(method, str(path), cast("Json", spec), shared)


def _check_unique(definitions: Sequence[Definition]) -> None:
    seen: set[str] = set()
    for definition in definitions:
        name = str(definition.spec["name"])
        if name in seen:
            raise wrong(f"two operations would both be the tool {name}")
        seen.add(name)


# --- one operation --------------------------------------------------------------------------------


@dataclass
class Request:
    """The templates of a request, and the arguments that fill them."""

    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    query: Json = field(default_factory=dict[str, Any])
    body: Any = None
    body_format: str = "json"
    styles: dict[str, str] = field(default_factory=dict[str, str])
    joined: list[str] = field(default_factory=list[str])
    properties: Json = field(default_factory=dict[str, Any])
    required: list[str] = field(default_factory=list[str])

    def argument(self, name: str, place: str, schema: Json, *, required: bool) -> str:
        """Take an argument in; answers its placeholder."""
        own = re.sub(r"\W", "_", name, flags=re.ASCII)
        own = own if own[:1].isalpha() or own[:1] == "_" else f"_{own}"
        if len(name) > MAX_TEXT:
            raise Unusable(f"the name of an argument is longer than {MAX_TEXT} characters")
        if len(self.properties) == MAX_ARGUMENTS:
            raise Unusable(f"it has more than {MAX_ARGUMENTS} arguments")
        if own in self.properties:
            own = f"{place}_{own}"
        while own in self.properties:
            own = f"{own}_{len(self.properties)}"
        self.properties[own] = schema
        if required:
            self.required.append(own)
        return f"{{{own}}}"


def _definition(
    writer: Writer,
    document: Json,
    operation: Operation,
    name: str,
    base_url: str | None,
    source: str | None,
    fields: Json,
) -> Definition:
    writer.begin()
    if len(operation.path) > MAX_TEXT:
        raise Unusable(f"its path is longer than {MAX_TEXT} characters")
    request = Request(_server(document, operation, base_url, source) + operation.path)
    _add_parameters(writer, operation, request)
    _add_body(writer, operation, request)
    parameters = {"type": "object", "properties": request.properties, "required": request.required}
    define = partial(
        define_http,
        name_within(name, operation.id),
        _description(operation),
        request.url,
        method=operation.method,
        headers=request.headers,
        query=request.query,
        body=request.body,
        body_format=request.body_format,
        styles=request.styles,
        joined=request.joined,
        parameters=parameters | {"additionalProperties": False},
        kind="openapi",
        **fields,
    )
    try:
        return define(output_schema=_answer_schema(document, operation))
    except InvalidTool as error:
        if error.field != "output_schema":
            raise
        return define()  # What it answers is described wrongly; that does not keep anybody from calling it.


def _description(operation: Operation) -> str:
    found = [_text(operation.spec.get(each)) for each in ("summary", "description")]
    said = [each[:DESCRIPTION_CHARACTERS].strip() for each in found]
    text = "\n".join(dict.fromkeys(each for each in said if each)) or f"{operation.method} {operation.path}"
    return text[:DESCRIPTION_CHARACTERS] if len(text) >= 5 else f"{operation.method} {operation.path}: {text}"


def _server(document: Json, operation: Operation, base_url: str | None, source: str | None) -> str:
    servers: list[Json] = (
        operation.spec.get("servers") or operation.shared.get("servers") or document.get("servers") or []
    )
    server: Json = servers[0] if servers and not base_url else {"url": base_url or ""}
    variables: dict[str, Json] = server.get("variables") or {}
    if len(str(server["url"])) > MAX_TEXT:
        raise Unusable(f"the URL of its server is longer than {MAX_TEXT} characters")
    url = PATH_NAME.sub(lambda found: str(variables.get(found[1], {}).get("default", "")), str(server["url"]))
    url = urljoin(source, url) if source else url
    if not url.startswith(("http://", "https://")):
        raise InvalidTool("base_url: the document names no server; say where the service is", field="base_url")
    return url.rstrip("/")


def _parameters(writer: Writer, operation: Operation) -> list[tuple[str, str, Json]]:
    """Place, name and description of each parameter; the operation's own take the place of its path's."""
    own: list[Any] = operation.spec.get("parameters") or []
    shared: list[Any] = operation.shared.get("parameters") or []
    if len(own) + len(shared) > MAX_ARGUMENTS:
        raise Unusable(f"it has more than {MAX_ARGUMENTS} parameters")
    found = (writer.resolved(given, []) for given in [*shared, *own])
    listed = {(str(each.get("in")), str(each.get("name"))): each for each in found}
    return [(place, name, each) for (place, name), each in listed.items()]


def _add_parameters(writer: Writer, operation: Operation, request: Request) -> None:
    placeholders: dict[str, str] = {}
    for place, name, parameter in _parameters(writer, operation):
        if place == "header" and name.lower() in IGNORED_HEADERS:
            continue
        if place == "cookie":
            if parameter.get("required"):
                raise Unusable(f"the cookie {name} is required")
            continue
        required = bool(parameter.get("required")) or place == "path"
        placeholder = request.argument(name, place, _parameter_schema(writer, parameter), required=required)
        if place == "path":
            placeholders[name] = placeholder
        elif place == "query":
            request.query[name] = placeholder
            if style := _style(parameter):
                request.styles[name] = style
        else:
            request.headers[name] = placeholder
        if place != "query":
            request.joined.append(placeholder[1:-1])
    request.url = PATH_NAME.sub(lambda found: _in_path(found[1], placeholders, request), request.url)


def _in_path(name: str, placeholders: dict[str, str], request: Request) -> str:
    if name in placeholders:
        return placeholders[name]
    placeholders[name] = request.argument(name, "path", {"type": "string"}, required=True)
    return placeholders[name]


def _parameter_schema(writer: Writer, parameter: Json) -> Json:
    contents: Json = parameter.get("content") or {}
    given: Any = parameter.get("schema") or _first(contents) or {}
    schema = writer.schema(given)
    if description := _text(parameter.get("description")):
        schema = {"description": description[:DESCRIPTION_CHARACTERS]} | schema
    return schema


def _style(parameter: Json) -> str | None:
    """How a parameter of the query is written, where that is not the usual way."""
    if parameter.get("content"):
        return "json"
    style = str(parameter.get("style") or "form")
    explode = bool(parameter.get("explode", style == "form"))
    if (style, explode) == ("form", True):
        return "members" if _object_of(parameter.get("schema")).get("type") == "object" else None
    return STYLES.get((style, explode))


def _first(contents: Json) -> Any:
    return next((cast("Json", each).get("schema") for each in contents.values()), None)


def _add_body(writer: Writer, operation: Operation, request: Request) -> None:
    if not operation.spec.get("requestBody"):
        return
    body = writer.resolved(operation.spec["requestBody"], [])
    offered: Json = body.get("content") or {}
    contents = dict(islice(offered.items(), MAX_MEDIA_TYPES))
    kind = next((each for each in contents if _is_json(each)), None)
    if kind is None and "application/x-www-form-urlencoded" in contents:
        kind, request.body_format = "application/x-www-form-urlencoded", "form"
    if kind is None:
        raise Unusable(f"its body is neither JSON nor a form ({', '.join(contents) or 'nothing'})")
    schema, required = _object_of(writer.schema(contents[kind].get("schema") or {})), bool(body.get("required"))
    properties: Json = schema.get("properties") or {}
    if not properties or "oneOf" in schema or "anyOf" in schema:
        if request.body_format == "form":
            raise Unusable("its form has no fields")
        request.body = request.argument("body", "body", schema, required=required)
        return
    needed: list[str] = schema.get("required") or [] if required else []
    request.body = {
        name: request.argument(name, "body", cast("Json", each), required=name in needed)
        for name, each in properties.items()
        if not (isinstance(each, dict) and cast("Json", each).get("readOnly"))
    }


def _answer_schema(document: Json, operation: Operation) -> Json | None:
    """What the operation answers when all is well; None where that is not said, or not in so many words."""
    writer = Writer(document, nodes=MAX_ANSWER_NODES)
    try:
        answers: Json = operation.spec.get("responses") or {}
        said = next((answers[code] for code in ("200", "201", "2XX", "default") if code in answers), None)
        contents: Json = writer.resolved(said or {}, []).get("content") or {}
        listed = islice(contents.items(), MAX_MEDIA_TYPES)
        given = next((each.get("schema") for kind, each in listed if _is_json(kind)), None)
        return _object_of(writer.schema(given or {})) or None
    except (InvalidTool, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None


def _object_of(schema: Any) -> Json:
    return cast("Json", schema) if isinstance(schema, dict) else dict[str, Any]()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_json(media_type: str) -> bool:
    kind = media_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")
