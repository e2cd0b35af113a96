"""Free ports: any for the servers, a well-known one for the API."""

import socket


def free_port() -> int:
    """A loopback port that is free now; whoever uses it must bear losing it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
