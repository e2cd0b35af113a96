"""The `parley` command.

No module of this package loads what only some commands need: the supervisor of `parley up` stays small and `--help` is
quick. What is heavy is imported inside the command that uses it.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app import __version__
from app.cli import chat, developer, doctor, outbox, processes, runs
from app.cli.agents import agents
from app.cli.approvals import approvals
from app.cli.encryption import encryption
from app.cli.keys import keys
from app.cli.notify import notify
from app.cli.output import fail
from app.cli.runs import runs as runs_group
from app.cli.tasks import tasks
from app.cli.tools import tools
from app.errors import ParleyError


class Root(TyperGroup):
    """Says our own errors on one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error with a name is exit code 1."""
        try:
            return super().invoke(ctx)
        except ParleyError as error:
            fail(error.detail)


ABOUT = "Background jobs done by AI agents: every interaction is a conversation."
PROCESSES = "Processes"
WORK = "Work"
OPERATION = "Operation"


def _make() -> typer.Typer:
    """The command with all its commands, in the order of the help."""
    root = typer.Typer(
        name="parley",
        cls=Root,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=ABOUT,
        epilog="Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 130 stopped by Ctrl-C.",
    )
    root.callback(help=ABOUT)(_options)
    for process in (processes.up, processes.serve, processes.worker, processes.scheduler, processes.migrate):
        root.command(rich_help_panel=PROCESSES)(process)
    root.command(rich_help_panel=WORK)(chat.chat)
    root.command(rich_help_panel=WORK)(runs.run)
    groups = {"runs": runs_group, "tasks": tasks, "approvals": approvals, "agents": agents, "tools": tools}
    for name, group in groups.items():
        root.add_typer(group, name=name, rich_help_panel=WORK)
    root.add_typer(keys, name="keys", rich_help_panel=OPERATION)
    root.add_typer(notify, name="notify", rich_help_panel=OPERATION)
    root.add_typer(encryption, name="encryption", rich_help_panel=OPERATION)
    root.command(rich_help_panel=OPERATION)(doctor.doctor)
    root.command(rich_help_panel=OPERATION)(outbox.outbox)
    root.command(rich_help_panel=OPERATION)(developer.openapi)
    root.command(rich_help_panel=OPERATION, context_settings=developer.PASS_ON)(developer.bench)
    return root


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"parley {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before any command."""
    del version


parley = _make()


def main() -> None:
    """The entry point."""
    parley(prog_name="parley")
