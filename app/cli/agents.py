"""`parley agents`."""

from typing import Annotated, Any

import typer

from app.cli.agent_files import Document, Sources, is_source, read_agents
from app.cli.output import Column, fail
from app.cli.session import Session, at, with_server

agents = typer.Typer(no_args_is_help=True, help="Read agents, publish their versions, and apply those kept as files.")

LIST = [
    Column("NAME", "name", least=20),
    Column("MODEL", "model", nothing="(default)"),
    Column("VERSION", "published_version"),
    Column("TOOLS", "tools"),
    Column("DESCRIPTION", "description"),
]
VERSIONS = [
    Column("VERSION", "version"),
    Column("STATUS", "status"),
    Column("MODEL", "model", nothing="(default)"),
    Column("CREATED", "created_at", least=16),
    Column("PUBLISHED", "published_at", least=16, nothing="never"),
    Column("SHA256", "sha256"),
]
APPLIED = [
    Column("AGENT", "agent", least=20),
    Column("APPLIED", "applied"),
    Column("VERSION", "version", nothing="-"),
    Column("CHANGES", "fields"),
]
# How a line of a difference is shown.
DIFF_STYLES = {"-": "red", "+": "green"}

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.", show_default=False)]
Version = Annotated[int | None, typer.Option("--version", metavar="N", help="Which version.")]


@agents.command("list")
@with_server
def list_agents(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Those that were deleted.")] = False,
) -> None:
    """List agents with their published values."""
    page = session.client.get("/agents", limit=limit, cursor=cursor, archived=archived or None)
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@agents.command("show")
@with_server
def show_agent(session: Session, agent: AgentName) -> None:
    """Show an agent's published values."""
    session.out.record(session.client.get(at("agents", agent)))


@agents.command("versions")
@with_server
def list_versions(
    session: Session,
    agent: AgentName,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List an agent's versions, newest first."""
    page = session.client.get(at("agents", agent, "versions"), limit=limit, cursor=cursor)
    session.out.table(page["items"], VERSIONS, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@agents.command("publish")
@with_server
def publish_agent(session: Session, agent: AgentName, version: Version = None) -> None:
    """Serve a version of an agent, the newest when none is named."""
    _chosen(session, agent, "publish", version)


@agents.command("rollback")
@with_server
def roll_back_agent(session: Session, agent: AgentName, version: Version = None) -> None:
    """Serve a version again that was published once; when none is named, the one published before the served one."""
    _chosen(session, agent, "rollback", version)


@agents.command("unarchive")
@with_server
def unarchive_agent(session: Session, agent: AgentName) -> None:
    """Put a deleted agent into service again, with the version it served."""
    session.out.record(session.client.post(at("agents", agent, "unarchive"), None))


def _chosen(session: Session, agent: str, action: str, version: int | None) -> None:
    served = session.client.post(at("agents", agent, action), {"version": version} if version else None)
    _warn(session, served)
    session.out.record(served)


@agents.command("export")
@with_server
def export_agent(session: Session, agent: AgentName) -> None:
    """Print an agent's published values as YAML, as `apply` takes it; with --json as JSON."""
    text = session.client.text(at("agents", agent, "export"))
    if session.out.as_json:
        (document,) = read_agents(text=text)
        return session.out.json(document.values)
    session.out.text(text, end="")


@agents.command("apply")
@with_server
def apply_agents(
    session: Session,
    files: Sources,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare alone; nothing is stored.")] = False,
    draft: Annotated[
        bool, typer.Option("--draft", help="Leave drafts to `publish`; agents that are new are served all the same.")
    ] = False,
) -> None:
    """Make agents what files say, and serve them. Applied again, the same files change nothing.

    All are checked before the first is stored: when one is refused, nothing is, and the exit code is 1. A field that a
    file leaves out takes its default. Agents that no file names stay as they are.
    """
    documents = read_agents(files)
    told = _put_all(session, documents, dry_run=True, publish=not draft)
    if not dry_run:
        told = _put_all(session, documents, dry_run=False, publish=not draft)
    rows = [{**each, "fields": [change["field"] for change in each["changes"]]} for each in told]
    session.out.table(rows, APPLIED, page=told)
    if all(each["applied"] == "unchanged" for each in told):
        session.out.note("nothing to change")
    elif dry_run:
        session.out.note("nothing was stored: this was a dry run")


@agents.command("diff")
@with_server
def diff_agents(
    session: Session,
    what: Annotated[
        list[str], typer.Argument(metavar="WHAT...", help="Files of agents, or one agent's name.", show_default=False)
    ],
    before: Annotated[int | None, typer.Option("--from", metavar="N", help="A version; else the served one.")] = None,
    after: Annotated[int | None, typer.Option("--to", metavar="N", help="A version; else the newest.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when there is a difference.")] = False,
) -> None:
    """Show what applying files would change; or, of one agent, what tells two of its versions apart.

    What ends with `.yaml` or `.yml`, a folder and `-` (standard input) are files.
    """
    found = _differences(session, what, before, after)
    if session.out.as_json:
        session.out.json(found)
    elif not any(each["changes"] for each in found):
        session.out.note("no difference")
    else:
        _show_differences(session, found)
    if exit_code and any(each["changes"] for each in found):
        raise typer.Exit(1)


def _differences(session: Session, what: list[str], before: int | None, after: int | None) -> list[dict[str, Any]]:
    if before is None and after is None and all(is_source(each) for each in what):
        return _put_all(session, read_agents(what), dry_run=True, publish=True)
    if len(what) != 1:
        fail("name files, or one agent", code=2)
    versions = {"from": before, "to": after}
    return [{"agent": what[0], **session.client.get(at("agents", what[0], "diff"), **versions)}]


def _show_differences(session: Session, found: list[dict[str, Any]]) -> None:
    for agent in found:
        if "before_published_at" in agent:
            session.out.note(f"{_told(agent, 'before')} -> {_told(agent, 'after')}")
        for change in agent["changes"]:
            session.out.line(f"{agent['agent']}: {change['field']}", style="bold")
            for line in change["lines"]:
                session.out.line(line, style=DIFF_STYLES.get(line[:1]))


def _told(diff: dict[str, Any], which: str) -> str:
    """A version of a difference, with whether it was ever served."""
    published = diff[f"{which}_published_at"]
    return f"version {diff[which]} ({f'published {published[:16]}' if published else 'never published'})"


def _put_all(session: Session, documents: list[Document], *, dry_run: bool, publish: bool) -> list[dict[str, Any]]:
    """What the server says to each of these agents; those it refuses are all told before the command fails."""
    # Imported here: `--help` loads no HTTP client.
    from app.client import ApiError

    told: list[dict[str, Any]] = []
    refused = 0
    for document in documents:
        try:
            path = at("agents", document.name)
            answer = session.client.put(path, document.values, dry_run=dry_run, publish=publish)
            told.append({"agent": document.name, **answer})
            if not dry_run:
                _warn(session, answer, document.name)
        except ApiError as error:
            refused += 1
            for line in error.lines:
                session.out.note(f"{document.source}: {document.name}: {line}", style="red")
    if refused:
        stored = "; nothing was stored" if dry_run else ""
        fail(f"{refused} of {refused + len(told)} agents refused{stored}")
    return told


def _warn(session: Session, answer: dict[str, Any], name: str | None = None) -> None:
    for warning in answer["warnings"]:
        session.out.note(f"{name or answer['name']}: {warning['detail']}", style="yellow")
