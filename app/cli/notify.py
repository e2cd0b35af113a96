"""`parley notify`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.output import ID, Column
from app.cli.session import Session, with_server

notify = typer.Typer(no_args_is_help=True, help="Try the channels, see messages, send them again.")

LIST = [
    Column("DELIVERY", "id", least=ID),
    Column("STATE", "state"),
    Column("EVENT", "event"),
    Column("CHANNEL", "channel"),
    Column("ADDRESS", "address"),
    Column("TRIES", "attempts"),
    Column("WHY", "why"),
]
TRIED = [
    Column("CHANNEL", "channel"),
    Column("ADDRESS", "address"),
    Column("OK", "ok"),
    Column("MS", "duration_ms"),
    Column("DETAIL", "detail"),
]

Task = Annotated[str | None, typer.Option("--task", metavar="ID", help="A task.", show_default=False)]
ByChannel = Annotated[str | None, typer.Option("--channel", help="By this channel.", show_default=False)]


@notify.command("test")
@with_server
def try_channels(
    session: Session,
    task: Task = None,
    email: Annotated[list[str] | None, typer.Option("--email", metavar="ADDRESS", help="Repeatable.")] = None,
    slack: Annotated[bool, typer.Option("--slack", help="The server's Slack webhook.")] = False,
    slack_channel: Annotated[str | None, typer.Option("--slack-channel", metavar="#NAME", help="By the bot.")] = None,
    callback: Annotated[str | None, typer.Option("--callback", metavar="URL", help="By a signed call.")] = None,
) -> None:
    """Send a test message now, to a task's addresses or to these, and say what happened; exit code 1 if one failed."""
    if task:
        body: dict[str, Any] = {"task_id": task}
    else:
        given = {"email_address": email, "slack_channel": slack_channel, "callback_url": callback}
        config: dict[str, Any] = {name: value for name, value in given.items() if value}
        if slack:
            config["channels"] = ["slack", *(["email"] if email else []), *(["webhook"] if callback else [])]
        body = {"notification_config": config}
    answer = session.client.post("/notifications/test", body)
    session.out.table(answer["results"], TRIED, page=answer)
    if not answer["results"]:
        session.out.note("nobody to tell: name a --task, an --email, --slack, a --slack-channel or a --callback")
    if not answer["results"] or not all(each["ok"] for each in answer["results"]):
        raise typer.Exit(1)


@notify.command("preview")
@with_server
def preview(
    session: Session,
    delivery: Annotated[str | None, typer.Argument(metavar="[DELIVERY]", help="One that there is.")] = None,
    event: Annotated[str, typer.Option("--event", help="Of a sample: completed, failed, waiting ...")] = "completed",
    html: Annotated[bool, typer.Option("--html", help="As HTML.")] = False,
    blocks: Annotated[bool, typer.Option("--blocks", help="As Slack's blocks.")] = False,
) -> None:
    """Show a message as its receivers see it: as text, as HTML, or as Slack's blocks; nothing is sent."""
    answer = session.client.post("/notifications/preview", {"delivery_id": delivery} if delivery else {"event": event})
    if session.out.as_json or blocks:
        return session.out.json(answer["blocks"] if blocks else answer)
    session.out.text(answer["html"] if html else f"Subject: {answer['subject']}\n\n{answer['text']}")


@notify.command("list")
@with_server
def list_deliveries(
    session: Session,
    state: Annotated[str | None, typer.Option("--state", help="pending, sending, sent, dead, suppressed.")] = None,
    channel: ByChannel = None,
    task: Task = None,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List deliveries, newest first."""
    page = session.client.get("/deliveries", state=state, channel=channel, task_id=task, limit=limit, cursor=cursor)
    rows = [{**row, "why": row["last_error"] or row["reason"]} for row in page["items"]]
    session.out.table(rows, LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@notify.command("resend")
@with_server
def resend(
    session: Session,
    deliveries: Annotated[list[str] | None, typer.Argument(metavar="[DELIVERY]...", help="These.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="dead (the default), sent or suppressed.")] = None,
    channel: ByChannel = None,
    task: Task = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0, help="Made in these last hours.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
) -> None:
    """Send deliveries again, by id or by filter; each at most once."""
    since = (datetime.now(UTC) - timedelta(hours=hours)).isoformat() if hours is not None else None
    given = {"ids": deliveries or None, "state": state, "channel": channel, "task_id": task, "since": since}
    kept = {name: value for name, value in given.items() if value is not None}
    answer = session.client.post("/deliveries/resend", {"filter": kept, "dry_run": dry_run})
    if session.out.as_json:
        return session.out.json(answer)
    session.out.line(f"{answer['count']} {'would be' if dry_run else 'are'} sent again")
