"""`parley run` and `parley runs`."""

from typing import Annotated, Any

import typer

from app.cli.output import ID, Column, fail, program, shown, value_at
from app.cli.session import Attach, Session, at, with_server
from app.cli.watch import Transcript, wait_for

runs = typer.Typer(no_args_is_help=True, help="Read, watch, cancel and retry runs.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Show its progress, then print its result.")]

LIST = [
    Column("RUN", "id", least=ID),
    Column("STATE", "state", least=9),
    Column("QUEUED", "queued_at", least=8),
    Column("AGENT", "agent"),
    Column("MODEL", "model"),
    Column("REASON", "reason"),
]
STEPS = [
    Column("#", "seq"),
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("STARTED", "started_at"),
    Column("MS", "duration_ms"),
    Column("INPUT", "input"),
    Column("OUTPUT", "output"),
    Column("ERROR", "error"),
]


@with_server
def run(
    session: Session,
    agent: Annotated[
        str | None, typer.Argument(metavar="AGENT", help="The agent's name or id; `assistant` when left out.")
    ] = None,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="What it shall do.", show_default=False)] = None,
    wait: Wait = False,
    research: Annotated[bool, typer.Option("--research", help="Plan, read sources and write a cited report.")] = False,
    title: Annotated[str | None, typer.Option("--title", help="A title for lists.")] = None,
    attach: Attach = None,
) -> None:
    """Delegate a task to an agent; with --wait the exit code is 0 when it completed and 1 when not."""
    if agent is None:
        fail("say what it shall do: parley run [AGENT] TASK", code=2)
    if task is None:  # One word alone is the task.
        agent, task = "assistant", agent
    body: dict[str, Any] = {"task_type": "research" if research else "delegation", "agent": agent, "prompt": task}
    body |= session.attached(attach)
    made = session.client.post("/tasks", body | ({"title": title} if title else {}))
    run_id = value_at(made, "latest_run.id")
    if wait:
        return wait_for(session, run_id)
    session.out.record(made, [Column("task", "id"), Column("run", "latest_run.id"), Column("state", "state")])
    session.out.hint("watch it", f"runs tail {run_id}")


@runs.command("list")
@with_server
def list_runs(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", help="Only runs in this state.")] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="ID", help="Only runs of this task.")] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", metavar="ID", help="Only runs of this conversation.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List runs, newest first."""
    page = session.client.get(
        "/runs", state=state, task_id=task, conversation_id=conversation, limit=limit, cursor=cursor
    )
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@runs.command("show")
@with_server
def show_run(
    session: Session,
    run_id: RunId,
    steps: Annotated[bool, typer.Option("--steps", help="Its model responses and tool calls.")] = False,
) -> None:
    """Show a run: state, result, error, usage."""
    if steps:
        page = session.client.get(at("runs", run_id, "steps"))
        return session.out.table(page["items"], STEPS, page=page)
    session.out.record(session.client.get(at("runs", run_id)))


@runs.command("explain")
@with_server
def explain_run(session: Session, run_id: RunId) -> None:
    """Say why a run is where it is, since when, and what to do next."""
    told = session.client.get(at("runs", run_id, "explain"))
    if session.out.as_json:
        return session.out.json(told)
    session.out.record({name: value for name, value in told.items() if name != "next_action"})
    action = [shown(value_at(told, f"next_action.{part}")) for part in ("what", "command")]
    if any(action):
        session.out.line("  ".join(action).replace("  parley ", f"  {program()} "), style="bold")


@runs.command("tail")
@with_server
def tail_run(
    session: Session,
    run_id: RunId,
    after: Annotated[int | None, typer.Option("--after", metavar="N", help="Begin after this event number.")] = None,
) -> None:
    """Watch a run's events to its end, through broken connections; with --json one event per line."""
    transcript = Transcript(session.out, every=True)
    start = None if after is None else str(after)
    for event in session.client.follow(at("runs", run_id, "events"), after=start):
        if session.out.as_json:
            session.out.json_line({"id": event.id, "event": event.name, "data": event.data})
        else:
            transcript.show(event)
    transcript.end_line()


@runs.command("cancel")
@with_server
def cancel_run(
    session: Session,
    run_id: RunId,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for those who read the run.")] = None,
) -> None:
    """Cancel a run; what it has written so far is kept."""
    session.out.record(session.client.post(at("runs", run_id, "cancel"), {"reason": reason} if reason else {}), LIST)


@runs.command("retry")
@with_server
def retry_run(
    session: Session,
    run_id: RunId,
    origin: Annotated[str, typer.Option("--from", metavar="WHERE", help="failed_step, start or fork.")] = "failed_step",
    say: Annotated[str | None, typer.Option("--input", help="Said instead of the run's input.")] = None,
    wait: Wait = False,
) -> None:
    """Try a run again, as a new run."""
    body = {"from": origin} | ({"input": say} if say else {})
    made = session.client.post(at("runs", run_id, "retry"), body)
    if wait:
        return wait_for(session, made["id"])
    session.out.record(made, LIST)
    session.out.hint("watch it", f"runs tail {made['id']}")
