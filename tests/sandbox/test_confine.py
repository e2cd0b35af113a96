import os
import sys
from collections.abc import Iterator

import pytest

from app.errors import Unavailable
from app.sandbox import confine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has setpriv")


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_launcher_is_a_program_of_this_process_only() -> None:
    made = confine.launcher()
    assert made.path == f"/proc/{os.getpid()}/fd/{made.handle}"
    made.close()


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 3\n", "#!/nowhere/sh\n", "{drop} is no program"])
@pytest.mark.parametrize("user", [0, 1000])
def test_where_it_does_not_work_workers_run_as_we_do_and_never_as_root(
    monkeypatch: pytest.MonkeyPatch, script: str, user: int
) -> None:
    monkeypatch.setattr(confine, "SCRIPT", script)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if user:
        assert confine.launcher() == confine.Launcher()
        return
    with pytest.raises(Unavailable, match="install setpriv"):
        confine.launcher()


def test_without_setpriv_there_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert confine.launcher().path is None
