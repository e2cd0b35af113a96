"""What commands print: tables and fields for people, JSON for programs, notes and errors beside the data."""

import json
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]

# Characters of an id.
ID = 36
# Characters of any other column that even a narrow terminal shows, and between two columns.
LEAST, GAP = 10, 2
# Wide enough for whole rows where no terminal cuts them.
PIPE_WIDTH = 10_000
STYLES = {
    "completed": "green",
    "sent": "green",
    "ok": "green",
    "running": "cyan",
    "queued": "blue",
    "waiting": "yellow",
    "warning": "yellow",
    "cancelled": "dim",
    "failed": "red",
    "dead": "red",
    "broken": "red",
}
# Everything but tab and newline that could move the cursor or change the terminal.
CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its head.
        path: Where a row holds the value, as `latest_run.state`.
        least: Characters that even a narrow terminal shows.
        wraps: Whether a long text goes on below instead of being cut.
        nothing: What is shown where there is no value.
    """

    title: str
    path: str
    least: int = LEAST
    wraps: bool = False
    nothing: str = ""


def _console(width: int | None) -> Console:
    return Console(width=width, highlight=False, markup=False, emoji=False)


def printable(text: str) -> str:
    """Text that can't act on a terminal, wherever it came from."""
    return text.replace("\r\n", "\n").translate(CONTROLS)


def value_at(row: Any, path: str) -> Any:
    """The value at a path such as `latest_run.state`; None where it breaks off."""
    for name in path.split("."):
        row = cast("Json", row).get(name) if isinstance(row, Mapping) else None
    return row


def shown(value: Any) -> str:
    """A value for people: times in local time, nothing as nothing, structures as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(_local_time(value))
    if isinstance(value, list):
        return _joined(shown(each) for each in cast("list[Any]", value))
    if isinstance(value, Mapping):
        members = cast("Json", value)
        return _joined(f"{name} {text}" for name, each in members.items() if (text := shown(each)))
    return printable(str(value))


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(text for text in texts if text)


def _local_time(text: str, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    if not text.endswith("Z") or len(text) < 20 or text[10:11] != "T":
        return text
    try:
        return datetime.fromisoformat(text).astimezone().strftime(form)
    except ValueError:
        return text


def _brief(value: Any) -> str:
    """A value in a table: on a terminal today's times are shown without the date."""
    if not (isinstance(value, str) and sys.stdout.isatty()):
        return shown(value)
    whole = _local_time(value)
    today = whole.startswith(_local_time(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "%Y-%m-%d "))
    return printable(_local_time(value, "%H:%M:%S" if today else "%Y-%m-%d %H:%M"))


def program() -> str:
    """What starts our commands here: `parley`, or the file of a checkout, which needs nothing on the PATH."""
    return "python3 dev.py" if sys.argv[0].endswith(f"cli{os.sep}__main__.py") else "parley"


class Output:
    """Where one command prints."""

    def __init__(self, *, as_json: bool = False) -> None:
        """Say for whom.

        Args:
            as_json: Print JSON alone on standard output.
        """
        self.as_json = as_json

    @cached_property
    def console(self) -> Console:
        """Standard output; NO_COLOR is honoured."""
        return _console(None if sys.stdout.isatty() else PIPE_WIDTH)

    @cached_property
    def aside(self) -> Console:
        """Standard error, for what is not the command's result."""
        return Console(stderr=True, highlight=False, markup=False, emoji=False)

    def json(self, value: Any) -> None:
        """Print JSON: indented on a terminal, else on one line."""
        indent = 2 if sys.stdout.isatty() else None
        typer.echo(json.dumps(value, indent=indent, ensure_ascii=not _speaks_utf8(), default=str))

    def json_line(self, value: Any) -> None:
        """Print JSON on one line, one of many."""
        typer.echo(json.dumps(value, ensure_ascii=not _speaks_utf8(), default=str))

    def table(self, rows: Sequence[Json], columns: Sequence[Column], *, page: Any = None) -> None:
        """Print rows.

        Args:
            rows: What to print.
            columns: What of each row people see.
            page: What `--json` prints; the rows when left out.
        """
        if self.as_json:
            return self.json(rows if page is None else page)
        texts = [[_in_table(row, column) for column in columns] for row in rows]
        widths = _widths(texts, columns, self.console.width)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column, width in zip(columns, widths, strict=True):
            overflow = "fold" if column.wraps else "ellipsis"
            table.add_column(column.title, no_wrap=not column.wraps, overflow=overflow, width=width)
        for row in texts:
            table.add_row(*row)
        self._print(table, sum(widths) + GAP * (len(widths) - 1))

    def record(self, value: Json, columns: Sequence[Column] | None = None) -> None:
        """Print one thing: its fields one below the other; empty ones are left out."""
        if self.as_json:
            return self.json(value)
        fields = columns or [Column(name, name) for name in value]
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for field in fields:
            if text := shown(value_at(value, field.path)):
                table.add_row(field.title, _cell(text))
        self._print(table)

    def _print(self, table: Table, width: int = 0) -> None:
        if sys.stdout.isatty():
            # What is still too wide is left to the terminal to break: nothing gets lost.
            return _console(max(width, self.console.width)).print(table)
        with self.console.capture() as printed:
            self.console.print(table)
        for line in printed.get().splitlines():
            typer.echo(line.rstrip())

    def text(self, text: str, *, end: str = "\n") -> None:
        """Print text as it is, at once, but for what could act on the terminal."""
        typer.echo(printable(text) + end, nl=False)

    def line(self, text: str, style: str | None = None) -> None:
        """Print one line of the result in a style."""
        self.console.print(Text(printable(text), style=style or ""), soft_wrap=True)

    def note(self, text: str, style: str = "dim") -> None:
        """Say something beside the result."""
        self.aside.print(Text(printable(text), style=style), soft_wrap=True)

    def hint(self, text: str, command: str) -> None:
        """Say which command of ours is the next, as this one was started."""
        self.note(f"{text}: {program()} {command}")

    @contextmanager
    def progress(self, text: str) -> "Generator[Progress]":
        """Show what is going on while the block waits."""
        with self.aside.status(Text(printable(text))) as status:
            yield Progress(self, None if not self.aside.is_terminal else status)


class Progress:
    """Says what is going on: a line that changes on a terminal, one line per change elsewhere."""

    def __init__(self, output: Output, status: Any) -> None:
        """Take the live line, None where there is none."""
        self._output = output
        self._status = status
        self._said = ""

    def say(self, text: str) -> None:
        """What goes on now."""
        if text == self._said:
            return
        self._said = text
        if self._status is None:
            self._output.note(text)
        else:
            self._status.update(Text(printable(text)))


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Say on one line what went wrong, and end with an exit code."""
    Output().note(f"parley: {' '.join(message.split())}", style="red")
    raise typer.Exit(code)


def _in_table(row: Json, column: Column) -> Text:
    return _cell(_brief(value_at(row, column.path)) or column.nothing, one_line=True)


def _widths(rows: Sequence[Sequence[Text]], columns: Sequence[Column], room: int) -> list[int]:
    """The columns' widths: the widest give way until all fit, or all are down to their least."""
    texts = [[len(column.title), *(row[number].cell_len for row in rows)] for number, column in enumerate(columns)]
    widths = [min(max(lengths), room) for lengths in texts]
    least = [min(width, max(column.least, len(column.title))) for width, column in zip(widths, columns, strict=True)]
    while sum(widths) + GAP * (len(widths) - 1) > room:
        spare = [number for number, width in enumerate(widths) if width > least[number]]
        if not spare:
            break
        widths[max(spare, key=lambda number: widths[number])] -= 1
    return widths


def _cell(text: str, *, one_line: bool = False) -> Text:
    words = " ".join(text.split()) if one_line else text
    return Text(words, style=STYLES.get(text, ""))


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
