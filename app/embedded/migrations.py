"""Migrates before anything starts, and not at all when this very cluster is known to be up to date.

Reading the migrations takes longer than starting both servers, so a stamp in the cluster's folder
says which ones it has seen. It only saves time: whoever finds the database behind calls `run()`.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from app.embedded.account import private_file, server_account
from app.embedded.processes import Child, Process, rotate
from app.embedded.servers import Servers

FOLDER = Path(__file__).parents[2] / "alembic"
SECONDS = 600.0


class Migrations:
    """The migrations of one start."""

    def __init__(self, servers: Servers, program: Sequence[str], environment: Mapping[str, str]) -> None:
        """Say what migrates which database."""
        self._process = Process(Child("migrate", [*program, "migrate"], environment), servers.home)
        self._stamp = servers.home.data_root() / "pg" / "parley.migrated" if servers.postgres else None
        self._done = False

    def run_if_needed(self) -> None:
        """Migrate unless the stamp says that there is nothing to do."""
        if self._stamp is None or not self._stamp.exists() or self._stamp.read_text() != fingerprint():
            self.run()

    def run(self) -> None:
        """Migrate; once per start is enough.

        Raises:
            Unavailable: when it fails.
        """
        if self._done:
            return
        rotate(self._process.log)
        self._process.start()
        self._process.finish(SECONDS)
        self._done = True
        if self._stamp is not None and (seen := fingerprint()):
            private_file(self._stamp, seen, server_account(self._stamp.parent))


def fingerprint() -> str:
    """What the migrations of this checkout are; empty where there are none to read."""
    digest = sha256()
    files = sorted(FOLDER.rglob("*.py"))
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest() if files else ""
