"""`parley outbox`: the mails that were captured because no SMTP server is set."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import Column, Output, fail
from app.cli.session import AsJson
from app.settings import Settings

LIST = [Column("#", "number"), Column("DATE", "date"), Column("TO", "to"), Column("SUBJECT", "subject")]


def outbox(
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", min=1, help="Show this mail; 1 is the newest.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the mails captured in PARLEY_HOME/outbox, newest first, or show one."""
    out = Output(as_json=as_json)
    folder = Settings.load().parley_home / "outbox"
    files = sorted(folder.glob("*.eml"), reverse=True)
    if number is None:
        out.table([_head(place, file) for place, file in enumerate(files[:limit], start=1)], LIST)
        if not files:
            out.note(f"no mail was captured in {folder}")
        return
    if number > len(files):
        fail(f"there is no mail {number}: {folder} holds {len(files)}")
    _show(out, number, files[number - 1])


def _show(out: Output, number: int, file: Path) -> None:
    head, mail = _head(number, file), _read(file)
    body = mail.get_body(("plain",))
    text = body.get_content() if body else ""
    if out.as_json:
        return out.json({**head, "text": text})
    out.record({name: head[name] for name in ("from", "to", "subject", "date", "file")})
    out.text(f"\n{text}")


def _head(number: int, file: Path) -> dict[str, str | int]:
    mail = _read(file)
    names = ("from", "to", "subject", "date")
    return {"number": number, **{name: str(mail[name] or "") for name in names}, "file": str(file)}


def _read(file: Path) -> EmailMessage:
    return message_from_bytes(file.read_bytes(), policy=default)
