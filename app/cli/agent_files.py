"""Agents kept as YAML files: which files, and what they say."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import fail
from app.errors import ParleyError

ENDINGS = (".yaml", ".yml")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="YAML files, folders of them, or `-` for standard input; `---` parts agents within one.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Document:
    """An agent as a file says it.

    Attributes:
        source: Where it stands, for people.
        name: The agent's name.
        values: All that is said of it.
    """

    source: str
    name: str
    values: dict[str, Any]


def is_source(text: str) -> bool:
    """Whether what was typed means a file and not an agent."""
    return text == "-" or text.endswith(ENDINGS) or Path(text).is_dir()


def read_agents(sources: Sequence[str] = (), *, text: str | None = None) -> list[Document]:
    """The agents of files, or of one text; what can't be read ends the command with exit code 2."""
    texts = [("the answer", text)] if text is not None else [each for source in sources for each in _texts(source)]
    found = [document for source, content in texts for document in _documents(source, content)]
    names = [document.name for document in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        fail(f"{twice!r} stands there more than once", code=2)
    if not found:
        fail("there is no agent in what was named", code=2)
    return found


def _texts(source: str) -> Iterator[tuple[str, str]]:
    try:
        if source == "-":
            yield "standard input", _standard_input()
        elif Path(source).is_dir():
            files = [file for file in sorted(Path(source).iterdir()) if file.suffix in ENDINGS]
            yield from ((str(file), file.read_text(encoding="utf-8")) for file in files)
        else:
            yield source, Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{source} can't be read: {error}", code=2)


def _standard_input() -> str:
    return sys.stdin.read()


def _documents(source: str, text: str) -> Iterator[Document]:
    # Imported here: `--help` loads nothing heavy.
    from app.agents.yaml import read_documents

    try:
        for values in read_documents(text):
            json.dumps(values, allow_nan=False)
            name = values.get("name")
            if not isinstance(name, str) or not name:
                fail(f"{source}: an agent without a name", code=2)
            yield Document(source, name, values)
    except ParleyError as error:
        fail(f"{source}: {error.detail}", code=2)
    except (TypeError, ValueError) as error:
        fail(f"{source}: it holds what JSON has not: {error}", code=2)
