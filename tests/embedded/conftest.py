import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.embedded.reaper import reap
from tests.embedded.stacks import Stack, held, wait_for


@pytest.fixture
def home() -> Iterator[Path]:
    """A home the servers' account can reach, also when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="parley-home-"))
    folder.chmod(0o711)
    yield folder
    reap(folder / "pids", grace_seconds=2)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Stack]]:
    """Starts stacks in the home and takes them down afterwards."""
    stacks: list[Stack] = []

    def start_one(**environment: str) -> Stack:
        stacks.append(Stack(home, **environment))
        return stacks[-1]

    yield start_one
    for stack in stacks:
        stack.discard()
    wait_for(lambda: not held(home))
