"""Approval policies: which rule speaks of a call, and what is refused when a policy is saved."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import InvalidRequest
from app.executor.toolbox import rule_of
from app.tools import Risk, Tool
from app.tools.approval import Occasion, check_policy, first_rule, never, rules_of, with_defaults

API = Occasion("api", trusted=True)
HOOK = Occasion("webhook", trusted=False)


def said(policy: object, arguments: dict[str, Any], occasion: Occasion = API) -> str | None:
    rule = first_rule(rules_of(policy), occasion, arguments)
    return rule.policy if rule else None


@pytest.mark.parametrize(
    ("pattern", "arguments", "matches"),
    [
        ({"to": "*@example.com"}, {"to": "a@example.com"}, True),
        ({"to": "*@example.com"}, {"to": "a@example.org"}, False),
        ({"to": "*@example.com"}, {"to": "A@EXAMPLE.com"}, True),
        ({"to": "*@example.com"}, {"to": ["a@example.org", "a@example.com"]}, True),
        ({"to": "*@example.com"}, {"to": []}, False),
        ({"to": "report[1]@*"}, {"to": "report[1]@example.com"}, True),
        ({"to": "report[1]@*"}, {"to": "report1@example.com"}, False),
        ({"to": "*"}, {}, False),
        ({"n": 5}, {"n": 5}, True),
        ({"n": {"gt": 100}}, {"n": 100.5}, True),
        ({"n": {"gt": 100}}, {"n": 100}, False),
        ({"n": {"gte": 1, "lt": 3}}, {"n": 2}, True),
        ({"n": {"gte": 1, "lt": 3}}, {"n": 3}, False),
        ({"n": {"gt": 100}}, {"n": "5000"}, True),
        ({"n": {"gt": 100}}, {"n": "50"}, False),
        ({"n": {"gt": 100}}, {"n": math.nan}, True),
        ({"n": {"gt": 100}}, {"n": "much"}, True),
        ({"n": {"gt": 100}}, {"n": [1, 200]}, True),
        ({"n": {"gt": 100}}, {}, True),
        ({"n": {"lte": 3}}, {"n": True}, True),
        ({"n": 5}, {"n": "5.0"}, True),
        ({"n": "5"}, {"n": 5}, True),
        ({"n": {"in": ["a*", 7]}}, {"n": "abc"}, True),
        ({"n": {"in": ["a*", 7]}}, {"n": 8}, False),
        ({"n": {"not": "*@example.com"}}, {"n": "a@example.org"}, True),
        ({"n": {"not": "*@example.com"}}, {"n": "a@example.com"}, False),
        ({"n": {"not": "*@example.com"}}, {}, True),
        ({"mail": {"to": "*@example.com", "size": {"lt": 9}}}, {"mail": {"to": "a@example.com", "size": 8}}, True),
        ({"mail": {"to": "*@example.com"}}, {"mail": {"to": "a@example.org"}}, False),
        ({"mail": {"to": "*@example.com"}}, {"mail": "a@example.com"}, False),
    ],
)
def test_a_rule_speaks_of_the_arguments_that_match(
    pattern: dict[str, Any], arguments: dict[str, Any], matches: bool
) -> None:
    assert said({"policy": "deny", "arguments": pattern}, arguments) == ("deny" if matches else None)


@pytest.mark.parametrize(
    ("pattern", "arguments", "matches"),
    [
        ({"to": "*@example.com"}, {"to": "a@example.com"}, True),
        ({"to": "*@example.com"}, {"to": "a@EXAMPLE.com"}, False),
        ({"to": "*@example.com"}, {"to": ["a@example.com", "b@example.com"]}, True),
        ({"to": "*@example.com"}, {"to": ["a@example.com", "a@example.org"]}, False),
        ({"to": "*@example.com"}, {"to": []}, False),
        ({"to": {"not": "*@evil.example"}}, {"to": "a@good.example"}, True),
        ({"to": {"not": "*@evil.example"}}, {"to": ["a@good.example", "a@EVIL.example"]}, False),
        ({"n": {"lte": 100}}, {"n": 50}, True),
        ({"n": {"lte": 100}}, {"n": "50"}, False),
        ({"n": {"lte": 100}}, {"n": math.nan}, False),
        ({"n": {"lte": 100}}, {}, False),
        ({"n": 5}, {"n": "5"}, False),
        ({"n": "5"}, {"n": 5}, False),
    ],
)
def test_what_lets_a_call_go_ahead_fits_strictly(
    pattern: dict[str, Any], arguments: dict[str, Any], matches: bool
) -> None:
    assert said({"policy": "auto", "arguments": pattern}, arguments) == ("auto" if matches else None)


def test_arguments_left_out_are_their_defaults() -> None:
    parameters = {"properties": {"amount": {"type": "number", "default": 1000}, "to": {"type": "string"}}}
    assert with_defaults(parameters, {"to": "a"}) == {"amount": 1000, "to": "a"}
    assert with_defaults(parameters, {"amount": 1}) == {"amount": 1}


def test_the_first_rule_that_speaks_of_a_call_counts() -> None:
    policy = [
        {"policy": "deny", "origins": ["webhook"], "arguments": {"to": "*@evil.example"}},
        {"policy": "ask", "trusted": False},
        "auto",
    ]
    assert said(policy, {"to": "a@evil.example"}, HOOK) == "deny"
    assert said(policy, {"to": "a@example.com"}, HOOK) == "ask"
    assert said(policy, {"to": "a@evil.example"}, API) == "auto"
    assert said(policy[:2], {"to": "a@evil.example"}, API) is None


def test_a_tool_that_no_call_of_could_be_made_is_known_beforehand() -> None:
    some = {"policy": "deny", "arguments": {"to": "x"}}
    assert never(rules_of("deny"), API)
    assert never(rules_of([some, "deny"]), API)
    assert never(rules_of({"policy": "deny", "origins": ["webhook"]}), HOOK)
    assert not never(rules_of({"policy": "deny", "origins": ["webhook"]}), API)
    assert not never(rules_of(some), API)
    assert not never(rules_of(["ask", "deny"]), API)
    assert not never((), API)


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ("maybe", "approval"),
        (5, "approval"),
        ({"policy": "ask", "expires": 5}, "approval.expires"),
        ({"policy": "ask", "origins": ["api", "fax"]}, "approval.origins.1"),
        (["auto", {"policy": "ask", "trusted": "perhaps"}], "approval.1.trusted"),
        ({"policy": "deny", "arguments": {"n": {"gt": "5"}}}, "approval.arguments.n.gt"),
        ({"policy": "deny", "arguments": {"n": {"in": 5}}}, "approval.arguments.n.in"),
        ({"policy": "deny", "arguments": {"n": {"gt": 5, "to": "x"}}}, "approval.arguments.n"),
        ({"policy": "deny", "arguments": {"n": {"not": {"lt": None}}}}, "approval.arguments.n.not.lt"),
        ({"policy": "deny", "arguments": {"recipient": "x"}}, "approval.arguments.recipient"),
        (["auto"] * 51, "approval"),
    ],
)
def test_a_policy_that_is_none_is_refused_by_its_field(policy: object, field: str) -> None:
    parameters = {"type": "object", "properties": {"n": {}}, "additionalProperties": False}
    with pytest.raises(InvalidRequest) as caught:
        check_policy(policy, "approval", parameters)
    assert caught.value.field == field


def test_a_rule_of_an_agent_sees_the_default_of_an_argument_left_out() -> None:
    async def call(context: object, arguments: object) -> None: ...

    amount = {"type": "number", "default": 1000}
    pay = Tool("pay", "Pay.", {"type": "object", "properties": {"amount": amount}}, Risk.MONEY, False, call)
    approval = {"pay": [{"policy": "deny", "arguments": {"amount": {"gt": 100}}}, "auto"]}
    loaded: Any = SimpleNamespace(occasion=API, trusted=True, spec=SimpleNamespace(approval=approval))
    assert rule_of(loaded, pay, {}).policy == "deny"
    assert rule_of(loaded, pay, {"amount": 5}).policy == "auto"
