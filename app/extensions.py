"""Trusted extensions: Python of the operator's own, with packages and services, loaded when a process starts.

An extension is a module that `PARLEY_EXTENSIONS` names, or an installed package's entry point in the group `parley`.
What it marks with `@tool`, `@channel`, `@provider` and `@verifier`, and each `AgentSpec` it holds, joins the registries: under the
same ledger, policies and limits as everything else. It is trusted: nothing keeps it from what this process may do.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, TypeVar, cast, overload

import structlog
from pydantic import create_model
from pydantic_core import to_jsonable_python

from app.agents import AgentSpec, offer
from app.errors import (
    ConfigurationError,
    DeliveryFailed,
    DeliveryRefused,
    InvalidArguments,
    ParleyError,
    ToolError,
    ToolUnavailable,
)
from app.notifications.channel import Address, Channel, Envelope, Means, SendResult
from app.notifications.config import NotificationConfig
from app.notifications.registry import add_channel
from app.providers import add_provider
from app.settings import Settings
from app.tools import Risk, Tool, ToolCall, ToolContext
from app.tools.approval import check_policy, rules_of
from app.tools.registry import INSTALLED
from app.tools.schema import check_schema
from app.tools.tool import DEFAULT_TIMEOUT_SECONDS, MAX_RETRIES, Arguments, parameters_of, read_arguments
from app.verifiers import Verifier, add_verifier

__all__ = [
    "Address",
    "AgentSpec",
    "DeliveryFailed",
    "DeliveryRefused",
    "Envelope",
    "InvalidArguments",
    "Means",
    "NotificationConfig",
    "Risk",
    "SendResult",
    "ToolContext",
    "ToolError",
    "ToolUnavailable",
    "channel",
    "load",
    "provider",
    "tool",
    "verifier",
]

log = structlog.stdlib.get_logger(__name__)

GROUP = "parley"
MARK = "__parley__"
MAX_TIMEOUT_SECONDS = 3600.0

Work = TypeVar("Work", bound=Callable[..., Any])
Kind = TypeVar("Kind", bound=type[Channel])
Register = Callable[[Settings], None]


# --- what an extension says of its things -------------------------------------------------------------


@overload
def tool(work: Work, /) -> Work: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    risk: Risk | str = Risk.EXTERNAL,
    idempotent: bool = False,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    retries: int = 0,
    output_schema: dict[str, Any] | None = None,
    approval: Any = None,
    cost_usd: float | Decimal = 0,
) -> Callable[[Work], Work]: ...


def tool(work: Any = None, /, **options: Any) -> Any:
    """Make a function a tool; its parameters are read from its signature.

    A parameter annotated `ToolContext` is handed the call's context and is not shown to the model. A plain function
    runs in a thread, an async one on the event loop.

    Args:
        work: The function, where the decorator is used without arguments.
        **options: `name`, `description` (the docstring), `risk` (external), `idempotent` (no), `timeout_seconds` (5),
            `retries` (0, of idempotent calls, after an error that may pass), `output_schema` (JSON schema that results are
            held to), `approval` (its own policy, which agents can't loosen) and `cost_usd` (of each finished call, 0).

    Raises:
        ConfigurationError: when the signature can't be a tool's.
    """

    def mark(function: Work) -> Work:
        made = _tool_of(function, **options)
        return _marked(function, lambda settings: _add_tool(made))

    return mark if work is None else mark(work)


def channel(name: str) -> Callable[[Kind], Kind]:
    """Make a class a notification channel: one `addresses`, one `send`."""
    return lambda kind: _marked(kind, lambda settings: add_channel(name, kind))


def provider(name: str) -> Callable[[Work], Work]:
    """Make a function a model provider: it is handed what stands behind `name:` and returns a Pydantic AI model."""
    return lambda factory: _marked(factory, lambda settings: add_provider(name, factory))


def verifier(name: str) -> Callable[[Work], Work]:
    """Make a function a verifier of webhook calls: it is handed headers, raw body and secrets, and says yes or no.

    It runs on the event loop, so it must be quick: compare, and ask nobody. Header names come in lower case. Compare
    with `hmac.compare_digest`, and take any of the secrets: while one is being replaced there are two.
    """
    return lambda check: _marked(check, lambda settings: add_verifier(name, cast("Verifier", check)))


T = TypeVar("T")


def _marked(thing: T, register: Register) -> T:
    setattr(thing, MARK, register)
    return thing


def _add_tool(made: Tool) -> None:
    if INSTALLED.setdefault(made.name, made) is not made:
        raise ConfigurationError(f"there is a tool called {made.name} already")


# --- a function as a tool -------------------------------------------------------------------------


def _tool_of(
    work: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    risk: Risk | str = Risk.EXTERNAL,
    idempotent: bool = False,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    retries: int = 0,
    output_schema: dict[str, Any] | None = None,
    approval: Any = None,
    cost_usd: float | Decimal = 0,
) -> Tool:
    name = name or work.__name__
    said = (description or inspect.getdoc(work) or "").strip()
    if not name.isidentifier() or not name.isascii() or len(name) > 64:
        raise ConfigurationError(f"{name!r} can't be a tool's name: letters, digits and underscores, at most 64")
    if not said:
        raise ConfigurationError(f"the tool {name} has no docstring: the model is told nothing about it")
    if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
        raise ConfigurationError(f"the tool {name}: timeout_seconds must be over 0 and at most {MAX_TIMEOUT_SECONDS:g}")
    if str(risk) not in list(Risk):
        raise ConfigurationError(f"the tool {name}: risk must be one of {', '.join(Risk)}, not {risk!r}")
    if not 0 <= retries <= MAX_RETRIES:
        raise ConfigurationError(f"the tool {name}: retries must be 0 to {MAX_RETRIES}")
    context, model = _arguments_of(work, name)
    parameters = parameters_of(model) | _definitions(model)
    check_schema(output_schema, "output_schema", of_object=False)
    check_policy([] if approval is None else approval, "approval", parameters)
    return Tool(
        name=name,
        description=said,
        parameters=parameters,
        risk=Risk(risk),
        idempotent=idempotent,
        call=_calling(work, context, model),
        timeout_seconds=timeout_seconds,
        kind="extension",
        output_schema=output_schema,
        retries=retries,
        approval=rules_of(approval),
        cost_usd=Decimal(str(cost_usd)),
    )


def _arguments_of(work: Callable[..., Any], name: str) -> tuple[str | None, type[Arguments]]:
    """The parameter that takes the context, and the model of the others."""
    context: str | None = None
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(work, eval_str=True).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"the tool {name}: {parameter} must be a parameter that can be given by name")
        if parameter.annotation is parameter.empty:
            raise ConfigurationError(f"the tool {name}: the parameter {parameter.name} has no type")
        if parameter.annotation is ToolContext:
            context = parameter.name
        else:
            fields[parameter.name] = (
                parameter.annotation,
                ... if parameter.default is parameter.empty else parameter.default,
            )
    return context, create_model(name, __base__=Arguments, **fields)


def _definitions(model: type[Arguments]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return {"$defs": schema["$defs"]} if "$defs" in schema else {}


def _calling(work: Callable[..., Any], context_name: str | None, model: type[Arguments]) -> ToolCall:
    """The call: arguments read into their types, the result as a JSON value."""

    async def call(context: ToolContext, arguments: dict[str, Any]) -> Any:
        read = read_arguments(model, arguments)
        given = {name: getattr(read, name) for name in model.model_fields}
        if context_name:
            given[context_name] = context
        result = await work(**given) if inspect.iscoroutinefunction(work) else await asyncio.to_thread(work, **given)
        return to_jsonable_python(result, fallback=str)

    return call


# --- loading ----------------------------------------------------------------------------------------


def load(settings: Settings) -> list[str]:
    """Load every extension; loading one again changes nothing.

    Returns:
        Their names.

    Raises:
        ConfigurationError: naming the extension and what is wrong with it.
    """
    sources: dict[str, Callable[[], object]] = {
        **{entry.value: entry.load for entry in entry_points(group=GROUP)},
        **{name: _importing(name) for name in settings.extensions},
    }
    for name, source in sources.items():
        _join(name, source, settings)
        log.info("extension.loaded", extension=name)
    return list(sources)


def _importing(name: str) -> Callable[[], ModuleType]:
    return lambda: import_module(name)


def _join(name: str, source: Callable[[], object], settings: Settings) -> None:
    """Import one extension and register what it holds."""
    try:
        found = list(_registrations(source()))
        for register in found:
            register(settings)
    except ParleyError as error:
        raise ConfigurationError(f"the extension {name}: {error.detail}", field="PARLEY_EXTENSIONS") from error
    except Exception as error:
        said = f"the extension {name} can't be loaded: {type(error).__name__}: {error}"
        raise ConfigurationError(said, field="PARLEY_EXTENSIONS") from error
    if not found:
        raise ConfigurationError(
            f"the extension {name} registers nothing: mark functions of it with @tool", field="PARLEY_EXTENSIONS"
        )


def _registrations(source: object) -> Iterator[Register]:
    """What a module holds; agents come last, for they name its tools and models."""
    things = list(vars(source).values()) if isinstance(source, ModuleType) else [source]
    yield from (cast("Register", vars(thing)[MARK]) for thing in things if MARK in getattr(thing, "__dict__", {}))
    yield from (_offering(thing) for thing in things if isinstance(thing, AgentSpec))


def _offering(spec: AgentSpec) -> Register:
    return lambda settings: offer(spec, settings)
