"""YAML from strangers: nothing in it ends or fills the process that reads it."""

import json
import subprocess
import sys

import pytest

from app.agents import read_yaml
from app.agents.yaml import MAX_CHARACTERS
from app.errors import InvalidRequest, InvalidTool, MalformedBody
from app.tools.openapi import read_document
from app.tools.plain_yaml import MAX_DEPTH, Loader

READ = "import sys; from app.agents import read_yaml; from app.errors import MalformedBody\ntry: read_yaml({text})\nexcept MalformedBody as error: print(error.detail)"
BOMB = "\n".join(["a: &a0 [x, x, x, x]", *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(9))])


@pytest.mark.parametrize("text", ["'[' * 100_000", "'{a: ' * 100_000", "'- ' * 100_000", "'? ' * 100_000"])
def test_brackets_by_the_thousand_end_no_process(text: str) -> None:
    """In a process of its own: libyaml's reader would fall with all that is in it."""
    told = subprocess.run([sys.executable, "-c", READ.format(text=text)], capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"nested deeper than {MAX_DEPTH} levels" in told.stdout


def test_libyaml_reads() -> None:
    assert Loader.__name__ == "CSafeLoader"


def test_an_agent_is_as_long_as_its_fields_can_make_it() -> None:
    lines = {
        "name": "a",
        "instructions": "x\n" * 50_000,
        "input_schema": {"type": "object", "description": "y" * 90_000},
    }
    assert read_yaml(json.dumps(lines)) == lines
    with pytest.raises(InvalidRequest, match="may have 500000 characters"):
        read_yaml("name: " + "a" * MAX_CHARACTERS)


def test_aliases_are_told_with_their_place() -> None:
    with pytest.raises(MalformedBody, match=r"aliases are not read.* line 2, column 4"):
        read_yaml("a: &x [1]\nb: *x\n")


def test_an_openapi_document_may_use_some_aliases() -> None:
    with pytest.raises(InvalidTool, match="more than 1000000 values, aliases written out"):
        read_document(BOMB)
    with pytest.raises(InvalidTool, match=r"at line 1: nested deeper"):
        read_document("a: " + "[" * 100_000)
    with pytest.raises(InvalidTool, match="more than 1000000 values"):
        read_document("a: &a [*a]")
    found = read_document('openapi: "3.0.0"\npaths: {}\nx-a: &a {b: 1}\nx-c: *a\n')
    assert found["x-c"] == {"b": 1}
