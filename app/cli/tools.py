"""`parley tools`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from app.cli.output import ID, Column, fail
from app.cli.session import Session, at, with_server

tools = typer.Typer(no_args_is_help=True, help="Read the tools agents may call, call one by hand, see past calls.")

LIST = [
    Column("TOOL", "name", least=20),
    Column("KIND", "kind"),
    Column("RISK", "risk"),
    Column("ON", "enabled", least=3),
    Column("VERSION", "version", nothing="-"),
    Column("DESCRIPTION", "description"),
]
CALLS = [
    Column("CALL", "id", least=ID),
    Column("STATE", "state", least=7),
    Column("AT", "created_at", least=16),
    Column("MS", "duration_ms", nothing="-"),
    Column("USD", "cost_usd", nothing="?"),
    Column("RUN", "run_id", nothing="by hand"),
    Column("ERROR", "error"),
]
DONE = [Column("result", "result"), Column("error", "error"), Column("milliseconds", "duration_ms")]

Name = Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", help="How many.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")]


@tools.command("list")
@with_server
def list_tools(
    session: Session,
    kind: Annotated[
        str | None, typer.Option("--kind", help="builtin, extension, python, http, openapi or mcp.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> None:
    """List tools by name."""
    page = session.client.get("/tools", kind=kind, limit=limit, cursor=cursor)
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@tools.command("show")
@with_server
def show_tool(session: Session, tool: Name) -> None:
    """Show a tool with its schemas, its policy and its limits."""
    session.out.record(session.client.get(at("tools", tool)))


@tools.command("test")
@with_server
def call_tool(
    session: Session,
    tool: Name,
    arguments: Annotated[
        str | None, typer.Option("--arguments", metavar="JSON", help="A JSON object, `@FILE`, or `@-`: standard input.")
    ] = None,
    one: Annotated[
        list[str] | None, typer.Option("-a", "--argument", metavar="NAME=VALUE", help="One argument; may be repeated.")
    ] = None,
) -> None:
    """Call a tool by hand and print its result; exit code 1 when it fails."""
    given = _read(arguments) if arguments else {}
    given |= _named(session, tool, one) if one else {}
    done = session.client.post(at("tools", tool, "execute"), {"arguments": given})
    session.out.record(done, DONE)
    if done["error"] is not None:
        raise typer.Exit(1)


def _read(text: str) -> dict[str, Any]:
    try:
        if text.startswith("@"):
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError) as error:
        fail(f"--arguments can't be read: {error}", code=2)
    if not isinstance(value, dict):
        fail("--arguments is no JSON object", code=2)
    return cast("dict[str, Any]", value)


def _named(session: Session, tool: str, pairs: list[str]) -> dict[str, Any]:
    """Arguments one by one: text where the tool takes text, else JSON where it is such."""
    properties: dict[str, Any] = session.client.get(at("tools", tool))["parameters"].get("properties", {})
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"-a {pair}: must be NAME=VALUE", code=2)
        given[name] = value if properties.get(name, {}).get("type") == "string" else _value(value)
    return given


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@tools.command("calls")
@with_server
def list_calls(
    session: Session,
    tool: Name,
    state: Annotated[str | None, typer.Option("--state", help="done, failed, denied, unknown ...")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> None:
    """List a tool's calls, newest first, under their numbers of the last seven days."""
    page = session.client.get(at("tools", tool, "calls"), state=state, limit=limit, cursor=cursor)
    stats = session.client.get(at("tools", tool, "stats"))
    session.out.table(page["items"], CALLS, page=page)
    session.out.note(_numbers(stats))
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


def _numbers(stats: dict[str, Any]) -> str:
    if not stats["calls"]:
        return "no calls in the last seven days"
    took = stats["duration_ms"]
    latency = "" if took["p50"] is None else f", p50 {took['p50']:.4g} ms, p95 {took['p95']:.4g} ms"
    errors = "" if stats["error_rate"] is None else f", {stats['error_rate']:.1%} errors"
    return f"{stats['calls']} calls in the last seven days{errors}{latency}, {stats['cost_usd']:.4g} USD"
