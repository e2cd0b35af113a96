"""`parley keys`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.output import ID, Column
from app.cli.session import Session, at, with_server

keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

LIST = [
    Column("KEY", "id", least=ID),
    Column("NAME", "name"),
    Column("SCOPES", "scopes"),
    Column("CREATED", "created_at"),
    Column("EXPIRES", "expires_at"),
    Column("LAST USED", "last_used_at"),
    Column("REVOKED", "revoked_at"),
    Column("EMAIL", "email"),
    Column("SLACK", "slack_user_id"),
]


@keys.command("create")
@with_server
def create_key(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, for people.", show_default=False)],
    scopes: Annotated[
        list[str],
        typer.Option("--scope", help="What it may do, such as tasks:write or admin; repeat it.", show_default=False),
    ],
    days: Annotated[int | None, typer.Option("--days", min=1, help="Days after which it stops working.")] = None,
    email: Annotated[
        str | None, typer.Option("--email", help="Whose it is: answers from this address act with it.")
    ] = None,
    slack_user: Annotated[
        str | None, typer.Option("--slack-user", help="Whose it is in Slack, such as U012AB3CD.")
    ] = None,
) -> None:
    """Create a key; it is shown this once."""
    body: dict[str, Any] = {"name": name, "scopes": scopes}
    body |= {name: value for name, value in (("email", email), ("slack_user_id", slack_user)) if value}
    if days:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    made = session.client.post("/keys", body)
    if session.out.as_json:
        return session.out.json(made)
    session.out.note("keep it now: only a hash of it is stored")
    session.out.line(made["key"])


@keys.command("list")
@with_server
def list_keys(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the list before ended.")] = None,
) -> None:
    """List keys, newest first; secrets are never shown."""
    page = session.client.get("/keys", limit=limit, cursor=cursor)
    session.out.table(page["items"], LIST, page=page)
    if page["next_cursor"]:
        session.out.note(f"there are more: --cursor {page['next_cursor']}")


@keys.command("revoke")
@with_server
def revoke_key(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id.", show_default=False)],
) -> None:
    """End a key at once."""
    session.client.delete(at("keys", key))
    session.out.record({"id": key, "revoked": True})
