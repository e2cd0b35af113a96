"""What `parley doctor` looks at, one function per thing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import aiosmtplib

from app import extensions, sql
from app.cli.processes import alembic_config, newest_schema
from app.credentials import Box
from app.credentials.needs import unreadable_everywhere
from app.credentials.rotation import has_canaries, wrong_keys
from app.db import TENANT_ROLE, Database
from app.embedded import running
from app.embedded.carriers import find_postgres, find_valkey
from app.embedded.ports import FIRST_PORT, LAST_PORT, taken
from app.errors import ConfigurationError, ParleyError
from app.knowledge import vectors
from app.notifications.smtp import connection_options
from app.providers import default_embedder, default_model, missing_key
from app.redis import connect, ping
from app.settings import Settings, place_of
from app.tools import registry

State = Literal["ok", "warning", "broken"]
SMTP_SECONDS = 5.0
HOW_TO_START = "`python3 dev.py` starts an embedded one"


@dataclass(frozen=True)
class Check:
    """What was found."""

    name: str
    state: State
    detail: str

    @property
    def shown(self) -> dict[str, str]:
        """The check as it is printed."""
        return {"check": self.name, "state": self.state, "detail": self.detail}


async def run_checks(settings: Settings) -> list[Check]:
    """Check everything; one that fails keeps no other from running."""
    checks: list[tuple[str, Callable[[Settings], Awaitable[list[Check]]]]] = [
        ("server", _server),
        ("authentication", _authentication),
        ("database", _database),
        ("redis", _redis),
        ("model", _model),
        ("mail", _mail),
        ("sql tools", _sql_tools),
        ("encryption keys", _encryption_keys),
    ]
    return [found for name, check in checks for found in await _checked(name, check, settings)]


async def _checked(name: str, check: Callable[[Settings], Awaitable[list[Check]]], settings: Settings) -> list[Check]:
    try:
        return await check(settings)
    except ParleyError as error:
        return [Check(name, "broken", error.detail)]


async def _server(settings: Settings) -> list[Check]:
    run = running(settings.parley_home)
    if run is not None:
        return [Check("server", "ok", f"{run.url} (process {run.supervisor})")]
    wanted = settings.parley_port
    free = [port for port in ([wanted] if wanted else range(FIRST_PORT, LAST_PORT + 1))
            if not taken(settings.parley_host, port)]  # fmt: skip
    if not free:
        raise ConfigurationError(f"no port is free on {settings.parley_host}: stop what listens or set PARLEY_PORT")
    detail = f"nothing runs in {settings.parley_home}; port {free[0]} is free"
    return [Check("server", "ok", detail)]


async def _tools(database: Database, settings: Settings) -> list[Check]:
    """Tools that nobody reaches, as the installation has others of their names."""
    extensions.load(settings)
    out_of_reach = await registry.hidden(database)
    return [
        Check(
            "tools", "warning", f"{name} of {count} workspaces is out of reach: the installation has another; delete it"
        )
        for name, count in out_of_reach.items()
    ]


async def _authentication(settings: Settings) -> list[Check]:
    on = settings.auth_on
    return [Check("authentication", "ok", "on" if on else f"off: only this machine reaches {settings.parley_host}")]


async def _database(settings: Settings) -> list[Check]:
    if settings.database_url is None:
        binaries = find_postgres(settings.parley_pg_bin)
        return [Check("database", "ok", f"not running; {HOW_TO_START} ({binaries.binary})")]
    database = await Database.open(settings, name="parley-doctor")
    try:
        version = await database.fetchval("select current_setting('server_version')")
        found = [Check("database", "ok", f"PostgreSQL {version}"), await _schema(database), _role_net(database)]
        found += [await _vectors(database, settings), *await _credentials(database, settings)]
        return [*found, *await _tools(database, settings)]
    finally:
        await database.close()


async def _schema(database: Database) -> Check:
    newest = newest_schema(alembic_config())
    there = await database.fetchval("select to_regclass('public.alembic_version') is not null")
    found = await database.fetchval("select version_num from alembic_version") if there else None
    if found == newest:
        return Check("migrations", "ok", f"the schema is at {found}")
    return Check("migrations", "broken", f"the schema is at {found}, this version needs {newest}: parley migrate")


async def _vectors(database: Database, settings: Settings) -> Check:
    state = await vectors.state(database)
    if state == "ready":
        model, reason = default_embedder(settings)
        return Check("document vectors", "ok", f"pgvector is in use; {model} makes them: {reason}")
    if state == "available":
        said = (
            "pgvector is on the server and not in use: `create extension vector` in this database, then parley migrate"
        )
        return Check("document vectors", "warning", f"off: {said}")
    return Check("document vectors", "warning", "off: the server has no pgvector; documents are found by words alone")


async def _credentials(database: Database, settings: Settings) -> list[Check]:
    """Keys that are wrong or missing; credentials that they do not open, with whose calls wait for them."""
    if not await has_canaries(database):
        return []
    box = Box.from_settings(settings)
    wrong = [Check("encryption keys", "broken", each) for each in await wrong_keys(database, box)]
    shut = await unreadable_everywhere(database, box)
    return wrong + (
        [
            Check(
                "credentials",
                "broken" if need.tools else "warning",
                f"{name} is unreadable: set its key in PARLEY_ENCRYPTION_KEYS, or keep its secret anew; needed by "
                f"the tools {', '.join(need.tools) or 'none'} and the agents {', '.join(need.agents) or 'none'}",
            )
            for name, need in shut
        ]
        or [Check("credentials", "ok", "all are readable")]
    )


def _role_net(database: Database) -> Check:
    if database.has_net:
        return Check("role net", "ok", f"sessions take the role {TENANT_ROLE}, row-level security backs up every query")
    return Check("role net", "warning", f"off: the role {TENANT_ROLE} can't be taken; every query filters by workspace")


async def _redis(settings: Settings) -> list[Check]:
    url = settings.redis_dsn()
    if url is None:
        found = find_valkey(settings.parley_valkey_bin)
        return [Check("redis", "ok", f"not running; {HOW_TO_START} ({found.binary})")]
    client = connect(url)
    try:
        if await ping(client):
            return [Check("redis", "ok", "answers")]
    finally:
        await client.aclose()
    return [Check("redis", "broken", "does not answer: runs start on a timer, and streams poll, until it does")]


async def _model(settings: Settings) -> list[Check]:
    model, reason = default_model(settings)
    missing = missing_key(settings, model)
    return [Check("model", "broken" if missing else "ok", f"{model}: {reason}")]


async def _mail(settings: Settings) -> list[Check]:
    found = await _mail_of(settings)
    run = running(settings.parley_home)
    if run is None:
        return found
    # A server reads its settings when it starts: what is set here now may be news to it.
    whose = f"(by the settings here; {run.url} has those it was started with: GET /settings)"
    return [replace(each, detail=f"{each.detail} {whose}") for each in found]


async def _mail_of(settings: Settings) -> list[Check]:
    if settings.smtp_host is None:
        return [Check("mail", "ok", f"captured in {settings.parley_home / 'outbox'}: SMTP_HOST is not set")]
    options: dict[str, Any] = {**connection_options(settings), "timeout": SMTP_SECONDS}
    try:
        async with asyncio.timeout(SMTP_SECONDS), aiosmtplib.SMTP(**options):
            return [Check("mail", "ok", f"{options['hostname']}:{options['port']} lets us in")]
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        said = str(error) or type(error).__name__
        return [Check("mail", "broken", f"{options['hostname']}:{options['port']} can't be used: {said}")]


async def _sql_tools(settings: Settings) -> list[Check]:
    if settings.sql_tool_url is None:
        return [Check("sql tools", "ok", "not offered: SQL_TOOL_URL is not set")]
    if sql.names_our_own(settings):
        said = "not offered: SQL_TOOL_URL is Parley's own database with Parley's own role; make one that only reads"
        return [Check("sql tools", "broken", said)]
    role = await sql.examine(settings)
    place = place_of(settings.sql_tool_url.get_secret_value())
    if role.writable:
        said = f"the role {role.name} could write to {role.writable}; only read-only transactions keep it from that"
        return [Check("sql tools", "warning", f"{place}: {said}")]
    return [Check("sql tools", "ok", f"{place}, as {role.name}, which only reads")]


async def _encryption_keys(settings: Settings) -> list[Check]:
    box = Box.from_settings(settings)
    if not box.keys:
        return [
            Check("encryption keys", "ok", "made and kept at the first `parley up`; PARLEY_ENCRYPTION_KEYS is not set")
        ]
    return [Check("encryption keys", "ok", f"{len(box.keys)} set, {box.sealing_key_id()} seals")]
