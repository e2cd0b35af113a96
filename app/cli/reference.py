"""`docs/cli.md`, made from the commands' own help: `python -m app.cli.reference > docs/cli.md`."""

from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from app.cli import parley
from app.cli.session import PANEL

HEAD = """\
# The command line

<!-- Made by `python -m app.cli.reference > docs/cli.md`; change the commands' help instead. -->

`python3 dev.py <anything>` in a checkout is `parley <anything>`.

## Which server

Commands that talk to a server take it from `--url`, else from `PARLEY_URL`, else they find the one that runs in
`PARLEY_HOME` (`.parley` in the checkout) through its `run.json`. The key comes from `--api-key`, else `PARLEY_API_KEY`;
a server that runs in your own `PARLEY_HOME` needs none. Options stand after
the command: `parley runs list --url URL`.

| option | meaning |
|---|---|
| `--url URL` | The server. |
| `--api-key KEY` | The API key. |
| `--json` | Print JSON for programs, and nothing else, on standard output. |

## Output and exit codes

Results go to standard output, remarks, progress and errors to standard error, so that a pipe gets results alone.
`NO_COLOR` turns colours off. What models and tools have written can't act on your terminal.

| code | meaning |
|---|---|
| 0 | Done; for `run --wait`, `chat` with a message and `retry --wait`: the run completed. |
| 1 | Failed, refused, or something is broken. |
| 2 | Wrong usage. |
| 130 | Stopped by Ctrl-C. A run that was waited for goes on. |

`runs tail`, `run --wait` and `chat` read a run's events as they happen. When the connection breaks they come back by
themselves and go on after the last event they have seen.

## Commands
"""


def reference() -> str:
    """The whole page."""
    root = get_command(parley)
    context: Any = root.context_class(root, info_name="parley")
    return HEAD + "".join(_sections(root, context))


def _sections(command: Any, context: Any) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        inner = child.context_class(child, info_name=name, parent=context)
        if hasattr(child, "commands"):
            yield from _sections(child, inner)
        else:
            yield _section(child, inner)


def _section(command: Any, context: Any) -> str:
    usage = " ".join([context.command_path, *(each.strip("{}") for each in command.collect_usage_pieces(context))])
    rows = [row for param in command.get_params(context) if (row := _row(param, context))]
    table = "\n| argument or option | meaning |\n|---|---|\n" + "".join(rows) if rows else ""
    return f"\n### {context.command_path}\n\n    {usage}\n\n{command.help.strip()}\n{table}"


def _row(param: Any, context: Any) -> str | None:
    if param.name == "help" or getattr(param, "rich_help_panel", None) == PANEL:
        return None
    if (record := param.get_help_record(context)) is None:
        return None
    name, meaning = (part.replace("|", "\\|") for part in record)
    if param.param_type_name == "argument":
        name = param.metavar
    return f"| `{name}` | {meaning} |\n"


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
