import os
import sys
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

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
def test_where_it_does_not_work_workers_run_as_we_do_and_root_is_told(
    monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(confine, "SCRIPT", script)
    with capture_logs() as logs:
        assert confine.launcher() == confine.Launcher()
    assert [each["event"] for each in logs] == (["sandbox.privileged"] if os.geteuid() == 0 else [])


def test_without_setpriv_there_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with capture_logs():
        assert confine.launcher().path is None
