"""One PostgreSQL and one Valkey for a whole pytest session, shared by all xdist workers.

Every user holds a shared lock on `users.lock`; a holder process owns the servers and waits for that
lock alone, which it gets when the last user is gone, however it went. The holder killed: its reaper
ends the servers.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from app.embedded import Servers

START_SECONDS = 120
# Nothing in a test cluster outlives the machine, so disks need not be waited for.
OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}

_held: dict[Path, int] = {}
# Kept, because a forgotten running child is a warning, and warnings are errors in tests.
_holders: list[subprocess.Popen[bytes]] = []


class Cluster(NamedTuple):
    """Where the session's servers are."""

    postgres_dsn_admin: str
    redis_url: str


def session_cluster(tmp_root: Path) -> Cluster:
    """The servers of this session, started by whoever asks first and kept until the last asker's process ends.

    Args:
        tmp_root: A folder all processes of the session share, and no other session does.
    """
    given = os.environ.get("TEST_DATABASE_URL"), os.environ.get("TEST_REDIS_URL")
    if given[0]:
        refuse_foreign_database(given[0])
    started = Cluster("", "") if all(given) else _shared(tmp_root.resolve())
    return Cluster(given[0] or started.postgres_dsn_admin, given[1] or started.redis_url)


def refuse_foreign_database(dsn: str) -> None:
    """Stop before a database that may hold somebody's data is touched."""
    name = urlsplit(dsn).path.lstrip("/")
    if not name.endswith("_test"):
        raise RuntimeError(f"TEST_DATABASE_URL names the database {name!r}: only one ending in _test is used")


def _shared(root: Path) -> Cluster:
    if root not in _held:
        _held[root] = _open(root / "users.lock")
        fcntl.flock(_held[root], fcntl.LOCK_SH)
    starting = _open(root / "start.lock")
    try:
        fcntl.flock(starting, fcntl.LOCK_EX)
        published = root / "cluster.json"
        if not published.exists():
            _start_holder(root)
        return Cluster(*json.loads(published.read_text()))
    finally:
        os.close(starting)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _start_holder(root: Path) -> None:
    with (root / "cluster.log").open("wb") as log:
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster", str(root)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    _holders.append(holder)
    with holder.stdout or contextlib.nullcontext() as said:
        if not said or said.read() != b"ready\n":
            raise RuntimeError(f"the test servers did not start:\n{(root / 'cluster.log').read_text()}")


def hold(root: Path) -> None:
    """Run the servers until nobody uses them any more."""
    home = Path(tempfile.mkdtemp(prefix="parley-test-"))
    home.chmod(0o711)  # the servers' account passes through when we are root
    try:
        with Servers(home, options=OPTIONS) as servers:
            assert servers.postgres
            assert servers.valkey
            published = root / "cluster.json"
            published.with_suffix(".tmp").write_text(json.dumps([servers.postgres.dsn, servers.valkey.url]))
            published.with_suffix(".tmp").replace(published)
            os.write(1, b"ready\n")
            os.close(1)
            fcntl.flock(_open(root / "users.lock"), fcntl.LOCK_EX)
            published.unlink(missing_ok=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
