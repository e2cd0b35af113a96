"""`parley agents`."""

from typing import Annotated

import typer

from app.cli.output import Column
from app.cli.session import Session, at, with_server

agents = typer.Typer(no_args_is_help=True, help="Read agents.")

LIST = [
    Column("NAME", "name", least=20),
    Column("MODEL", "model", nothing="(default)"),
    Column("VERSION", "published_version"),
    Column("TOOLS", "tools"),
    Column("DESCRIPTION", "description"),
]


@agents.command("list")
@with_server
def list_agents(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List agents with their published values."""
    page = session.client.get("/agents", limit=limit, cursor=cursor)
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@agents.command("show")
@with_server
def show_agent(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.", show_default=False)],
) -> None:
    """Show an agent's published values."""
    session.out.record(session.client.get(at("agents", agent)))
