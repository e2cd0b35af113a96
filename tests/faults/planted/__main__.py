"""Plant each defect in a copy of the checkout, run the tests that should see it, and count those that do."""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.embedded import Servers
from tests import databases

ROOT = Path(__file__).parents[3]
COPIED = ("app", "workers", "tests", "alembic", "pyproject.toml", "dev.py")
SECONDS = 1200
TESTS_FAILED = 1  # pytest's exit code; any other but 0 is a test that could not even run.
TESTS = "Tests: "


@dataclass(frozen=True)
class Defect:
    """A patch: its first line says what it breaks, the second which tests must fail."""

    patch: Path

    @property
    def title(self) -> str:
        return self.patch.read_text().splitlines()[0]

    @property
    def tests(self) -> list[str]:
        (line,) = [line for line in self.patch.read_text().splitlines() if line.startswith(TESTS)]
        return line.removeprefix(TESTS).split()


def defects(wanted: str = "") -> list[Defect]:
    """All of them, or those whose name holds a text."""
    return [Defect(patch) for patch in sorted(Path(__file__).parent.glob("*.patch")) if wanted in patch.name]


def main(arguments: list[str]) -> int:
    """Plant them all; 0 when every one is caught."""
    parser = argparse.ArgumentParser(prog="planted", description="Plant known defects and see that tests catch them.")
    parser.add_argument("only", nargs="?", default="", help="only patches whose name holds this")
    planted = defects(parser.parse_args(arguments).only)
    with _checkout() as copy, _stores() as environment:
        before = _pytest(copy, [test for defect in planted for test in defect.tests], environment, show=True)
        if before != 0:
            print(f"the tests fail without any defect (exit code {before})")
            return 1
        caught = [_caught(copy, defect, environment) for defect in planted]
    print(f"caught {sum(caught)} of {len(caught)} planted defects")
    return 0 if all(caught) else 1


def _caught(copy: Path, defect: Defect, environment: dict[str, str]) -> bool:
    began = time.monotonic()
    if _apply(copy, defect):
        code = _pytest(copy, defect.tests, environment)
        _apply(copy, defect, "--reverse")
        said = {0: "MISSED", TESTS_FAILED: "caught"}.get(code, f"the tests can't run (exit code {code})")
    else:
        code, said = -1, "the patch does not fit the code any more"
    print(f"{said:<7} {time.monotonic() - began:5.1f} s  {defect.patch.stem}: {defect.title}", flush=True)
    return code == TESTS_FAILED


def _apply(copy: Path, defect: Defect, *options: str) -> bool:
    """Surroundings may have moved since the patch was made; one line of context must still be there."""
    command = ["git", "apply", "-C1", *options, str(defect.patch)]
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    return subprocess.run(command, cwd=copy, env=environment).returncode == 0


def _pytest(copy: Path, tests: list[str], environment: dict[str, str], *, show: bool = False) -> int:
    """Run tests; what they said is shown when they can't run, or when they should have passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *dict.fromkeys(tests)]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode > TESTS_FAILED or (show and done.returncode):
        print(done.stdout[-2000:], done.stderr[-2000:])
    return done.returncode


@contextmanager
def _checkout() -> Iterator[Path]:
    """A copy of what the tests need."""
    with tempfile.TemporaryDirectory(prefix="parley-planted-") as folder:
        copy = Path(folder) / "checkout"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        yield copy


@contextmanager
def _stores() -> Iterator[dict[str, str]]:
    """Servers for all test runs, so that none has to start its own."""
    home = Path(tempfile.mkdtemp(prefix="parley-planted-stores-"))
    home.chmod(0o711)  # the servers' account passes through when we are root
    try:
        with Servers(home, options={"fsync": "off", "full_page_writes": "off"}) as servers:
            assert servers.postgres
            assert servers.valkey
            url = asyncio.run(databases.clone(servers.postgres.dsn, "planted_test"))
            # Without bytecode files: a patch and its reverse may come within the second that tells them apart.
            stores = {"TEST_DATABASE_URL": url, "TEST_REDIS_URL": servers.valkey.url, "PYTHONDONTWRITEBYTECODE": "1"}
            yield {**os.environ, **stores}
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
