"""An embedded Valkey: TCP on loopback, a random password, an append-only file."""

import signal
import socket
from pathlib import Path

from app.embedded.account import private_file, private_folder, server_account
from app.embedded.carriers import find_valkey
from app.embedded.home import Home, password
from app.embedded.processes import Child, Process, rotate, start_on_free_port

CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {key}
dir "{data}"
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
save ""
daemonize no
"""


class ValkeyServer:
    """A running Valkey."""

    def __init__(self, process: Process, url: str) -> None:
        """Wrap a process that is ready."""
        self.process = process
        self.url = url

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.process.pid

    def stop(self) -> None:
        """Shut down; the append-only file is written out first."""
        self.process.stop()


def start_valkey(home: Path | Home, *, binary: Path | None = None) -> ValkeyServer:
    """Start the Valkey of a home.

    Args:
        home: The home; whoever starts a server in it must hold its lock.
        binary: The server's binary when the operator names one.

    Raises:
        ConfigurationError: when there is no binary.
        Unavailable: when it does not come up.
    """
    home = home if isinstance(home, Home) else Home(home)
    home.make()
    key = home.secret("valkey_password", password)
    rotate(home.logs / "valkey.log")
    process, port = start_on_free_port(
        lambda port: Process(_child(home, port, key, binary), home),
        lambda _, port: _answers(port, key),
        port_lost="Address already in use",
    )
    return ValkeyServer(process, f"redis://:{key}@127.0.0.1:{port}/0")


def _child(home: Home, port: int, key: str, binary: Path | None) -> Child:
    data = home.data_root() / "valkey"
    account = server_account(data)
    private_folder(data, account)
    config = private_file(data / "valkey.conf", CONFIG.format(port=port, key=key, data=data), account)
    return Child(
        role="valkey",
        argv=[str(find_valkey(binary).for_account(account)), str(config)],
        account=account,
        signals=(signal.SIGTERM, signal.SIGKILL),
        stage=1,
        marker=f"127.0.0.1:{port}",  # the server writes this into its command line
    )


def _answers(port: int, key: str) -> bool:
    """Whether it takes the password and has read its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {key}\r\nPING\r\n".encode())
            said = b""
            while said.count(b"\r\n") < 2 and (part := connection.recv(256)):
                said += part
    except OSError:
        return False
    return said == b"+OK\r\n+PONG\r\n"
