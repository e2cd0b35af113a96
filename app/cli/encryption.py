"""`parley encryption`: what is sealed, and with which key."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.output import Output
from app.cli.session import AsJson
from app.embedded import with_running_servers
from app.settings import Settings

if TYPE_CHECKING:
    from app.credentials.box import Box
    from app.credentials.rotation import Tally
    from app.db import Database

encryption = typer.Typer(no_args_is_help=True, help="Check and rotate the keys that seal secrets.")

Batch = Annotated[int, typer.Option("--batch", min=1, max=10_000, help="Rows per step.")]


@encryption.command("check")
def check_encryption(batch: Batch = 200, as_json: AsJson = False) -> None:
    """Open everything that is sealed and change nothing; exit code 1 when something is unreadable."""
    from app.credentials import rotation

    _walk(lambda database, box: rotation.check(database, box, batch=batch), Output(as_json=as_json))


@encryption.command("rotate")
def rotate_encryption(batch: Batch = 200, as_json: AsJson = False) -> None:
    """Seal anew with the first key of PARLEY_ENCRYPTION_KEYS; may be stopped and begun again at any time.

    Servers and workers go on meanwhile. They need the new key first: put it before the old one, restart them, rotate,
    and take the old one away when `check` finds nothing unreadable without it.
    """
    from app.credentials import rotation

    _walk(lambda database, box: rotation.rotate(database, box, batch=batch), Output(as_json=as_json))


def _walk(steps: "Callable[[Database, Box], AsyncGenerator[Tally]]", out: Output) -> None:
    tally, wrong = asyncio.run(_totals(with_running_servers(Settings.load()), steps, out))
    for each in wrong:
        out.note(each)
    out.record({"sealed": tally.sealed, "moved": tally.moved, "unreadable": tally.unreadable})
    if tally.unreadable or wrong:
        raise typer.Exit(1)


async def _totals(
    settings: Settings, steps: "Callable[[Database, Box], AsyncGenerator[Tally]]", out: Output
) -> "tuple[Tally, list[str]]":
    # Imported when a command needs it: `--help` loads no database driver.
    from app.credentials import Box
    from app.credentials.rotation import Tally, keep_canaries
    from app.db import Database

    box, tally = Box.from_settings(settings), Tally()
    database = await Database.open(settings, name="parley encryption")
    try:
        wrong = await keep_canaries(database, box)
        async for tally in steps(database, box):
            out.note(f"{tally.sealed} looked at, {tally.moved} moved")
        return tally, wrong
    finally:
        await database.close()
