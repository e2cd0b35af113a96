#!/usr/bin/env python3
"""Start Parley, or any of its commands, on a machine that has only Python and pip.

    python3 dev.py                 start everything: PostgreSQL, Valkey, the API, workers, scheduler
    python3 dev.py test [args]     run the tests
    python3 dev.py check [args]    run what CI runs: format, lint, import contracts, types, tests
    python3 dev.py faults [args]   kill, freeze and cut everything for a while, then check (--short, --minutes, --seed)
    python3 dev.py crontab [args]  compare schedules with a search minute by minute (--count, --seed)
    python3 dev.py schedulers      kill schedulers for two minutes, then count the fires (--seconds, --gap, --seed)
    python3 dev.py planted [name]  plant known defects in a copy, one at a time, and count those that tests catch
    python3 dev.py <command> ...   the same as `parley <command> ...`

It fetches uv if there is none, lets uv install the locked dependencies into `.venv`, and then
becomes the command, so that signals and exit codes are the command's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

OLDEST = (3, 11)
CHECKOUT = os.path.dirname(os.path.abspath(__file__))
OWN = os.path.join(CHECKOUT, ".uv")
OWN_UV = os.path.join(OWN, "bin", "uv")
TEST_PROCESSES = "3"  # on two cores, too: tests wait about as long as they work
# Settings of uv that say which certificates it trusts.
CERTIFICATES = ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "SSL_CERT_FILE", "SSL_CERT_DIR")
SUITES = {
    "faults": "tests.faults.suite",
    "planted": "tests.faults.planted",
    "crontab": "tests.crontab",
    "schedulers": "tests.faults.schedulers",
}
# What `check` runs before the tests, each from the environment's `bin`.
STEPS = (
    ("ruff", "format", "--check", "--quiet", "."),
    ("ruff", "check", "--quiet", "."),
    ("lint-imports", "--no-logo"),
    ("pyright",),
)


def main(arguments: list[str]) -> int:
    """Become `parley <arguments>`, or pytest."""
    if sys.version_info < OLDEST:
        found = ".".join(str(number) for number in sys.version_info[:2])
        return refuse(f"Parley needs Python 3.11 or newer; this is {found} ({sys.executable})")
    os.chdir(CHECKOUT)
    uv = find_uv() or fetch_uv()
    if uv is None:
        return refuse("uv could not be fetched with pip; install it (https://docs.astral.sh/uv/) and try again")
    environment = prepared_environment()
    if not os.path.exists(venv_python()):
        print("Installing the locked packages into .venv (once) ...", flush=True)
    checking = arguments[:1] == ["check"]
    code = install(sync_command(uv, everything=checking), environment)
    for step in STEPS if checking and code == 0 else ():
        code = code or run_step(step, environment)
    if code != 0:
        return code
    command = command_for(arguments)
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def refuse(reason: str) -> int:
    """Say why not; the exit code."""
    sys.stderr.write(f"dev.py: {reason}\n")
    return 1


def find_uv() -> str | None:
    """The uv on the PATH or the one fetched before."""
    return shutil.which("uv") or (OWN_UV if os.access(OWN_UV, os.X_OK) else None)


def fetch_uv() -> str | None:
    """Fetch uv into `.uv` with pip; None when that fails.

    It goes to a folder of its own first and is moved in one step: two first starts at once, or one
    that is interrupted, leave no half of it.
    """
    print("Fetching uv into .uv (once) ...", flush=True)
    os.makedirs(os.path.dirname(OWN_UV), exist_ok=True)
    folder = tempfile.mkdtemp(prefix="tmp-", dir=OWN)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder, "uv"]
    try:
        # A machine's pip.conf may ask for --user, which --target can't be combined with.
        if subprocess.call(pip, env=dict(os.environ, PIP_USER="0", PIP_ROOT_USER_ACTION="ignore")) != 0:
            return None
        os.replace(os.path.join(folder, "bin", "uv"), OWN_UV)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return OWN_UV


def prepared_environment() -> dict[str, str]:
    """Our environment; with uv's cache in the checkout where its usual place can't be written."""
    environment = dict(os.environ)
    environment.pop("VIRTUAL_ENV", None)
    if "UV_CACHE_DIR" not in environment and not writable(usual_cache(environment)):
        environment["UV_CACHE_DIR"] = os.path.join(OWN, "cache")
    return environment


def usual_cache(environment: dict[str, str]) -> str:
    """Where uv keeps its cache when nobody says otherwise."""
    return os.path.join(environment.get("XDG_CACHE_HOME") or os.path.expanduser(os.path.join("~", ".cache")), "uv")


def writable(folder: str) -> bool:
    """Whether files can be made in a folder, by trying."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def install(command: list[str], environment: dict[str, str]) -> int:
    """Run uv, the second time with the machine's own certificates; its exit code.

    uv brings certificates of its own, and they lack those that many companies' proxies need.
    """
    code = subprocess.call(command, env=environment)
    if code == 0 or not environment.keys().isdisjoint(CERTIFICATES):
        return code
    print("Trying again with this machine's own certificates ...", flush=True)
    return subprocess.call(command, env=environment | {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"})


def run_step(step: tuple[str, ...], environment: dict[str, str]) -> int:
    """Run one of the checks; its exit code."""
    print(f"--- {' '.join(step)}", flush=True)
    return subprocess.call([os.path.join(os.path.dirname(venv_python()), step[0]), *step[1:]], env=environment)


def sync_command(uv: str, *, everything: bool = False) -> list[str]:
    """Install what the lock file says; the first time with the Python that runs this."""
    command = [uv, "sync", "--frozen", "--inexact", "--quiet", *(["--all-groups"] if everything else [])]
    return command if os.path.exists(venv_python()) else [*command, "--python", sys.executable]


def venv_python() -> str:
    """The Python of the project's environment."""
    return os.path.join(CHECKOUT, os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv", "bin", "python")


def command_for(arguments: list[str]) -> list[str]:
    """The program to become."""
    if arguments[:1] in (["test"], ["check"]):
        return [venv_python(), "-m", "pytest", "-n", TEST_PROCESSES, *arguments[1:]]
    if arguments and arguments[0] in SUITES:
        return [venv_python(), "-m", SUITES[arguments[0]], *arguments[1:]]
    return [venv_python(), "-m", "app.cli", *(arguments or ["up"])]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
