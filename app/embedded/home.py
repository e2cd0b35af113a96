"""`$PARLEY_HOME`: its lock, its secrets, and the `run.json` that tells others what runs here."""

import base64
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.embedded.account import open_folder, private_file, server_account
from app.embedded.reaper import command_line
from app.errors import ConfigurationError

SHARED_ROOT = Path("/var/lib/parley")
LOCK_WAIT_SECONDS = 15.0


@dataclass(frozen=True)
class Run:
    """What is running in a home, as its `run.json` says."""

    url: str
    database_url: str
    redis_url: str
    processes: Mapping[str, list[int]]
    supervisor: int
    command: str

    def alive(self) -> bool:
        """Whether the supervisor that wrote this still lives."""
        return bool(self.command) and command_line(self.supervisor) == self.command


class Home:
    """The folder one supervisor owns while it runs."""

    def __init__(self, path: Path, pause: Callable[[float], None] = time.sleep) -> None:
        """Name the folder; nothing is made yet.

        Args:
            path: The folder.
            pause: How waiting sleeps; it may raise to give up.
        """
        self.pause = pause
        self.path = path.expanduser().absolute()
        self.pids = self.path / "pids"
        self.logs = self.path / "logs"
        self.run_file = self.path / "run.json"
        self._secrets = self.path / "secret.json"

    def make(self) -> None:
        """Make the folder, open for passing through: the servers' account must reach its data."""
        try:
            open_folder(self.path)
            self.logs.mkdir(exist_ok=True, mode=0o700)
            self.pids.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"PARLEY_HOME {self.path} can't be used: {error.strerror}", field="PARLEY_HOME"
            ) from error

    def lock(self) -> int:
        """Take the home, or refuse: one supervisor per home.

        The reaper of a dead supervisor holds the lock until it is done, so this waits for it.

        Raises:
            ConfigurationError: when another supervisor runs here; it says where.
        """
        handle = self._open_lock()
        until = time.monotonic() + LOCK_WAIT_SECONDS
        while not _locked(handle):
            owner = self._owner()
            if owner or time.monotonic() > until:
                os.close(handle)
                raise ConfigurationError(self._refusal(owner))
            self.pause(0.05)
        os.truncate(handle, 0)
        os.write(handle, json.dumps({"pid": os.getpid(), "command": command_line(os.getpid())}).encode())
        return handle

    def _open_lock(self) -> int:
        try:
            return os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"PARLEY_HOME {self.path} belongs to another user or is read-only ({error.strerror}): "
                "run as that user, or name another folder",
                field="PARLEY_HOME",
            ) from error

    def _owner(self) -> int | None:
        """The live supervisor that holds the lock, or None while only its reaper does."""
        try:
            owner = json.loads((self.path / "lock").read_text())
        except (OSError, ValueError):
            return None
        return owner["pid"] if command_line(owner["pid"]) == owner["command"] else None

    def _refusal(self, owner: int | None) -> str:
        run = self.read_run()
        if run and run.alive():
            return f"already running here: {run.url} (process {run.supervisor}, home {self.path})"
        return f"already starting or stopping here: process {owner or 'unknown'} holds {self.path}"

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """A secret of this home, made and kept at its first use."""
        kept = self._read_secrets()
        if name not in kept:
            kept[name] = make()
            private_file(self._secrets, json.dumps(kept, indent=1))
        return kept[name]

    def has_secret(self, name: str) -> bool:
        """Whether a secret was made before."""
        return name in self._read_secrets()

    def _read_secrets(self) -> dict[str, str]:
        try:
            return json.loads(self._secrets.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self._secrets} can't be read: {error}", field="PARLEY_HOME") from error

    def data_root(self) -> Path:
        """Where the servers keep their data: here, or below /var/lib when their account can't come here.

        The far folder's name is one of the home's secrets, so a new home never meets old data.
        """
        account = server_account(self.path / "pg")
        if account is None or account.reaches(self.path / "pg"):
            return self.path
        return open_folder(SHARED_ROOT / self.secret("home_id", lambda: secrets.token_hex(8)))

    def write_run(self, values: Mapping[str, Any]) -> None:
        """Publish what runs here."""
        owner = {"supervisor": os.getpid(), "command": command_line(os.getpid())}
        private_file(self.run_file, json.dumps({**values, **owner}, indent=1))

    def read_run(self) -> Run | None:
        """What was published, whether or not it still lives."""
        try:
            values: dict[str, Any] = json.loads(self.run_file.read_text())
            processes: dict[str, list[int]] = {role: pids for role, pids in values.items() if isinstance(pids, list)}
            texts = {name: values.get(name) or "" for name in ("url", "database_url", "redis_url", "command")}
            return Run(**texts, processes=processes, supervisor=values["supervisor"])
        except (OSError, ValueError, KeyError):
            return None


def running(path: Path) -> Run | None:
    """What runs in a home right now, or None."""
    run = Home(path).read_run()
    return run if run and run.alive() else None


def admin_key() -> str:
    """A new API key, `parley_<id>_<secret>`."""
    return f"parley_{secrets.token_hex(6)}_{secrets.token_hex(24)}"


def password() -> str:
    """A new random password, safe in URLs and SQL."""
    return secrets.token_urlsafe(24)


def encryption_keys() -> str:
    """A new key list with one random key."""
    return f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
