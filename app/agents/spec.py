"""What an agent is: the fields of a version, and the checks a version passes before it is saved."""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, cast

from jsonschema import exceptions
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.agents.template import check_instructions
from app.errors import InvalidRequest, NotAvailable, UnknownReference
from app.providers import check_model
from app.settings import Settings

WEEK_SECONDS = 7 * 86400
MAX_SAID = 300  # Characters of what is said of a value that does not fit.
LARGEST = 2**63 - 1  # What is stored as JSON comes back whole only up to here.
RESERVED = frozenset({"register", "import", "execute"})
UUID_LIKE = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
# Tools of the contract that a later version brings: refused by name, not as unknown.
LATER_TOOLS = frozenset(
    {
        "add_document",
        "create_chart",
        "delegate",
        "execute_code",
        "query_database",
        "search_documents",
        "summarizer",
    }
)


def _check_name(name: str) -> str:
    if name != name.strip() or not name.isprintable() or "/" in name or not name.strip("."):
        raise ValueError("must be printable, without a slash and without blanks at its ends")
    if name in RESERVED:
        raise ValueError(f"{name} is reserved")
    if UUID_LIKE.fullmatch(name):
        raise ValueError("must not look like an id")
    return name


AgentName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_name)]
Label = Annotated[str, Field(min_length=1, max_length=100)]
Model = Annotated[str, Field(min_length=1, max_length=200)]


class ModelSettings(BaseModel):
    """How the model is asked; what a provider does not know it ignores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(default=None, ge=0, le=2, description="Randomness.")
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="Longest answer.")
    top_p: float | None = Field(default=None, ge=0, le=1, description="Nucleus sampling.")
    seed: int | None = Field(
        default=None, ge=-(2**63), le=LARGEST, description="For repeatable answers, where the provider offers it."
    )
    timeout: float | None = Field(default=None, gt=0, le=3600, description="Seconds one request may take.")
    parallel_tool_calls: bool | None = Field(default=None, description="Whether one response may call several tools.")
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, description="Against topics mentioned before.")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="Against words repeated often.")
    stop_sequences: list[Label] | None = Field(default=None, max_length=16, description="Texts that end the answer.")
    thinking: bool | Literal["minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description="Reasoning effort, for models that reason."
    )


class ApprovalRule(BaseModel):
    """When a tool may be called: at once, after a person has agreed, or never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: Literal["auto", "ask", "deny"] = Field(description="What happens to a call.")
    expires_seconds: float = Field(
        default=WEEK_SECONDS, ge=1, le=365 * 86400, description="How long a question stays open; a week when left out."
    )
    on_expiry: Literal["tell", "fail"] = Field(
        default="tell", description="Tell the model that the question expired, or fail the run."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="Only calls whose arguments match: equal values, or texts with * and ?. Others go ahead.",
    )

    def matches(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the rule speaks of a call with these arguments."""
        return all(_alike(arguments.get(name), wanted) for name, wanted in self.arguments.items())

    @classmethod
    def of(cls, policy: object) -> "ApprovalRule":
        """The rule of a stored policy: a word or an object."""
        return cls.model_validate({"policy": policy} if isinstance(policy, str) else policy)


def _alike(value: object, wanted: object) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return fnmatchcase(value, wanted)
    return value == wanted


class Limits(BaseModel):
    """What one run may use; reaching one ends it with `limit_reached`, running time with `timed_out`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int = Field(default=50, ge=1, le=10_000, description="Model requests.")
    tokens: int | None = Field(default=None, ge=1, le=LARGEST, description="Tokens read and written.")
    cost_usd: float | None = Field(
        default=2.0, gt=0, allow_inf_nan=False, description="Money, where the model's price is known."
    )
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Running time.")
    tool_calls: int | None = Field(default=None, ge=0, le=LARGEST, description="Tool calls.")
    depth: int = Field(default=3, ge=0, le=10, description="Delegations below one another.")


class AgentFields(BaseModel):
    """Everything of an agent but its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Model | None = Field(
        default=None, description="Model string, `provider:name`; the configured default when null."
    )
    instructions: str = Field(
        default="", max_length=100_000, description="What the agent is told; a Jinja template over the run's values."
    )
    description: str = Field(default="", max_length=2000, description="For people and for other agents.")
    tools: list[Label] = Field(default_factory=list[str], max_length=128, description="Names of tools it may call.")
    fallback_models: list[Model] = Field(
        default_factory=list[str], max_length=8, description="Asked in this order when the model fails."
    )
    input_schema: dict[str, Any] | None = Field(default=None, description="JSON schema of a task's `input`.")
    output_schema: dict[str, Any] | None = Field(default=None, description="JSON schema of the structured output.")
    model_settings: ModelSettings = Field(default_factory=ModelSettings, description="How the model is asked.")
    limits: Limits = Field(default_factory=Limits, description="What one run may use.")
    capabilities: list[Label] = Field(
        default_factory=list[str], max_length=64, description="What it is good at, for routing."
    )
    delegates: list[Label] = Field(
        default_factory=list[str], max_length=64, description="Agents it may delegate to. Not offered yet."
    )
    approval: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="Per tool: `auto`, `ask` a person before each call, `deny`, or a rule with a policy and its terms.",
    )
    team: dict[str, Any] | None = Field(default=None, description="Agents whose steps are agents. Not offered yet.")


class AgentSpec(AgentFields):
    """One version of an agent."""

    name: AgentName = Field(description="Unique in the workspace; also works where an id is asked for.")


class AgentPatch(AgentFields):
    """Changes to an agent; each field given replaces the whole field."""

    name: AgentName | None = Field(default=None, description="A new name, in force when the version is published.")


# --- what only the server can check -------------------------------------------------------------


def check(spec: AgentSpec, settings: Settings, tools: Collection[str]) -> AgentSpec:
    """The spec as it is saved: names looked up, templates and schemas tried.

    Args:
        spec: A spec whose fields have the right shape.
        settings: For the model strings.
        tools: Names of all tools of the workspace.

    Raises:
        InvalidRequest: naming the field.
    """
    _refuse_later(spec)
    check_instructions(spec.instructions)
    for position, tool in enumerate(spec.tools):
        _check_tool(tool, tools, f"tools.{position}")
    for tool in spec.approval:
        _check_tool(tool, tools, f"approval.{tool}")
    for name in ("input_schema", "output_schema"):
        check_schema(getattr(spec, name), name)
    return spec.model_copy(update=_canonical(spec, settings))


def _canonical(spec: AgentSpec, settings: Settings) -> dict[str, Any]:
    fallbacks = [
        check_model(settings, model, field=f"fallback_models.{position}")
        for position, model in enumerate(spec.fallback_models)
    ]
    model = check_model(settings, spec.model) if spec.model is not None else None
    return {"model": model, "fallback_models": fallbacks, "tools": list(dict.fromkeys(spec.tools))}


def _refuse_later(spec: AgentSpec) -> None:
    if spec.delegates:
        raise NotAvailable("agents can't delegate to one another yet", field="delegates")
    if spec.team is not None:
        raise NotAvailable("teams are not offered yet", field="team")
    for tool, policy in spec.approval.items():
        _check_policy(policy, f"approval.{tool}")


def _check_policy(policy: object, field: str) -> None:
    try:
        ApprovalRule.of(policy)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([field, *(str(part) for part in first["loc"] if part != "policy")])
        raise InvalidRequest(f"auto, ask, deny, or a rule with a policy: {first['msg']}", field=place) from error


def _check_tool(name: str, tools: Collection[str], field: str) -> None:
    if name in tools:
        return
    if name in LATER_TOOLS:
        raise NotAvailable(f"the tool {name} is not offered yet", field=field)
    raise UnknownReference(f"there is no tool {name!r} in this workspace", field=field)


def check_schema(schema: dict[str, Any] | None, field: str) -> None:
    """Refuse what is no JSON schema of an object.

    Raises:
        InvalidRequest: naming the field.
    """
    if schema is None:
        return
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        what = error.message if isinstance(error, SchemaError) else "it is nested too deeply"
        raise InvalidRequest(f"this is not a JSON schema: {what}", field=field) from error
    if schema.get("type") != "object":
        raise InvalidRequest('the schema must have "type": "object" at its top', field=field)
    if reference := next((found for found in _references(schema) if not found.startswith("#")), None):
        raise InvalidRequest(f"$ref {reference!r} points elsewhere; only #/... is followed", field=field)


def misfit(schema: dict[str, Any], value: Any, field: str) -> str | None:
    """Where a value does not fit a schema, and why; None when it fits."""
    found = cast("Any", exceptions).best_match(cast("Any", Draft202012Validator(schema)).iter_errors(value))
    if found is None:
        return None
    place = ".".join([field, *(str(part) for part in found.absolute_path)])
    return f"{place}: {str(found.message)[:MAX_SAID]}"


def _references(value: object) -> list[str]:
    """Every `$ref` in a schema."""
    if isinstance(value, Mapping):
        members = cast("Mapping[str, object]", value)
        own = members.get("$ref")
        return [*([own] if isinstance(own, str) else []), *(r for each in members.values() for r in _references(each))]
    if isinstance(value, list):
        return [found for each in cast("list[object]", value) for found in _references(each)]
    return []
