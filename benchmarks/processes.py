"""Processes under test: started for a while, stopped again, asked whether they are ready."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import Client, Failed

ROOT = Path(__file__).parents[1]
READY_SECONDS = 90.0  # A busy machine needs many of them.
STOP_SECONDS = 15.0


@contextmanager
def process(argv: list[str], environment: Mapping[str, str], log: Path, *, inherit: bool = True) -> Iterator[int]:
    """A process that is stopped at the end; its id."""
    variables = {**os.environ, **environment} if inherit else environment
    with log.open("wb") as output:
        started = subprocess.Popen(argv, cwd=ROOT, env=variables, stdout=output, stderr=output)
        try:
            yield started.pid
        finally:
            started.terminate()
            try:
                started.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


async def ready(port: int, log: Path, seconds: float = READY_SECONDS) -> None:
    """Until `/readyz` answers 200."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            async with Client(port) as client:
                await client.json("GET", "/readyz")
                return
        except (OSError, EOFError, Failed):
            await asyncio.sleep(0.02)
    raise Failed(f"no server became ready on port {port}:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
