"""`parley up`: the servers that are not set, the migrations, the API, workers and scheduler, in one process tree."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, cast

from pydantic import SecretStr

from app.embedded.account import private_file
from app.embedded.home import Home, admin_key, encryption_keys, password
from app.embedded.migrations import Migrations
from app.embedded.ports import FIRST_PORT, api_port
from app.embedded.processes import Child
from app.embedded.servers import Servers
from app.embedded.supervisor import TEND_SECONDS, StopRequested, StopSignals, Supervisor
from app.errors import ParleyError, Unavailable
from app.settings import Settings, child_environment

PROGRAM = (sys.executable, "-m", "app.cli")
READY_SECONDS = 60.0
DEATHS_AT_START = 3
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104 - names what others bound

Say = Callable[[str], None]


def write_line(line: str) -> None:
    """Write a line to standard output at once; a closed terminal or pipe must not end the servers."""
    with suppress(OSError, ValueError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def up(settings: Settings, *, say: Say = write_line, program: Sequence[str] = PROGRAM) -> int:
    """Run everything until a signal stops it.

    Args:
        settings: The settings; a store without a URL gets its embedded server.
        say: Tells the person who started it.
        program: The command that takes `migrate`, `serve`, `worker` and `scheduler`.

    Returns:
        The exit code: 0 after an orderly stop, 1 when it could not start.
    """
    with StopSignals() as signals:
        try:
            _run(settings, signals, say, program)
        except StopRequested:
            say("Stopped.")
        except ParleyError as error:
            say(f"parley: {error.detail}")
            return 1
    return 0


def _run(settings: Settings, signals: StopSignals, say: Say, program: Sequence[str]) -> None:
    auth_on = settings.auth_on  # refuses settings that would open the server to others, before anything starts
    with _servers(settings, signals) as servers, api_port(settings.parley_host, settings.parley_port) as port:
        url = f"http://{_reachable(settings.parley_host)}:{port}"
        given = _handed_down(settings, servers, port, url, auth_on)
        environment = child_environment(given)
        migrations = Migrations(servers, program, environment)
        migrations.run_if_needed()
        published = {"url": url, "database_url": given["DATABASE_URL"], "redis_url": given["REDIS_URL"]}
        supervisor = Supervisor(servers, _children(program, settings.parley_workers, port, environment), published, say)
        try:
            supervisor.start()
            ready = _wait_until_ready(supervisor, url, migrations, signals.pause)
            for line in _summary(settings, servers, url, ready, given):
                say(line)
            supervisor.run(signals.pause)
        finally:
            if signals.requested:
                say("Stopping ...")
            supervisor.stop()


def _servers(settings: Settings, signals: StopSignals) -> Servers:
    return Servers(
        settings.parley_home,
        postgres=settings.database_url is None,
        valkey=settings.redis_url is None,
        pg_bin=settings.parley_pg_bin,
        valkey_bin=settings.parley_valkey_bin,
        pause=signals.pause,
    )


def _reachable(host: str) -> str:
    """An address under which this machine reaches a server bound to `host`."""
    if host in EVERYWHERE:
        return EVERYWHERE[host]
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _handed_down(settings: Settings, servers: Servers, port: int, url: str, auth_on: bool) -> dict[str, str]:
    """The settings our children get from us: where the stores are, and the secrets of this home."""
    home = servers.home
    given = {
        "DATABASE_URL": servers.postgres.dsn if servers.postgres else settings.dsn(),
        "REDIS_URL": servers.valkey.url if servers.valkey else settings.redis_dsn() or "",
        "PARLEY_HOME": str(home.path),
        "PARLEY_HOST": settings.parley_host,
        "PARLEY_PORT": str(port),
        "PARLEY_PUBLIC_URL": settings.parley_public_url or url,
        "PARLEY_SECRET": _set(settings.parley_secret) or home.secret("secret", password),
        "PARLEY_ENCRYPTION_KEYS": _set(settings.parley_encryption_keys)
        or home.secret("encryption_keys", encryption_keys),
    }
    if auth_on:
        given["PARLEY_ADMIN_KEY"] = _set(settings.parley_admin_key) or home.secret("admin_key", admin_key)
    return given


def _set(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _children(program: Sequence[str], workers: int, port: int, environment: dict[str, str]) -> list[Child]:
    api = Child("api", [*program, "serve", "--port", str(port)], environment)
    working = [
        Child("worker", [*program, "worker"], environment, name=f"worker-{number}" if workers > 1 else "worker")
        for number in range(1, workers + 1)
    ]
    return [api, *working, Child("scheduler", [*program, "scheduler"], environment)]


def _wait_until_ready(supervisor: Supervisor, url: str, migrations: Migrations, pause: Callable[[float], None]) -> bool:
    """Wait for the API, tending meanwhile; False when it runs but says it is not ready.

    An API that answers without being ready may miss migrations that the stamp vouched for.

    Raises:
        Unavailable: when it keeps dying.
    """
    until = time.monotonic() + READY_SECONDS
    api = next(process for process in supervisor.children if process.child.role == "api")
    while time.monotonic() < until:
        status = get(url, "/readyz")[0]
        if status == 200 and not api.dead():
            return True
        if status or api.dead():
            migrations.run()
        if api.dead() and api.restarts >= DEATHS_AT_START:
            raise Unavailable(f"the API keeps ending at start (exit code {api.exit_code()}):\n{api.tail()}")
        pause(TEND_SECONDS / 2)
        supervisor.tend()
    return False


def get(url: str, path: str) -> tuple[int, Any]:
    """Status and JSON body of a GET to our own API; status 0 when nobody answers."""
    host = url.removeprefix("http://")
    connection = HTTPConnection(host, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, HTTPException):
        return 0, None
    finally:
        connection.close()
    with suppress(ValueError):
        return answer.status, json.loads(text)
    return answer.status, None


def _summary(settings: Settings, servers: Servers, url: str, ready: bool, given: dict[str, str]) -> list[str]:
    home = servers.home
    lines = [f"Parley is up: {url}   docs: {url}/docs"]
    if settings.parley_port is None and not url.endswith(f":{FIRST_PORT}"):
        lines.append(f"  port   {FIRST_PORT} is taken; set PARLEY_PORT to choose one")
    if not ready:
        lines.append(f"  not ready yet: {json.dumps(get(url, '/readyz')[1])}")
    lines += [f"  model  {_model(url)}", f"  mail   {_mail(settings)}", f"  auth   {_auth(settings, home, given)}"]
    lines.append(f"  home   {home.path}   logs: {home.logs}/<role>.log")
    if servers.processes and home.data_root() != home.path:
        lines.append(f"  data   {home.data_root()} (this home can't be reached by the servers' account)")
    return [*lines, "Ctrl-C stops everything."]


def _model(url: str) -> str:
    health = get(url, "/healthz")[1]
    said = cast(dict[str, Any], health) if isinstance(health, dict) else {}
    model, reason = said.get("model"), said.get("model_reason")
    return f"{model} ({reason})" if model and reason else str(model or "see /healthz")


def _mail(settings: Settings) -> str:
    if settings.smtp_host:
        return f"sent through {settings.smtp_host}"
    return f"captured in {settings.parley_home / 'outbox'} (SMTP_HOST is not set)"


def _auth(settings: Settings, home: Home, given: dict[str, str]) -> str:
    if "PARLEY_ADMIN_KEY" not in given:
        return "off: only this machine can call"
    if settings.parley_admin_key:
        return "on, admin key from PARLEY_ADMIN_KEY"
    return _show_admin_key(home, given["PARLEY_ADMIN_KEY"])


def _show_admin_key(home: Home, key: str) -> str:
    """Show the admin key on a terminal, else write it to a private file: logs must not hold it."""
    if sys.stdout.isatty():
        return f"on, admin key {key}"
    return f"on, admin key in {private_file(home.path / 'admin-key', key)}"
