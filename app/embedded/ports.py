"""Free ports: any for the servers, a well-known one for the API."""

import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ConfigurationError

FIRST_PORT = 8000
LAST_PORT = 8019


def free_port() -> int:
    """A loopback port that is free now; whoever uses it must bear losing it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def api_port(host: str, wanted: int | None) -> Generator[int]:
    """The API's port: the wanted one, or the first free one from 8000 to 8019.

    It is claimed while the context lasts, so that another start of this user passes it by even
    before the API listens.

    Raises:
        ConfigurationError: when the wanted port or all of them are taken, or the host can't be used.
    """
    port, claim = _choose(host, wanted)
    try:
        yield port
    finally:
        os.close(claim)


def _choose(host: str, wanted: int | None) -> tuple[int, int]:
    if wanted == 0:
        wanted = free_port()
    for port in (wanted,) if wanted else range(FIRST_PORT, LAST_PORT + 1):
        if not taken(host, port) and (claim := _claim(port)) is not None:
            return port, claim
    if wanted:
        raise ConfigurationError(
            f"port {wanted} of {host} is taken: stop what listens there or set PARLEY_PORT", field="PARLEY_PORT"
        )
    raise ConfigurationError(f"ports {FIRST_PORT} to {LAST_PORT} are all taken: set PARLEY_PORT", field="PARLEY_PORT")


def taken(host: str, port: int) -> bool:
    """Whether somebody listens there.

    Raises:
        ConfigurationError: when nobody could, with this host or port.
    """
    bare = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as probe:
        # As servers do: connections still winding down are no listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bare, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise ConfigurationError(
                f"can't listen on {host}:{port}: {error.strerror or error}", field="PARLEY_HOST"
            ) from error
    return False


def _claim(port: int) -> int | None:
    """A lock on the port's number among this user's supervisors, or None when another has it."""
    try:
        folder = Path(tempfile.gettempdir()) / f"parley-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        claim = os.open(folder / f"port-{port}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        # No such folder can be had here: do without a claim, the API's own bind decides.
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return None
    return claim
