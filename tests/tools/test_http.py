"""What an HTTP tool's templates may become, and which paths into answers are taken."""

from typing import Any

import pytest

from app.errors import InvalidArguments, InvalidTool, ToolError
from app.tools.http import define_http, picked
from app.tools.template import filled_headers, filled_url

URL = "http://here.example/p/{a}/q"


def define(**fields: Any) -> Any:
    return define_http("call_it", "Calls it", "http://here.example/p", **fields)


@pytest.mark.parametrize("value", ["..", ".", "../..", "a/../b", "a/..", "..\\x", "x\\..", ""])
def test_an_argument_can_not_lead_up_the_path(value: str) -> None:
    with pytest.raises(InvalidArguments, match=r"^a: .* can't stand in a URL") as refused:
        filled_url(URL, {"a": value})
    assert refused.value.field == "a"


def test_arguments_side_by_side_can_not_lead_up_the_path() -> None:
    with pytest.raises(InvalidArguments, match="can't stand in a URL"):
        filled_url("http://here.example/p/{a}{b}/q", {"a": ".", "b": "."})


@pytest.mark.parametrize(
    ("value", "sent"), [("...", "..."), ("a/b", "a%2Fb"), ("x?y#z", "x%3Fy%23z"), ("a..b", "a..b"), ("%2e", "%252e")]
)
def test_other_arguments_stay_in_their_segment(value: str, sent: str) -> None:
    assert filled_url(URL, {"a": value}) == f"http://here.example/p/{sent}/q"


def test_dots_may_stand_in_a_query() -> None:
    assert filled_url("http://here.example/p?up={a}", {"a": "../.."}) == "http://here.example/p?up=..%2F.."


def test_a_header_that_can_not_be_sent_is_named() -> None:
    with pytest.raises(InvalidArguments, match="only ASCII can stand in the header X-A, and 'é' is none of it"):
        filled_headers({"X-A": "{h}"}, {"h": "café"})
    with pytest.raises(InvalidTool, match="headers: only ASCII can stand in X-A"):
        define(headers={"X-A": "é"})


@pytest.mark.parametrize(
    "path", ["$['']", "$[", "$[ 0 ]", "$.a[99999999999999999999]", "$..a", "a b]", "$['a'", "." * 3, "a" * 999 + "'"]
)
def test_a_path_that_is_none_is_refused_at_once(path: str) -> None:
    with pytest.raises(InvalidTool, match=r"response_path: .* is no path such as") as refused:
        define(response_path=path)
    assert refused.value.field == "response_path"


@pytest.mark.parametrize(
    ("path", "found"),
    [("$", None), ("$.items[1].a b", 2), ("items[*]['a b']", [1, 2]), ("$['x-y.z']", 3)],
)
def test_a_path_is_followed(path: str, found: Any) -> None:
    answer = {"items": [{"a b": 1}, {"a b": 2}], "x-y.z": 3}
    define(response_path=path)
    assert picked(answer, path) == (answer if found is None else found)


def test_a_path_that_was_stored_before_is_an_error_of_the_call() -> None:
    with pytest.raises(ToolError, match="response_path: the answer has nothing at"):
        picked([1], "$.9" + "9" * 5000)


@pytest.mark.parametrize("name", ["register", "import", "execute", "delegate"])
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidTool, match="no reserved word"):
        define_http(name, "Calls it", "http://here.example/p")
