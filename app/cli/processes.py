"""The commands that are processes: `up` and what it starts, each of which can also run alone.

Every process imports what it needs when it starts: the supervisor loads none of the libraries its children work with.
"""

import asyncio
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import embedded
from app.embedded.ports import api_port
from app.errors import ConfigurationError, DatabaseUnavailable
from app.settings import Settings, set_in_vain

if TYPE_CHECKING:
    from alembic.config import Config

CHECKOUT = Path(__file__).parents[2]
# Readers of a stream never hang up by themselves; they come back with their cursor.
SHUTDOWN_SECONDS = 3


def up() -> None:
    """Start everything in one process tree: PostgreSQL, Valkey, the API, workers, the scheduler.

    A store whose URL is set is used instead of an embedded one. Ctrl-C stops everything.
    """
    _warn()
    raise typer.Exit(embedded.up(Settings.load()))


def serve(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; else PARLEY_HOST, 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port to listen on; else PARLEY_PORT, or the first free one from 8000.")
    ] = None,
) -> None:
    """Run the API alone."""
    _warn()
    flags = {"parley_host": host, "parley_port": port}
    settings = _settings(**{name: value for name, value in flags.items() if value is not None})
    settings.dsn()  # refused here in one line, and not by the application's start
    with _port(settings) as chosen:
        _serve(settings.model_copy(update={"parley_port": chosen}))


def _warn() -> None:
    """Say which settings have no effect."""
    for sentence in set_in_vain():
        typer.echo(f"warning: {sentence}", err=True)


def _settings(**flags: Any) -> Settings:
    return embedded.with_running_servers(Settings.load(**flags))


def _port(settings: Settings) -> AbstractContextManager[int]:
    """The port that is set, or the first free one."""
    if settings.parley_port is not None:
        return nullcontext(settings.parley_port)
    return api_port(settings.parley_host, None)


def _serve(settings: Settings) -> None:
    import uvicorn

    from app import telemetry
    from app.main import create_app

    telemetry.configure(settings)
    uvicorn.run(
        create_app(settings),
        host=settings.parley_host.strip("[]"),
        port=settings.parley_port or 0,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def worker() -> None:
    """Run a worker alone: it executes runs and sends notifications."""
    import uvloop

    from app import telemetry
    from workers.worker import main

    settings = _settings()
    telemetry.configure(settings)
    uvloop.run(main(settings))


def scheduler() -> None:
    """Run the scheduler alone: it starts tasks when they are due."""
    import uvloop

    from app import telemetry
    from workers.scheduler import main

    settings = _settings()
    telemetry.configure(settings)
    uvloop.run(main(settings))


def migrate() -> None:
    """Bring the database to the newest schema."""
    from alembic import command
    from sqlalchemy.exc import SQLAlchemyError

    config = alembic_config(_settings().dsn())
    try:
        command.upgrade(config, "head")
    except (OSError, SQLAlchemyError) as error:
        # SQLAlchemy puts the name of the driver's class first.
        said = re.sub(r"^\([\w.]+\) ", "", str(error).splitlines()[0])
        raise DatabaseUnavailable(f"the database could not be migrated: {said}") from error
    asyncio.run(_enable_vectors(_settings().dsn()))
    typer.echo(f"the schema is at {newest_schema(config)}")


async def _enable_vectors(dsn: str) -> None:
    """Make the table of vectors where pgvector has come to the server since the migration that would have made it."""
    from app.db import lone_connection
    from app.knowledge import vectors

    async with lone_connection(dsn, name="parley migrate") as connection:
        await vectors.enable(connection)


def alembic_config(dsn: str | None = None) -> "Config":
    """Alembic's configuration of this checkout.

    Raises:
        ConfigurationError: outside a checkout.
    """
    from alembic.config import Config

    project = CHECKOUT / "pyproject.toml"
    if not (CHECKOUT / "alembic").is_dir() or not project.exists():
        raise ConfigurationError(f"the migrations are not in {CHECKOUT}: run this in a checkout of Parley")
    config = Config(toml_file=project)
    config.attributes["dsn"] = dsn
    return config


def newest_schema(config: "Config") -> str | None:
    """The migration that this version needs."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config).get_current_head()
