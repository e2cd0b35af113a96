"""Approval policies: which calls go ahead, which a person is asked about, and which are never made.

A policy is a word, a rule, or a list of rules of which the first that speaks of a call counts. An agent has one for each
of its tools and a tool may have one of its own; both are held, and the stricter counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidRequest
from app.wording import said

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
        """Whether the rule speaks of a call with these arguments; in doubt a rule that asks or denies does."""
        return _alike(arguments, self.arguments, strict=self.policy == "auto")


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


def with_defaults(parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments together with what the tool takes for those left out."""
    declared: dict[str, Any] = parameters.get("properties", {})
    return {name: each["default"] for name, each in declared.items() if "default" in each} | dict(arguments)


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

# What may let a call go ahead must fit strictly. What would stop one fits in doubt: texts in either case, numbers written
# as texts, one member of a list, and what can't be compared at all.


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _number(value: Any, *, strict: bool) -> float | None:
    if isinstance(value, str) and not strict:
        try:
            value = float(value)
        except ValueError:
            return None
    return value if _is_number(value) else None


def _compared(value: Any, wanted: Any, sign: str, *, strict: bool) -> bool:
    """Whether a number stands to another as the sign says."""
    number = _number(value, strict=strict)
    if number is None:
        return not strict
    return bool({"lt": number < wanted, "lte": number <= wanted, "gt": number > wanted, "gte": number >= wanted}[sign])


def _holds(value: Any, sign: str, wanted: Any, *, strict: bool) -> bool:
    if sign == "in":
        return any(_alike(value, each, strict=strict) for each in wanted)
    if sign == "not":
        return not _alike(value, wanted, strict=not strict)
    return _compared(value, wanted, sign, strict=strict)


COMPARISONS = frozenset({"lt", "lte", "gt", "gte", "in", "not"})


def _alike(value: Any, wanted: Any, *, strict: bool) -> bool:
    if isinstance(value, list) and not isinstance(wanted, list):
        members = cast("list[Any]", value)
        each = (_alike(one, wanted, strict=strict) for one in members)
        return bool(members) and all(each) if strict else any(each)
    if isinstance(wanted, dict) and wanted:
        return _fits(value, cast("dict[str, object]", wanted), strict=strict)
    if isinstance(wanted, str):
        return _reads_as(value, wanted, strict=strict)
    if _is_number(wanted):
        return _number(value, strict=strict) == wanted
    return value == wanted or (wanted == {} and isinstance(value, Mapping))


def _fits(value: Any, wanted: dict[str, object], *, strict: bool) -> bool:
    if wanted.keys() <= COMPARISONS:
        return all(_holds(value, sign, each, strict=strict) for sign, each in wanted.items())
    if not isinstance(value, Mapping):
        return False
    known = cast("Mapping[str, object]", value)
    return all(_alike(known.get(name), each, strict=strict) for name, each in wanted.items())


def _reads_as(value: Any, pattern: str, *, strict: bool) -> bool:
    """Whether a text is as a pattern says, in which only * and ? are special."""
    pattern = pattern.replace("[", "[[]")
    if strict:
        return isinstance(value, str) and fnmatchcase(value, pattern)
    if value is None or isinstance(value, dict):
        return False
    return fnmatchcase(str(cast("object", value)).casefold(), pattern.casefold())


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
        right = "auto, ask, deny, a rule with a policy, or a list of rules"
        raise InvalidRequest(f"{right}: {said(first)}", field=place) from error
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
