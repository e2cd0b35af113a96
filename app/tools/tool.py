"""What a tool is, and what it may ask of the run that calls it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from app.credentials import Credentials
from app.egress import Egress
from app.errors import InvalidArguments
from app.knowledge.library import Library
from app.knowledge.memories import Memories
from app.settings import Settings
from app.tools.approval import Rules
from app.tools.mcp_sessions import Sessions

DEFAULT_TIMEOUT_SECONDS = 5.0
MAX_RETRIES = 5


class Risk(StrEnum):
    """What a call may do, for policies; from harmless to dear."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    CODE = "code"
    MONEY = "money"


class ToolContext(Protocol):
    """The door from a tool to the run that calls it; the executor fills it."""

    @property
    def workspace_id(self) -> UUID:
        """The workspace the call belongs to."""
        ...

    @property
    def conversation_id(self) -> UUID | None:
        """The conversation, None for a call by hand."""
        ...

    @property
    def run_id(self) -> UUID | None:
        """The run, None for a call by hand."""
        ...

    @property
    def effect_key(self) -> UUID:
        """Names this call for ever: the same after a recovery, so outside systems can drop a repeat."""
        ...

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        ...

    @property
    def egress(self) -> Egress:
        """The guarded HTTP client."""
        ...

    @property
    def credentials(self) -> Credentials:
        """The credentials, opened at the moment of a call."""
        ...

    @property
    def sessions(self) -> Sessions:
        """The process's sessions with MCP servers."""
        ...

    @property
    def documents(self) -> Library:
        """The documents of the workspace."""
        ...

    @property
    def memories(self) -> Memories:
        """What is remembered about the agent, the task and the person of this call."""
        ...

    async def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Tell whoever watches the run how far the call is."""
        ...

    async def propose(self, patch: dict[str, Any]) -> None:
        """Hand the application a proposed change of its state."""
        ...

    async def keep(self, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        """Keep a file as an artifact; answers its id, name, media type and size."""
        ...

    @property
    def model_name(self) -> str:
        """The model that `complete` asks; `demo` is the offline one, which can't write."""
        ...

    async def complete(self, prompt: str) -> str:
        """Ask the run's model once, without history or tools."""
        ...

    async def notify(self, text: str, channel: str | None) -> str:
        """Plan a delivery; answers in words what was planned."""
        ...

    async def schedule_task(self, prompt: str, schedule_expression: str, timezone: str) -> str:
        """Store a scheduled task; answers in words what was stored."""
        ...

    @property
    def tools(self) -> "Mapping[str, Tool]":
        """The tools that code run by this call may call; none for a call that code made itself."""
        ...

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call one of `tools`, under its own ledger row and policy; the call's clock stands still meanwhile.

        Raises:
            ToolError: when the call failed or was refused.
        """
        ...


ParkKind = Literal["tool", "effect", "question"]


class Park(Exception):
    """A call that can't go on by itself: the run waits for a person. The executor carries it out."""

    def __init__(self, kind: ParkKind, payload: dict[str, Any]) -> None:
        """Say what is asked.

        Args:
            kind: tool (may it run?), effect (did it happen?) or question (what is the answer?).
            payload: What the person is shown.
        """
        self.kind: ParkKind = kind
        self.payload = payload
        super().__init__(kind)


ToolCall = Callable[[ToolContext, dict[str, Any]], Awaitable[Any]]


def always(settings: Settings) -> bool:
    """Offered whatever the settings are."""
    del settings
    return True


@dataclass(frozen=True)
class Tool:
    """Something an agent may call.

    Attributes:
        name: What the model calls it.
        description: What the model is told about it.
        parameters: JSON schema of the arguments.
        risk: What a call may do.
        idempotent: Whether a call whose outcome is unknown may simply be repeated.
        call: Validates the arguments and does the work; the result is a JSON value.
        timeout_seconds: How long one call may take.
        available: Whether these settings allow it to be offered.
        kind: builtin, extension, or how it was registered.
        credential: The credential it needs, by name.
        output_schema: JSON schema that a result is held to after the call.
        digest: What the run's model is asked of a long result; its answer is the result then.
        retries: How often a call of an idempotent tool is made again, within its time, after an error that may pass.
        approval: Its own rules; an agent's may be stricter, never laxer.
        cost_usd: What each finished call costs beside the model requests in it.
        asks: Whether a person is asked first where neither it nor the agent has a rule.
        check: Refuses arguments that no call can be made with, before a person is asked about them.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    risk: Risk
    idempotent: bool
    call: ToolCall
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    available: Callable[[Settings], bool] = always
    kind: str = "builtin"
    credential: str | None = None
    output_schema: dict[str, Any] | None = None
    digest: str | None = None
    retries: int = 0
    approval: Rules = ()
    cost_usd: Decimal = Decimal(0)
    asks: bool = False
    check: Callable[[dict[str, Any]], object] | None = None


class Arguments(BaseModel):
    """The arguments of a built-in tool: a subclass declares them, anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


A = TypeVar("A", bound=Arguments)


def parameters_of(model: type[Arguments]) -> dict[str, Any]:
    """The JSON schema of an arguments model, without what a model has no use for."""
    schema = model.model_json_schema()
    properties = {name: _untitled(each) for name, each in schema["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": schema.get("required", []),
        "additionalProperties": False,
    }


def validated(model: type[A], work: Callable[[ToolContext, A], Awaitable[Any]]) -> ToolCall:
    """A call that reads its arguments into `model` before it does `work`."""

    async def call(context: ToolContext, arguments: dict[str, Any]) -> Any:
        return await work(context, read_arguments(model, arguments))

    return call


def read_arguments(model: type[A], arguments: dict[str, Any]) -> A:
    """The arguments as their model.

    Raises:
        InvalidArguments: naming the argument at fault.
    """
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidArguments(f"{field}: {_reason(first['type'], first['msg'], model)}", field=field) from error


def _reason(kind: str, message: str, model: type[Arguments]) -> str:
    if kind == "extra_forbidden":
        return f"there is no such argument (there are: {', '.join(model.model_fields)})"
    if kind == "missing":
        return "is missing"
    return message.removeprefix("Value error, ")


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}
