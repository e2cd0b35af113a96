"""`parley approvals`."""

import json
from typing import Annotated, Any

import typer

from app.cli.output import ID, Column, fail
from app.cli.session import Session, at, with_server

approvals = typer.Typer(no_args_is_help=True, help="What runs ask people: read it, and decide it.")

LIST = [
    Column("APPROVAL", "id", least=ID),
    Column("KIND", "kind", least=8),
    Column("STATE", "state", least=8),
    Column("AGENT", "agent"),
    Column("TOOL", "tool"),
    Column("ARGUMENTS", "arguments"),
    Column("EXPIRES", "expires_at", least=16, nothing="never"),
]
ALL = "all"

ApprovalId = Annotated[str, typer.Argument(metavar="APPROVAL", help="Its id.", show_default=False)]


@approvals.command("list")
@with_server
def list_approvals(
    session: Session,
    state: Annotated[
        str, typer.Option("--state", help="pending, approved, denied, expired, cancelled, or all.")
    ] = "pending",
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="Only those of this run.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List what is waiting for a person, newest first."""
    wanted = None if state == ALL else state
    page = session.client.get("/approvals", state=wanted, run_id=run, limit=limit, cursor=cursor)
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@approvals.command("show")
@with_server
def show_approval(session: Session, approval_id: ApprovalId) -> None:
    """Show an approval whole: what is asked, of which run, and what was decided."""
    session.out.record(session.client.get(at("approvals", approval_id)))


@approvals.command("approve")
@with_server
def approve(
    session: Session,
    approval_id: ApprovalId,
    arguments: Annotated[
        str | None, typer.Option("--arguments", metavar="JSON", help="Call the tool with these instead.")
    ] = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="Of a call that was cut off: happened, repeat or fail.")
    ] = None,
) -> None:
    """Let a call be made; or say what became of one that was cut off."""
    edited = _json(arguments) if arguments else {"outcome": outcome} if outcome else None
    _decide(session, approval_id, {"decision": "approve", "arguments": edited})


@approvals.command("deny")
@with_server
def deny(
    session: Session,
    approval_id: ApprovalId,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; the model is told.")] = None,
) -> None:
    """Refuse a call, or leave a question without an answer."""
    _decide(session, approval_id, {"decision": "deny", "reason": reason})


@approvals.command("answer")
@with_server
def answer(
    session: Session,
    approval_id: ApprovalId,
    text: Annotated[str, typer.Argument(metavar="ANSWER", help="What the agent is told.", show_default=False)],
) -> None:
    """Answer a question of an agent."""
    _decide(session, approval_id, {"decision": "approve", "arguments": {"answer": text}})


def _decide(session: Session, approval_id: str, said: dict[str, Any]) -> None:
    body = {name: value for name, value in said.items() if value is not None}
    decided = session.client.post(at("approvals", approval_id, "decision"), body)
    session.out.record(decided)
    if not session.out.as_json:
        session.out.hint("watch it", f"runs tail {decided['run_id']}")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        fail(f"--arguments holds no JSON: {error}", code=2)
