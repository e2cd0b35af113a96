"""Commands for those who build on Parley: `parley openapi` and `parley bench`."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import fail
from app.errors import ConfigurationError
from app.settings import Settings

PASS_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def openapi(
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Only say whether this file is up to date.")
    ] = None,
) -> None:
    """Print the API's OpenAPI document; no server is needed."""
    document = openapi_text()
    if check is None:
        return typer.echo(document, nl=False)
    if not check.exists() or check.read_text(encoding="utf-8") != document:
        fail(f"{check} is not up to date: parley openapi > {check}")
    typer.echo(f"{check} is up to date")


def openapi_text() -> str:
    """The document, the same wherever it is made: settings don't change it."""
    # Imported when asked for: the API's libraries take a second to load.
    from app.main import create_app

    return json.dumps(create_app(Settings.of()).openapi(), indent=2, ensure_ascii=False) + "\n"


def bench(context: typer.Context) -> None:
    """Run the benchmarks of this checkout; everything after `bench` is theirs (`parley bench --help`)."""
    try:
        benchmarks = importlib.import_module("benchmarks.__main__")
    except ModuleNotFoundError as error:
        if error.name not in ("benchmarks", "benchmarks.__main__"):
            raise
        raise ConfigurationError("the benchmarks are not installed: run this in a checkout of Parley") from error
    raise typer.Exit(benchmarks.main(context.args) or 0)
