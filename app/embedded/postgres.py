"""An embedded PostgreSQL: TCP on loopback, a random password, one cluster per home."""

import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from app.embedded.account import Account, dropped, private_file, private_folder, server_account
from app.embedded.carriers import find_postgres, major_version
from app.embedded.home import Home, password
from app.embedded.processes import Child, Process, rotate, start_on_free_port
from app.embedded.reaper import Record, end, exists
from app.errors import ConfigurationError, Unavailable

DATABASE = "parley"
USER = "parley"
STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # fast: SIGTERM would wait for every client
READY_LINE = 7  # of postmaster.pid, where pg_ctl looks too
SERVER_ENV = {"LC_ALL": "C"}
DEFAULTS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "on",
    "log_checkpoints": "off",
}


class PostgresServer:
    """A running PostgreSQL."""

    def __init__(self, process: Process, dsn: str) -> None:
        """Wrap a process that is ready."""
        self.process = process
        self.dsn = dsn

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self.process.pid

    def stop(self) -> None:
        """Shut down fast: clients are disconnected, everything committed is on disk."""
        self.process.stop()


def start_postgres(
    home: Path | Home, *, bin_dir: Path | None = None, options: Mapping[str, str] | None = None
) -> PostgresServer:
    """Start the PostgreSQL of a home, making its cluster and the database `parley` at the first start.

    Args:
        home: The home; whoever starts a server in it must hold its lock.
        bin_dir: The folder of the binaries when the operator names one.
        options: Server options on top of ours.

    Raises:
        ConfigurationError: when there are no usable binaries or the cluster is of another version.
        Unavailable: when it does not come up.
    """
    home = home if isinstance(home, Home) else Home(home)
    home.make()
    data = home.data_root() / "pg"
    account = server_account(data)
    postgres = find_postgres(bin_dir).for_account(account)
    key = _prepare_cluster(home, postgres, data, account)
    rotate(home.logs / "postgres.log")
    process, port = start_on_free_port(
        lambda port: Process(_child(postgres, data, port, account, options or {}), home),
        lambda process, _: _ready(data, process.pid),
        port_lost="could not create any TCP/IP sockets",
    )
    return PostgresServer(process, f"postgresql://{USER}:{key}@127.0.0.1:{port}/{DATABASE}")


def _child(postgres: Path, data: Path, port: int, account: Account | None, options: Mapping[str, str]) -> Child:
    argv = [str(postgres), "-D", str(data), "-p", str(port)]
    for name, value in {**DEFAULTS, **options}.items():
        argv += ["-c", f"{name}={value}"]
    return Child(
        role="postgres",
        argv=argv,
        env=SERVER_ENV,
        account=account,
        signals=STOP_SIGNALS,
        stage=2,
        marker=f"-D {data} ",
        prepare=lambda: _clear_stale_pid(data),
    )


def _ready(data: Path, pid: int) -> bool:
    lines = _pid_lines(data)
    return len(lines) > READY_LINE and lines[0] == str(pid) and lines[READY_LINE].strip() == "ready"


def _pid_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _clear_stale_pid(data: Path) -> None:
    """End a server nobody owns, and remove a pid file whose pid is now a zombie's or a stranger's.

    PostgreSQL copes with a dead pid by itself, but takes any living one for its own.
    """
    lines = _pid_lines(data)
    if not lines or not lines[0].isdigit():
        return
    end([Record(int(lines[0]), 2, STOP_SIGNALS, f"-D {data} ")])
    if exists(int(lines[0])):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _prepare_cluster(home: Home, postgres: Path, data: Path, account: Account | None) -> str:
    """Make the cluster if there is none; the password of its owner either way."""
    kept = home.has_secret("postgres_password")
    key = home.secret("postgres_password", password)
    if not (data / "PG_VERSION").exists():
        _init(postgres, data, key, account)
        return key
    _check_version(postgres, data)
    if not kept:
        # secret.json was lost: the cluster is still ours, so give it the new password.
        _clear_stale_pid(data)
        _single_user(postgres, data, f"ALTER ROLE {USER} PASSWORD '{key}'", account)
    return key


def _check_version(postgres: Path, data: Path) -> None:
    made_by, found = (data / "PG_VERSION").read_text().strip(), major_version(postgres)
    if made_by != str(found):
        raise ConfigurationError(
            f"{data} was made by PostgreSQL {made_by}, but {postgres} is {found}: point PARLEY_PG_BIN to version "
            f"{made_by}, dump the database with its pg_dump, move {data} away and restore",
            field="PARLEY_PG_BIN",
        )


def _init(postgres: Path, data: Path, key: str, account: Account | None) -> None:
    """Make a cluster beside its place and move it there when it is whole."""
    fresh = data.with_name("pg.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    private_folder(fresh, account)
    key_file = private_file(data.with_name("pg.password"), key, account)
    argv = [postgres.with_name("initdb"), "-D", fresh, "-U", USER, "--auth=scram-sha-256", f"--pwfile={key_file}"]
    try:
        _tool([*argv, "--encoding=UTF8", "--no-sync", *_locale(major_version(postgres))], account)
        _single_user(postgres, fresh, f"CREATE DATABASE {DATABASE}", account)
    finally:
        key_file.unlink(missing_ok=True)
    fresh.rename(data)


def _locale(major: int) -> list[str]:
    """Letters compare and fold the same on every host."""
    if major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]


def _single_user(postgres: Path, data: Path, statement: str, account: Account | None) -> None:
    """One statement without a server: no port and no driver is needed."""
    _tool([postgres, "--single", "-D", data, "-c", "exit_on_error=on", "postgres"], account, f"{statement};\n")


def _tool(argv: list[Path | str], account: Account | None, given: str = "") -> None:
    done = subprocess.run(  # noqa: S603 - our own words
        argv,
        input=given,
        capture_output=True,
        text=True,
        env=SERVER_ENV,
        cwd="/",
        start_new_session=True,
        **dropped(account),
    )
    if done.returncode != 0:
        raise Unavailable(f"{Path(argv[0]).name} failed:\n{done.stdout}{done.stderr}")
