"""`parley tasks`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import ID, Column, fail, value_at
from app.cli.runs import LIST as RUNS
from app.cli.runs import Wait
from app.cli.session import Session, at, with_server
from app.cli.watch import wait_for

tasks = typer.Typer(no_args_is_help=True, help="Create, list and start tasks.")

LIST = [
    Column("TASK", "id", least=ID),
    Column("TYPE", "task_type"),
    Column("STATE", "state", least=9),
    Column("ON", "enabled", least=3),
    Column("NEXT", "next_fire_at", least=16),
    Column("TITLE", "title"),
]
MADE = [
    Column("task", "id"),
    Column("type", "task_type"),
    Column("state", "state"),
    Column("next", "next_fire_at"),
    Column("webhook", "webhook_url"),
    Column("run", "latest_run.id"),
    Column("reason", "latest_run.reason"),
]
RECEIPTS = [
    Column("RECEIPT", "id", least=ID),
    Column("RECEIVED", "received_at", least=8),
    Column("OUTCOME", "outcome", least=9),
    Column("RUN", "run_id", least=ID),
    Column("REASON", "reason"),
]
ROTATED = [Column("secret", "secret"), Column("webhook", "webhook_url")]

FIRES = [
    Column("DUE", "due_at", least=16),
    Column("UNTIL", "due_until"),
    Column("COUNT", "count"),
    Column("BY", "kind"),
    Column("OUTCOME", "outcome", least=7),
    Column("RUN", "run_id", least=ID),
    Column("REASON", "reason"),
]

Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What the agent shall do.", show_default=False)]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)]
Zone = Annotated[str | None, typer.Option("--timezone", help="IANA zone of the schedule, such as Europe/Berlin.")]


@tasks.command("list")
@with_server
def list_tasks(
    session: Session,
    task_type: Annotated[
        str | None, typer.Option("--type", help="delegation, scheduled, triggered or research.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List tasks, newest first."""
    page = session.client.get("/tasks", task_type=task_type, limit=limit, cursor=cursor)
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@tasks.command("create")
@with_server
def create_task(
    session: Session,
    prompt: Prompt = None,
    agent: Annotated[str | None, typer.Option("--agent", help="The agent's name or id.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="A title for lists.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", metavar="EXPR", help="Crontab expression: scheduled.")] = None,
    every: Annotated[int | None, typer.Option("--every", metavar="SECONDS", help="Interval: scheduled.")] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="One instant (RFC 3339): scheduled.")] = None,
    timezone: Zone = None,
    webhook: Annotated[bool, typer.Option("--webhook", help="Start it by calling its URL: triggered.")] = False,
    after: Annotated[
        list[str] | None,
        typer.Option(
            "--after", metavar="TASK[:any]", help="Wait for this task; `:any`: however it ends. May be repeated."
        ),
    ] = None,
    research: Annotated[bool, typer.Option("--research", help="A researched, cited report.")] = False,
    email: Annotated[list[str] | None, typer.Option("--email", help="Mail its outcome; may be repeated.")] = None,
    slack: Annotated[bool, typer.Option("--slack", help="Tell Slack, by SLACK_WEBHOOK_URL.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="The whole body as JSON, from a file or `-`; options go first.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Create a task: a delegation that starts at once, unless an option says when it starts."""
    body = _body_of(file)
    body |= _given(prompt=prompt, agent=agent, title=title, timezone=timezone)
    body |= _given(schedule_expression=cron, interval_seconds=every, run_at=at)
    body |= _given(depends_on=_dependencies(after or []) or None)
    body |= _notifications(email or [], slack=slack)
    kind = _kind(scheduled=bool(cron or every or at), webhook=webhook, research=research)
    if kind or "task_type" not in body:
        body["task_type"] = kind or "delegation"
    if webhook:
        body.setdefault("trigger_config", {})
    made = session.client.post("/tasks", body)
    if wait and value_at(made, "latest_run.id"):
        return wait_for(session, made["latest_run"]["id"])
    session.out.record(made, MADE)


def _body_of(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        body = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--file {file} can't be read: {error}", code=2)
    if not isinstance(body, dict):
        fail(f"--file {file} holds no JSON object", code=2)
    return body  # pyright: ignore[reportUnknownVariableType]


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _dependencies(after: list[str]) -> list[dict[str, str]]:
    """Tasks to wait for, each `TASK` or `TASK:any`."""
    parted = [each.partition(":") for each in after]
    return [{"task": task, **({"on": outcome} if outcome else {})} for task, _, outcome in parted]


def _kind(*, scheduled: bool, webhook: bool, research: bool) -> str | None:
    kinds = {"research": research, "triggered": webhook, "scheduled": scheduled}
    return next((name for name, chosen in kinds.items() if chosen), None)


def _notifications(emails: list[str], *, slack: bool) -> dict[str, Any]:
    channels = ["email"] * bool(emails) + ["slack"] * slack
    if not channels:
        return {}
    return {"notification_config": {"channels": channels} | ({"email_address": emails} if emails else {})}


@tasks.command("preview")
@with_server
def preview_schedule(
    session: Session,
    expression: Annotated[str, typer.Argument(metavar="EXPR", help="A crontab expression.", show_default=False)],
    timezone: Zone = None,
    count: Annotated[int, typer.Option("--count", help="How many instants.")] = 5,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="After this instant (RFC 3339).")] = None,
) -> None:
    """Say a schedule in words and list when it is due next."""
    body = _given(schedule_expression=expression, timezone=timezone, count=count) | ({"from": start} if start else {})
    told = session.client.post("/tasks/schedule/preview", body)
    if session.out.as_json:
        return session.out.json(told)
    session.out.line(told["description"], style="bold")
    session.out.table(instants_of(told), [Column("UTC", "utc"), Column("LOCAL", "local"), Column("NOTE", "note")])


def instants_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    """The instants of a preview as they are, in UTC and in the schedule's zone: not in that of this machine."""
    return [each | {name: _as_it_is(each[name]) for name in ("utc", "local")} for each in told["next"]]


def _as_it_is(time: str) -> str:
    return f"{time[:10]} {time[11:16]} {time[19:].replace('Z', 'UTC')}"


@tasks.command("execute")
@with_server
def execute_task(session: Session, task_id: TaskId, wait: Wait = False) -> None:
    """Start a task now."""
    started = session.client.post(at("tasks", task_id, "execute"))
    if wait:
        return wait_for(session, started["id"])
    session.out.record(started, RUNS)
    session.out.hint("watch it", f"runs tail {started['id']}")


@tasks.command("receipts")
@with_server
def list_receipts(
    session: Session,
    task_id: TaskId,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List the webhook calls of a task, newest first, with what came of them."""
    page = session.client.get(at("tasks", task_id, "receipts"), limit=limit, cursor=cursor)
    session.out.table(page["items"], RECEIPTS, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@tasks.command("replay")
@with_server
def replay_receipt(
    session: Session,
    task_id: TaskId,
    receipt_id: Annotated[str, typer.Argument(metavar="RECEIPT", help="The receipt's id.", show_default=False)],
    wait: Wait = False,
) -> None:
    """Take a webhook call again that was accepted or filtered once."""
    receipt = session.client.post(at("tasks", task_id, "receipts", receipt_id, "replay"))
    if wait and receipt["run_id"]:
        return wait_for(session, receipt["run_id"])
    session.out.record(receipt, RECEIPTS)


@tasks.command("rotate")
@with_server
def rotate_secret(
    session: Session,
    task_id: TaskId,
    secret: Annotated[str | None, typer.Option("--secret", help="The one your sender has chosen.")] = None,
    overlap: Annotated[
        int, typer.Option("--overlap", metavar="SECONDS", help="How long the secret before stays good.")
    ] = 86_400,
) -> None:
    """Give a task's webhook a new secret and show it, this once."""
    body = _given(secret=secret, overlap_seconds=overlap)
    session.out.record(session.client.post(at("tasks", task_id, "webhook", "rotate"), body), ROTATED)


@tasks.command("fires")
@with_server
def list_fires(
    session: Session,
    task_id: TaskId,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List what became of each instant at which a task was due, newest first."""
    page = session.client.get(at("tasks", task_id, "fires"), limit=limit, cursor=cursor)
    session.out.table(page["items"], FIRES, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


Ids = Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Tasks by id.", show_default=False)]
OfType = Annotated[str | None, typer.Option("--type", help="All of this type.")]
OfAgent = Annotated[str | None, typer.Option("--agent", help="All of this agent.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count them, and do nothing.")]


@tasks.command("pause")
@with_server
def pause_tasks(
    session: Session,
    task_ids: Ids = None,
    task_type: OfType = None,
    agent: OfAgent = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for those who read the tasks.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Pause tasks: neither schedule nor webhook starts them; what is running goes on."""
    wanted = _given(ids=task_ids or None, task_type=task_type, agent=agent)
    _switch(session, "pause", {"filter": wanted, "dry_run": dry_run} | _given(reason=reason))


@tasks.command("resume")
@with_server
def resume_tasks(
    session: Session,
    task_ids: Ids = None,
    task_type: OfType = None,
    agent: OfAgent = None,
    paused_for: Annotated[str | None, typer.Option("--paused-for", help="All paused for this very reason.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Resume tasks from their next instant on."""
    wanted = _given(ids=task_ids or None, task_type=task_type, agent=agent, paused_reason=paused_for)
    _switch(session, "resume", {"filter": wanted, "dry_run": dry_run})


def _switch(session: Session, action: str, body: dict[str, Any]) -> None:
    done = session.client.post(at("tasks", action), body)
    if session.out.as_json:
        return session.out.json(done)
    named = f"{done['count']} task{'' if done['count'] == 1 else 's'}"
    session.out.line(f"{named} to {action}" if body["dry_run"] else f"{named} {action}d")
