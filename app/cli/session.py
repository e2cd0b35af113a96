"""How a command meets its server: which one, with which key, and what becomes of its refusals."""

import functools
import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec
from urllib.parse import quote

import typer

from app.cli.output import Output, fail
from app.embedded import Home, running
from app.errors import ConfigurationError
from app.settings import Settings

if TYPE_CHECKING:
    from app.client import Client

P = ParamSpec("P")

HOW_TO_START = "no server is running here: start it with `python3 dev.py`, or name one with --url or PARLEY_URL"
PANEL = "Server and output"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        rich_help_panel=PANEL,
        help="The server; else PARLEY_URL, else the one running in PARLEY_HOME.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", rich_help_panel=PANEL, help="The API key; else PARLEY_API_KEY."),
]
Attach = Annotated[
    list[Path] | None,
    typer.Option(
        "--attach", metavar="FILE", exists=True, dir_okay=False, readable=True, help="Send this file along; repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", rich_help_panel=PANEL, help="Print JSON for programs.")]


@dataclass(frozen=True)
class Session:
    """What a command works with: its server and its output."""

    client: "Client"
    out: Output

    def attached(self, files: Sequence[Path] | None) -> dict[str, Any]:
        """The files uploaded, as a body names them."""
        return {"attachments": [self.client.upload(file)["id"] for file in files]} if files else {}


def with_server(command: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """Make a command of a function that talks to a server: it gets `--url`, `--api-key` and `--json`."""
    signature = inspect.signature(command)
    given = list(signature.parameters.values())[1:]
    common = [
        _option("url", Url, None),
        _option("api_key", ApiKey, None),
        _option("as_json", AsJson, False),
    ]

    @functools.wraps(command)
    def run(*args: Any, url: str | None, api_key: str | None, as_json: bool, **options: Any) -> None:
        with connected(Output(as_json=as_json), url, api_key) as session:
            command(session, *args, **options)

    parameters = [*given, *common]
    # What typer reads to make the options.
    run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def at(*parts: str) -> str:
    """The path of a resource; what people type can't lead to another."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


@contextmanager
def connected(out: Output, url: str | None, api_key: str | None) -> Generator[Session]:
    """A session with the server that the flags, the environment or `run.json` name.

    What the server refuses ends the command with one line and exit code 1.
    """
    # Imported when a command needs it: `parley up` and `--help` load no HTTP client.
    from app.client import ApiError, Client

    address, key = find_server(Settings.load(), url, api_key)
    with Client(address, key) as client:
        try:
            yield Session(client, out)
        except ApiError as error:
            fail(error.line)


def find_server(settings: Settings, url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """The server to talk to and the key for it.

    Raises:
        ConfigurationError: when no server is named and none runs here.
    """
    configured = settings.parley_api_key
    key = api_key or (configured.get_secret_value() if configured else None)
    if named := url or settings.parley_url:
        return named if "://" in named else f"http://{named}", key
    run = running(settings.parley_home)
    if run is None:
        raise ConfigurationError(HOW_TO_START, field="PARLEY_URL")
    return run.url, key or _own_admin_key(settings)


def _own_admin_key(settings: Settings) -> str | None:
    """The admin key of the server that runs in our own home: whoever may read the home may use it."""
    if settings.parley_admin_key:
        return settings.parley_admin_key.get_secret_value()
    home = Home(settings.parley_home)
    return home.secret("admin_key", str) if home.has_secret("admin_key") else None
