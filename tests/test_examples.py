"""The examples of README and quickstart, run as they stand against a whole Parley."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import running
from tests.embedded.conftest import home as home_of_its_own

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^    python3 dev\.py (\S.*)$", re.M)
# curl itself where there is one, failing on a refusal; else what the examples use of it.
CURL = """#!/bin/sh
exec {curl} --fail-with-body "$@"
"""
STAND_IN = """#!{python}
import sys, urllib.request
arguments, headers, data, method, url = iter(sys.argv[1:]), {{}}, None, None, ""
for each in arguments:
    if each == "-H":
        name, _, value = next(arguments).partition(": ")
        headers[name] = value
    elif each == "-d":
        data = next(arguments).encode()
    elif each == "-X":
        method = next(arguments)
    elif not each.startswith("-"):
        url = "http://" + each
with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
    sys.stdout.write(answer.read().decode())
"""

home = home_of_its_own


@pytest.fixture
def port(home: Path) -> Iterator[int]:
    """A Parley in a folder of its own, started as a person starts it."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "PARLEY_HOME": str(home / ".parley"), "PARLEY_PORT": "0"}
    command = [sys.executable, "-m", "app.cli", "up"]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        assert up.stdout
        for line in up.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        run = running(home / ".parley")
        assert run, "".join(said)
        try:
            yield int(run.url.rpartition(":")[2])
        finally:
            up.send_signal(signal.SIGINT)
            up.stdout.read()
            assert up.wait(timeout=30) == 0


def tools(folder: Path) -> Path:
    """A folder with a `curl` that fails on a refusal."""
    folder.mkdir()
    curl, there = shutil.which("curl"), folder / "curl"
    there.write_text(CURL.format(curl=curl) if curl else STAND_IN.format(python=sys.executable))
    there.chmod(0o755)
    return folder


def run_page(page: Path, port: int, folder: Path) -> str:
    """Everything the page's blocks write, run in order in one shell."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    script = "set -euo pipefail\n" + "echo\n".join(blocks).replace("localhost:8000", f"localhost:{port}")
    path = f"{tools(folder / f'bin-{page.stem}')}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def run_commands(page: Path, folder: Path) -> str:
    """What the commands of a page print; each with nothing typed into it."""
    commands = COMMAND.findall(page.read_text(encoding="utf-8"))
    script = "set -euo pipefail\n" + "".join(f"{sys.executable} -m app.cli {command}\n" for command in commands)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PARLEY_HOME": str(folder / ".parley")}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_the_examples_run_as_they_stand(home: Path, port: int) -> None:
    readme = run_page(ROOT / "README.md", port, home)
    assert '"state":"completed"' in readme
    assert '"receipt_id"' in readme
    assert '"output":"yelraP"' in readme
    assert '"output":"437"' in readme
    assert "19 lots of 23 make 437" in readme
    quickstart = run_page(ROOT / "docs" / "quickstart.md", port, home)
    for said in ("40", "event: run.completed", "Monday through Friday", '"outcome":"run"', '"result":"PARLEY!"', "400"):
        assert said in quickstart, said
    commands = run_commands(ROOT / "docs" / "quickstart.md", home)
    assert "18446744073709551616" in commands
    webhooks = run_page(ROOT / "docs" / "webhooks.md", port, home)
    assert webhooks.count('"outcome":"run"') == 5, "three senders, the list of receipts, and the replay"
    assert '{"challenge":"3eZbrw1aB10FEMAGAZd4F"}' in webhooks
    assert '"replay_of":"' in webhooks
    assert list((home / ".parley" / "outbox").glob("*.eml")), "the mail of the delegated task was captured"
