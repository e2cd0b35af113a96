"""Approval policies: which calls go ahead, which a person is asked about, and which are never made.

A policy is a word, a rule, or a list of rules of which the first that speaks of a call counts. An agent has one for each
of its tools and a tool may have one of its own; both are held, and the stricter counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidRequest

WEEK_SECONDS = 7 * 86400
MAX_RULES = 50
STRICTNESS = ("auto", "ask", "deny")

Origin = Literal[
    "ui", "api", "cli", "schedule", "webhook", "delegate", "email", "slack", "playground", "openai", "mcp", "fork"
]


@dataclass(frozen=True)
class Occasion:
    """In what conversation a call is made.

    Attributes:
        origin: What began it.
        trusted: Whether its words come from the workspace's own people.
    """

    origin: str
    trusted: bool


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
        description="Only calls whose arguments match: equal values, texts with * and ?, objects of these, or "
        'comparisons such as {"gt": 100}. Of other calls the rule says nothing.',
    )
    origins: list[Origin] = Field(
        default_factory=list["Origin"], max_length=20, description="Only in conversations begun by one of these."
    )
    trusted: bool | None = Field(default=None, description="Only in trusted conversations, or only in untrusted ones.")

    def covers(self, occasion: Occasion) -> bool:
        """Whether the rule speaks of some call in such a conversation."""
        return (not self.origins or occasion.origin in self.origins) and self.trusted in (None, occasion.trusted)

    def matches(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the rule speaks of a call with these arguments."""
        return _alike(arguments, self.arguments)


Rules = tuple[ApprovalRule, ...]


def rules_of(policy: object) -> Rules:
    """The rules of a stored policy: nothing, a word, a rule or a list of rules."""
    if policy is None:
        return ()
    each = cast("list[object]", policy) if isinstance(policy, list) else [policy]
    return tuple(ApprovalRule.model_validate({"policy": one} if isinstance(one, str) else one) for one in each)


def first_rule(rules: Rules, occasion: Occasion, arguments: Mapping[str, Any]) -> ApprovalRule | None:
    """The first rule that speaks of a call."""
    return next((rule for rule in rules if rule.covers(occasion) and rule.matches(arguments)), None)


def stricter(one: ApprovalRule, other: ApprovalRule) -> ApprovalRule:
    """The stricter of two rules, the first when they are alike."""
    return max(one, other, key=lambda rule: STRICTNESS.index(rule.policy))


def never(rules: Rules, occasion: Occasion) -> bool:
    """Whether no call at all can be made in such a conversation, so that the tool need not be offered."""
    for rule in rules:
        if not rule.covers(occasion):
            continue
        if rule.policy != "deny":
            return False
        if not rule.arguments:
            return True
    return False


# --- patterns -----------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compared(value: Any, wanted: Any, sign: str) -> bool:
    """Whether a number stands to another as the sign says; anything but a number does not."""
    if not _is_number(value):
        return False
    return bool({"lt": value < wanted, "lte": value <= wanted, "gt": value > wanted, "gte": value >= wanted}[sign])


def _holds(value: object, sign: str, wanted: Any) -> bool:
    if sign == "in":
        return any(_alike(value, each) for each in wanted)
    if sign == "not":
        return not _alike(value, wanted)
    return _compared(value, wanted, sign)


COMPARISONS = frozenset({"lt", "lte", "gt", "gte", "in", "not"})


def _alike(value: object, wanted: object) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return fnmatchcase(value, wanted)
    if isinstance(wanted, dict) and wanted:
        members = cast("dict[str, object]", wanted)
        if members.keys() <= COMPARISONS:
            return all(_holds(value, sign, each) for sign, each in members.items())
        known = cast("dict[str, object]", value) if isinstance(value, Mapping) else None
        return known is not None and all(_alike(known.get(name), each) for name, each in members.items())
    return value == wanted or (wanted == {} and isinstance(value, Mapping))


# --- saving ---------------------------------------------------------------------------------------------


def check_policy(policy: object, field: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Refuse what is no policy.

    Args:
        policy: A word, a rule, or a list of rules.
        field: The field that holds it.
        parameters: The tool's, where they are known: a pattern for an argument it can't have would never match.

    Raises:
        InvalidRequest: naming the field.
    """
    if not isinstance(policy, list):
        return _check_rule(policy, field, parameters)
    rules = cast("list[object]", policy)
    if len(rules) > MAX_RULES:
        raise InvalidRequest(f"{field}: at most {MAX_RULES} rules", field=field)
    for position, rule in enumerate(rules):
        _check_rule(rule, f"{field}.{position}", parameters)


def _check_rule(policy: object, field: str, parameters: Mapping[str, Any] | None) -> None:
    try:
        (rule,) = rules_of([policy])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([field, *(str(part) for part in first["loc"] if part != "policy")])
        said = "auto, ask, deny, a rule with a policy, or a list of rules"
        raise InvalidRequest(f"{said}: {first['msg']}", field=place) from error
    for name, pattern in rule.arguments.items():
        _check_pattern(pattern, f"{field}.arguments.{name}")
        if parameters is not None and not _may_have(parameters, name):
            raise InvalidRequest(f"the tool has no argument {name!r}", field=f"{field}.arguments.{name}")


def _may_have(parameters: Mapping[str, Any], name: str) -> bool:
    return name in parameters.get("properties", {}) or parameters.get("additionalProperties") is not False


def _check_pattern(pattern: object, field: str) -> None:
    if not isinstance(pattern, dict):
        return
    members = cast("dict[str, object]", pattern)
    signs = members.keys() & COMPARISONS
    if signs and signs != members.keys():
        raise InvalidRequest(f"{field}: a comparison ({', '.join(sorted(signs))}) stands alone", field=field)
    for name, each in members.items():
        _check_member(name if signs else None, each, f"{field}.{name}")


def _check_member(sign: str | None, value: object, field: str) -> None:
    """Refuse what a comparison can't compare with, and patterns within patterns that are none."""
    values = cast("list[object]", value) if isinstance(value, list) else None
    if sign == "in" and values is None:
        raise InvalidRequest(f"{field}: a list of values", field=field)
    if sign not in (None, "in", "not") and not _is_number(cast("object", value)):
        raise InvalidRequest(f"{field}: a number", field=field)
    for one in values or [value]:
        _check_pattern(one, field)
