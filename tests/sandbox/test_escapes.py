"""The escape battery: attacks straight at the interpreter, judged by what the host sees and not by what they answer.

The checks of imports and syntax are off here. They help whoever writes a function; the wall has to stand without them.
"""

import asyncio
import inspect
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from app import sandbox
from app.sandbox import Limits, Outcome
from app.sandbox.runtime import MAX_WORKERS
from tests.sandbox.attacks import ATTACKS, FORGERIES, LEFTOVERS
from tests.sandbox.host import GRACE_SECONDS, Host, Watch, measures, workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the judge reads /proc")

LIMITS = Limits(seconds=0.3, memory_mb=16, output_bytes=1000)
PARAMETERS = "canary, name, port, unix, folder, pid"
BENIGN = "async def f(text: str) -> str:\n    return text[::-1]"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    for above in (folder, *folder.parents):  # Nothing but the sandbox itself is to keep anybody out.
        if above.is_dir() and above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    with Host(folder) as host:
        yield host


@pytest.fixture(autouse=True, scope="module")
def _workers_end() -> Iterator[None]:
    yield
    asyncio.run(sandbox.aclose())


@pytest.fixture(autouse=True)
def _no_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.sandbox.source._check_imports", lambda *_: None)
    monkeypatch.setattr("app.sandbox.source._check_syntax", lambda *_: None)


@pytest.fixture
async def one_worker(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """All calls are served by the same worker."""
    await sandbox.aclose()
    monkeypatch.setattr("app.sandbox.runtime.MAX_WORKERS", 1)
    yield
    await sandbox.aclose()


def function(body: str) -> str:
    return f"async def f({PARAMETERS}):\n{textwrap.indent(body, '    ')}"


async def attack(host: Host, body: str) -> tuple[Outcome, list[str]]:
    """Run an attack; what it did to the host."""
    assert await still_well()  # The workers are there: what else is started is the attack's doing.
    with Watch() as watch:
        began = time.monotonic()
        outcome = await sandbox.run(function(body), host.arguments, LIMITS)
        seconds = time.monotonic() - began
    return outcome, host.touched() + host.told(outcome) + measures(outcome, LIMITS, seconds, watch)


async def still_well() -> bool:
    return (await sandbox.run(BENIGN, {"text": "abc"}, LIMITS)).result == "cba"


# --- the battery ----------------------------------------------------------------------------------


def test_the_battery_is_large_enough() -> None:
    assert len(ATTACKS) + len(FORGERIES) + len(LEFTOVERS) >= 60


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS)
async def test_nothing_escapes(host: Host, body: str) -> None:
    _, escapes = await attack(host, body)
    assert escapes == []
    assert await still_well()


async def test_attacks_at_the_same_time_hurt_nobody_else(host: Host) -> None:
    bodies = [ATTACKS[name] for name in ("time: swallowing", "memory: swallowed", "output: prints")]
    attacks = [asyncio.create_task(sandbox.run(function(body), host.arguments, LIMITS)) for body in bodies]
    began = time.monotonic()
    assert await still_well()
    assert time.monotonic() - began < GRACE_SECONDS
    await asyncio.gather(*attacks)
    assert host.touched() == []


async def test_endless_loops_leave_room_for_other_calls() -> None:
    """One workspace has more of them than there are workers; another's calls are answered meanwhile."""
    code, owner = "def f():\n    while True:\n        pass", uuid4()
    loops = [asyncio.create_task(sandbox.run(code, {}, LIMITS, owner=owner)) for _ in range(MAX_WORKERS + 1)]
    lateness: list[float] = []
    while not all(loop.done() for loop in loops):
        began = time.monotonic()
        await asyncio.sleep(0.01)
        lateness.append(time.monotonic() - began)
        assert await still_well()
    assert {"time" in str(loop.result().error) or "longer" in str(loop.result().error) for loop in loops} == {True}
    assert len(lateness) > 1
    assert max(lateness) < GRACE_SECONDS
    assert len(workers()) <= MAX_WORKERS


async def test_an_attack_before_the_function_is_called(host: Host) -> None:
    for before in ("while True:\n    pass", "open('/etc/passwd')", "x = [0] * 10 ** 10", "print('x' * 10 ** 7)"):
        began = time.monotonic()
        outcome = await sandbox.run(f"{before}\nasync def f():\n    return 1", {}, LIMITS)
        assert outcome.error is not None
        assert time.monotonic() - began < LIMITS.seconds + GRACE_SECONDS
    assert await still_well()


# --- forging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", FORGERIES.values(), ids=FORGERIES)
async def test_a_result_is_data_and_nothing_else(host: Host, body: str) -> None:
    outcome, escapes = await attack(host, body)
    assert escapes == []
    assert outcome.duration_ms >= 0
    assert (outcome.error is None) != body.startswith(("raise", "import asyncio\nraise"))
    assert json.loads(json.dumps(outcome.result, allow_nan=False)) == outcome.result
    if body.endswith("return 'real'"):
        assert outcome.result == "real"
    assert await still_well()


# --- tenants --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_worker")
async def test_nothing_is_left_for_the_next_workspace(host: Host) -> None:
    found: list[str] = []
    for name, (leaving, looking) in LEFTOVERS.items():
        await sandbox.run(function(leaving.replace("SECRET", repr(host.secret))), host.arguments, LIMITS)
        looked = await sandbox.run(f"async def f():\n{textwrap.indent(looking, '    ')}", {}, LIMITS)
        found += [name for _ in host.told(looked)]
    assert found == []
    assert len(workers()) == 1


async def test_calls_at_the_same_time_get_their_own_answers() -> None:
    code = "import asyncio\nasync def f(who: str) -> str:\n    global me\n    me = who\n    print(who)\n"
    code += "    await asyncio.sleep(0.01)\n    return me"
    names = [f"workspace-{number}" for number in range(40)]
    outcomes = await asyncio.gather(*(sandbox.run(code, {"who": name}, LIMITS) for name in names))
    assert [(outcome.result, outcome.printed) for outcome in outcomes] == [(name, f"{name}\n") for name in names]


# --- the workers themselves -----------------------------------------------------------------------


async def test_a_worker_has_no_environment_and_nothing_open_of_ours(host: Host) -> None:
    assert await still_well()
    ours = {link for link in map(_link, Path("/proc/self/fd").iterdir()) if link.startswith("socket:")}
    for pid in workers():
        proc = Path(f"/proc/{pid}")
        assert host.secret not in proc.joinpath("environ").read_text()
        assert proc.joinpath("environ").read_bytes() == b""
        assert ours & {_link(each) for each in proc.joinpath("fd").iterdir()} == set()


async def test_a_worker_has_no_privileges() -> None:
    assert await still_well()
    assert workers()
    for pid in workers():
        said = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert "0" not in said["Uid"].split()
        assert int(said["CapEff"], 16) == int(said["CapPrm"], 16) == 0
        assert said["NoNewPrivs"] == "1"
        assert os.getpriority(os.PRIO_PROCESS, pid) > 0
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


# --- the judge ------------------------------------------------------------------------------------

SEEN = {
    "the secret was told": "with open(canary) as file:\n    return file.read()",
    "the canary was changed": "with open(canary, 'a') as file:\n    file.write('x')",
    "something was written": "open(folder + '/written', 'w').close()",
    "the environment was changed": "import os\nos.environ[name] = 'other'",
    "a connection came": "import socket\nsocket.create_connection(('127.0.0.1', port)).close()",
    "a packet came": "import socket\nwith socket.socket(type=socket.SOCK_DGRAM) as s:\n    s.sendto(b'x', ('127.0.0.1', port))",
    "a signal came": "import os\nos.kill(pid, 10)",
}


@pytest.mark.parametrize(("seen", "body"), SEEN.items(), ids=SEEN)
async def test_the_judge_sees_an_escape(tmp_path: Path, seen: str, body: str) -> None:
    """The same kind of attack, run right here instead of in the sandbox."""
    with Host(tmp_path) as host:
        assert host.touched() == []
        namespace: dict[str, object] = {}
        exec(function(body).removeprefix("async "), namespace)
        called = namespace["f"]
        assert inspect.isfunction(called)
        outcome = Outcome(called(**host.arguments), 0)
        assert host.touched() + host.told(outcome) == [seen]
        os.environ[host.name] = host.secret


def test_the_judge_sees_processes_and_memory() -> None:
    with Watch() as watch, subprocess.Popen(["sleep", "60"]) as stranger:
        held = bytearray(200 * 2**20)
        watch.look()
        stranger.kill()
    del held
    found = measures(Outcome("x" * 3000, 0), LIMITS, 2.5, watch)
    assert [each.split()[0] for each in found] == ["it", str(watch.own_mb), "processes", "the"]
    assert watch.strangers == {"sleep 60"}
