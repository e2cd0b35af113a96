"""`dev.py` in a copy of its own, beside a stand-in for uv that makes the environment."""

import ast
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "dev.py"
UV = """#!/bin/sh
echo "uv $* cache=$UV_CACHE_DIR"
[ -n "$UV_FAILS" ] && exit 4
[ -n "$OWN_CERTS" ] && [ -z "$UV_SYSTEM_CERTS" ] && exit 2
mkdir -p .venv/bin
cat > .venv/bin/python <<'END'
#!/bin/sh
echo "python $*"
exit 7
END
chmod +x .venv/bin/python
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / ".uv" / "bin").mkdir(parents=True)
    shutil.copy(SOURCE, folder)
    uv = folder / ".uv" / "bin" / "uv"
    uv.write_text(UV)
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    return folder


def dev(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(checkout), **environment}
    return subprocess.run(
        [sys.executable, checkout / "dev.py", *arguments], capture_output=True, text=True, env=env, cwd="/"
    )


def test_it_parses_on_a_python_that_is_too_old_and_says_so() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    old = "import sys; sys.version_info = (3, 9, 18); sys.argv = ['dev.py']\n"
    done = subprocess.run(
        [sys.executable, "-"],
        input=old + ast.unparse(tree).replace("from __future__ import annotations", ""),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "needs Python 3.11 or newer; this is 3.9" in done.stderr


def test_it_needs_nothing_but_the_standard_library() -> None:
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(SOURCE.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ((), "-m app.cli up"),
        (("runs", "list", "--json"), "-m app.cli runs list --json"),
        (("test",), "-m pytest -n 3"),
        (("faults", "--seed", "7"), "-m tests.faults.suite --seed 7"),
        (("planted",), "-m tests.faults.planted"),
        (("crontab", "--seed", "7"), "-m tests.crontab --seed 7"),
        (("schedulers", "--seconds", "9"), "-m tests.faults.schedulers --seconds 9"),
        (("test", "-k", "cron"), "-m pytest -n 3 -k cron"),
    ],
)
def test_it_becomes_the_command_with_its_exit_code(checkout: Path, arguments: tuple[str, ...], command: str) -> None:
    done = dev(checkout, *arguments)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[-1] == f"python {command}"
    assert "uv sync --frozen" in done.stdout


def test_check_runs_every_step_and_then_the_tests(checkout: Path) -> None:
    assert dev(checkout).returncode == 7  # makes the environment
    for name in ("ruff", "lint-imports", "pyright"):
        program = checkout / ".venv" / "bin" / name
        program.write_text(f'#!/bin/sh\necho "ran {name} $*"\n[ "$FAILS" = {name} ] && exit 5\nexit 0\n')
        program.chmod(0o755)
    done = dev(checkout, "check", "-k", "cron")
    assert "--all-groups" in done.stdout.splitlines()[0]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ran ")] == [
        "ruff",
        "ruff",
        "lint-imports",
        "pyright",
    ]
    assert done.stdout.splitlines()[-1] == "python -m pytest -n 3 -k cron"
    failed = dev(checkout, "check", FAILS="lint-imports")
    assert failed.returncode == 5
    assert "ran pyright" not in failed.stdout
    assert "pytest" not in failed.stdout


def test_a_failed_install_ends_it(checkout: Path) -> None:
    done = dev(checkout, UV_FAILS="1")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


def test_a_failed_install_is_tried_again_with_the_machines_certificates(checkout: Path) -> None:
    done = dev(checkout, OWN_CERTS="1")
    assert done.returncode == 7, done.stderr
    assert "this machine's own certificates" in done.stdout
    shutil.rmtree(checkout / ".venv")
    assert dev(checkout, OWN_CERTS="1", SSL_CERT_FILE="/etc/company.pem").returncode == 2


def test_the_cache_moves_into_the_checkout_when_home_cannot_be_written(checkout: Path) -> None:
    assert "cache=\n" in dev(checkout).stdout
    assert f"cache={checkout}/.uv/cache\n" in dev(checkout, HOME="/proc/nowhere").stdout
    assert "cache=/elsewhere\n" in dev(checkout, HOME="/proc/nowhere", UV_CACHE_DIR="/elsewhere").stdout


def test_no_uv_and_no_pip_is_said_plainly(checkout: Path) -> None:
    shutil.rmtree(checkout / ".uv")
    done = subprocess.run(
        [sys.executable, "-S", "-I", checkout / "dev.py"],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "HOME": str(checkout)},
    )
    assert done.returncode == 1
    assert "uv could not be fetched" in done.stderr
    assert [path.name for path in (checkout / ".uv").iterdir()] == ["bin"]
    assert os.listdir(checkout / ".uv" / "bin") == []
