"""What an agent is: the fields of a version, and the checks a version passes before it is saved."""

import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.agents.template import check_instructions
from app.errors import InvalidRequest, NotAvailable, UnknownReference
from app.providers import check_model
from app.providers.outputs import can_be_asked
from app.settings import Settings
from app.tools.approval import check_policy
from app.tools.schema import check_schema

LARGEST = 2**63 - 1  # What is stored as JSON comes back whole only up to here.
RESERVED = frozenset({"register", "import", "execute"})
UUID_LIKE = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
# Tools of the contract that a later version brings: refused by name, not as unknown.
LATER_TOOLS = frozenset(
    {
        "delegate",
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
        description="Per tool: `auto`, `ask` a person before each call, `deny`, a rule with a policy and its terms, or a "
        "list of rules of which the first that speaks of a call counts.",
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
    check_schema(spec.input_schema, "input_schema")
    check_output_schema(spec.output_schema, "output_schema")
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
        check_policy(policy, f"approval.{tool}")


def _check_tool(name: str, tools: Collection[str], field: str) -> None:
    if name in tools:
        return
    if name in LATER_TOOLS:
        raise NotAvailable(f"the tool {name} is not offered yet", field=field)
    raise UnknownReference(f"there is no tool {name!r} in this workspace", field=field)


def check_output_schema(schema: dict[str, Any] | None, field: str) -> None:
    """Refuse what no model can be asked to fill in.

    Raises:
        InvalidRequest: naming the field.
    """
    check_schema(schema, field)
    if schema is not None and not can_be_asked(schema):
        said = "a structured output can't have a schema whose $defs refer back to themselves"
        raise InvalidRequest(f"{field}: {said}", field=field)
