"""How a worker is started: as an account of its own, without privileges, environment, files or core dumps.

The interpreter is the boundary. Should it ever break, what is behind it must not be root, and must not be
`nobody` either, to whom other servers' files belong.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass

from app.errors import Unavailable

ACCOUNT = 61337  # a user and group that no system gives away
OPEN_FILES = 64
ADDRESS_SPACE_KB = 2_097_152  # far above the largest limit of a tool: this only stops what runs away
NICENESS = 5  # people's loops must not slow the process that serves everybody
PROBE_SECONDS = 10.0

# The interpreter is opened before the account is dropped, which need not be able to reach it.
SCRIPT = """#!/bin/sh
ulimit -c 0
ulimit -f 0
ulimit -n {files}
ulimit -v {memory}
cd /
exec 3< {monty}
exec {env} -i {nice} -n {niceness} {setpriv} {drop} /proc/self/fd/3 "$@"
"""
DROP = "--no-new-privs"
DROP_ROOT = f"--reuid={ACCOUNT} --regid={ACCOUNT} --clear-groups --inh-caps=-all --bounding-set=-all {DROP}"


@dataclass(frozen=True)
class Launcher:
    """A program that starts a worker.

    Attributes:
        path: What to execute in place of the interpreter; None for the interpreter itself.
        handle: The descriptor that keeps the program there.
    """

    path: str | None = None
    handle: int | None = None

    def close(self) -> None:
        """Let go of the program."""
        if self.handle is not None:
            os.close(self.handle)


def launcher() -> Launcher:
    """The launcher that works here; where none does, workers run as we do.

    Raises:
        Unavailable: we are root, and workers would be, too.
    """
    script = _script()
    if script is not None:
        made = _in_memory(script)
        if _works(made):
            return made
        made.close()
    if os.geteuid() == 0:
        raise Unavailable("code is not run as root: install setpriv (of util-linux), or start Parley as a plain user")
    return Launcher()


def _script() -> str | None:
    monty = shutil.which("monty", path=sysconfig.get_path("scripts")) or shutil.which("monty")
    programs = {name: path for name in ("env", "nice", "setpriv") if (path := shutil.which(name))}
    if sys.platform != "linux" or monty is None or len(programs) < 3:
        return None
    return SCRIPT.format(
        files=OPEN_FILES,
        memory=ADDRESS_SPACE_KB,
        monty=shlex.quote(monty),
        niceness=NICENESS,
        drop=DROP_ROOT if os.geteuid() == 0 else DROP,
        **programs,
    )


def _in_memory(script: str) -> Launcher:
    """The script as a file that only this process has: nothing to leave behind, and none of a `noexec` folder."""
    writing = os.memfd_create("parley-sandbox")
    try:
        os.write(writing, script.encode())
        os.fchmod(writing, 0o500)
        handle = os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)
    return Launcher(f"/proc/{os.getpid()}/fd/{handle}", handle)


def _works(made: Launcher) -> bool:
    try:
        done = subprocess.run([str(made.path), "--version"], capture_output=True, timeout=PROBE_SECONDS, check=False)  # noqa: S603 -- our own script
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
