"""What /tools takes: one body for every kind, and which of its fields each kind has."""

import asyncio
import re
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, model_validator

from app.api.shapes import Body
from app.errors import InvalidRequest, UnknownField
from app.sandbox import Limits
from app.tools import Risk
from app.tools.approval import check_policy
from app.tools.definition import Definition, defined
from app.tools.http import OWN as OWN_OF_OPERATION
from app.tools.http import HttpSpec, define_http
from app.tools.mcp import OWN, McpSpec
from app.tools.python import PythonSpec, define
from app.tools.tool import MAX_RETRIES

REVERSE = "async def reverse_string(text: str) -> str:\n    return text[::-1]"
READ_FROM_CODE = {"parameters": "the function's signature", "output_schema": "the function's return annotation"}
COMMON = ("name", "description", "risk", "idempotent", "timeout_seconds")
PYTHON = (*COMMON, "code", "limits", "allowed_imports", "tools")
REQUEST = ("method", "url", "headers", "query", "body", "body_format", "response_path", "credential", "digest")
HTTP = (*COMMON, *REQUEST, "parameters", "output_schema", "validate_responses", "retries", "cost_usd")
IMPORT = (
    "name",
    "description",
    "document",
    "url",
    "base_url",
    "include",
    "credential",
    "timeout_seconds",
    "validate_responses",
)
MCP = (*COMMON, "url", "credential", "trust_hints")
OPENAPI = (*HTTP, "styles", "joined")
# What belongs to the tool's name, not to a version of it.
NO_CONTENT = frozenset({"kind", "enabled", "approval"})
# What a stored tool consists of, and what makes one.
FIELDS: dict[str, tuple[str, ...]] = {"python": PYTHON, "http": HTTP, "openapi": OPENAPI, "mcp": OWN}
MAKING = FIELDS | {"openapi": IMPORT, "mcp": MCP}
REQUIRED = {"python": "code", "http": "url", "openapi": None, "mcp": "url"}
IMPORT_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{1,30}")


class RegisterBody(Body):
    """A Python function to be registered."""

    name: str = Field(description="3 to 31 letters, digits and underscores.", examples=["reverse_string"])
    description: str = Field(
        description="What the model is told, 5 to 120 characters.", examples=["Reverse the characters in a string"]
    )
    code: str = Field(description="10 to 2000 characters holding one `async def`.", examples=[REVERSE])


class Content(Body):
    """What a tool may consist of beside its name."""

    risk: Risk | None = Field(
        default=None, description="What a call may do; code, or read for GET and HEAD and external for other methods."
    )
    idempotent: bool | None = Field(
        default=None, description="Whether an interrupted call may simply be repeated; so are python, GET and HEAD."
    )
    timeout_seconds: float | None = Field(default=None, gt=0, le=120, description="How long a call may take.")
    limits: Limits | None = Field(default=None, description="python: what one call may use.")
    allowed_imports: list[str] | None = Field(
        default=None, description="python: modules it may import; all harmless ones when null."
    )
    tools: list[str] | None = Field(
        default=None, max_length=50, description="python: tools that its code may call, as async functions."
    )
    method: str | None = Field(default=None, max_length=10, description="http: the method; GET when left out.")
    url: str | None = Field(
        default=None, max_length=4000, description="http: where to; `{name}` stands for an argument.", examples=[None]
    )
    headers: dict[str, str] | None = Field(default=None, max_length=50, description="http: headers, templates too.")
    query: dict[str, Any] | None = Field(default=None, max_length=100, description="http: the query, templates too.")
    body: Any = Field(default=None, description='http: a JSON template; exactly "{x}" keeps the type of x.')
    body_format: Literal["json", "form"] | None = Field(default=None, description="http: how the body is sent.")
    response_path: str | None = Field(
        default=None, max_length=500, description="http: what of the answer is the result, as `$.items[0].name`."
    )
    credential: str | None = Field(default=None, max_length=100, description="http: the name of a credential.")
    digest: str | None = Field(
        default=None, max_length=4000, description="http: a prompt with which the model digests a long answer."
    )
    parameters: dict[str, Any] | None = Field(
        default=None, description="http: JSON schema of the arguments; made of the placeholders when left out."
    )
    output_schema: dict[str, Any] | None = Field(default=None, description="http: JSON schema of the result.")
    validate_responses: bool | None = Field(
        default=None,
        description="http: fail calls whose result does not fit `output_schema`; no for tools of OpenAPI documents "
        "when left out.",
    )
    retries: int | None = Field(
        default=None,
        ge=0,
        le=MAX_RETRIES,
        description="http: how often a call of an idempotent tool is made again, within its time, when the service is "
        "away or busy; 2 when left out.",
    )
    cost_usd: Decimal | None = Field(
        default=None, ge=0, le=1000, description="http: what a finished call costs; it counts as the run's cost."
    )
    approval: Any = Field(
        default=None,
        description="The tool's own approval policy: `auto`, `ask`, `deny`, a rule, or a list of rules. Agents can be "
        "stricter, never laxer. In force at once, also for runs under way; an empty list takes it away.",
        examples=["ask"],
    )

    @property
    def given(self) -> dict[str, Any]:
        """What was sent and means something; that `allowed_imports` is null means something, too."""
        sent = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in sent.items() if value is not None or name == "allowed_imports"}


class ToolBody(Content):
    """A tool to be made."""

    kind: Literal["python", "http", "openapi", "mcp"] = Field(description="python, http, openapi or mcp.")
    name: str = Field(
        description="3 to 31 letters, digits and underscores; up to 64 for http.", examples=["reverse_string"]
    )
    description: str = Field(
        description="What the model is told, from 5 characters on.", examples=["Reverse the characters in a string"]
    )
    code: str | None = Field(
        default=None,
        description="python: 10 to 2000 characters; the tool is the function of its name, or the only one.",
        examples=[REVERSE],
    )

    document: dict[str, Any] | str | None = Field(default=None, description="openapi: the document, or its `url`.")
    base_url: str | None = Field(default=None, max_length=4000, description="openapi: where the service is.")
    include: list[str] | None = Field(default=None, max_length=1000, description="openapi: the operationIds wanted.")
    trust_hints: bool | None = Field(
        default=None, description="mcp: believe what the server says of the risk of its tools; else all are external."
    )

    @model_validator(mode="before")
    @classmethod
    def _fits_its_kind(cls, data: Any) -> Any:
        if isinstance(data, dict):
            _check_kind(data)  # pyright: ignore[reportUnknownArgumentType]
        return data  # pyright: ignore[reportUnknownVariableType]


def _check_kind(data: dict[str, Any]) -> None:
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in REQUIRED:
        raise InvalidRequest("kind is required, and must be python, http, openapi or mcp", field="kind")
    refuse_foreign(kind, data, MAKING)
    needed = REQUIRED[kind]
    if needed and data.get(needed) is None:
        raise InvalidRequest(f"{needed} is required for {kind}", field=needed)
    if kind in ("openapi", "mcp") and not IMPORT_NAME.fullmatch(str(data.get("name"))):
        raise InvalidRequest("name: 2 to 31 letters, digits, _ and -, beginning with a letter", field="name")


def refuse_foreign(kind: str, data: dict[str, Any], fields: dict[str, tuple[str, ...]] = FIELDS) -> None:
    """Refuse fields that belong to another kind.

    Raises:
        InvalidRequest: naming the field, and where its value comes from.
        UnknownField: naming the field.
    """
    for name in data:
        if kind == "python" and name in READ_FROM_CODE:
            raise InvalidRequest(f"{name} are read from {READ_FROM_CODE[name]}", field=name)
        if name in {*PYTHON, *HTTP, *IMPORT, *MCP} and name not in fields[kind]:
            raise UnknownField(f"a tool of the kind {kind} has no {name}", field=name)


class ToolPatch(Content):
    """Changes to a registered tool."""

    description: str | None = Field(default=None, description="What the model is told.")
    code: str | None = Field(default=None, description="New code: a new version, in force at once.", examples=[REVERSE])
    enabled: bool | None = Field(
        default=None, description="A disabled tool is not offered to any run, whatever it pinned."
    )


Spec = PythonSpec | HttpSpec | McpSpec
SPECS: dict[str, type[Spec]] = {"python": PythonSpec, "mcp": McpSpec}


def spec_of(stored: dict[str, Any]) -> Spec:
    """The content of a stored version."""
    return SPECS.get(stored["kind"], HttpSpec).model_validate(stored)


async def definition_of(kind: str, values: dict[str, Any]) -> Definition:
    """Check a definition; this runs the type checker, so no transaction may be open meanwhile."""
    if kind == "python":
        return await define(**values)
    return await asyncio.to_thread(define_http, **values, kind=kind)  # Large schemas take a while to check.


async def changed(spec: Spec, changes: ToolPatch) -> Definition | None:
    """The definition with these changes, None without any.

    Raises:
        InvalidTool: naming the field.
    """
    given = {name: value for name, value in changes.given.items() if name not in NO_CONTENT}
    if not given:
        return None
    refuse_foreign(spec.kind, given)
    if isinstance(spec, McpSpec):  # The rest is the server's to say.
        return defined(spec.model_copy(update=given | {"own": spec.own | given}))
    kept = {name: getattr(spec, name) for name in FIELDS[spec.kind]}
    if "limits" in given:
        kept["timeout_seconds"] = None  # It follows from the limits, unless it is given too.
    if "method" in given:
        kept |= {"risk": None, "idempotent": None}  # So do these from the method.
    if spec.kind == "openapi":
        kept["own"] = spec.own | {name: value for name, value in given.items() if name in OWN_OF_OPERATION}
    return await definition_of(spec.kind, kept | given)


def check_approval(body: Content, definition: Definition) -> None:
    """Refuse a policy that is none, or one for arguments that the tool can't have.

    Raises:
        InvalidRequest: naming the field.
    """
    if body.approval is not None:
        check_policy(body.approval, "approval", definition.spec["parameters"])
