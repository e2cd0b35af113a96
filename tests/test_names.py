"""Names looked up: those that nobody answers for hold nobody else up."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from threading import Event, Lock
from typing import Any

import pytest

from app.egress import Egress
from app.egress.names import MAX_LOOKUPS, MAX_OF_A_DOMAIN, Names
from app.errors import EgressFailed
from app.settings import Settings
from tests.loopback import answer, serving


class System:
    """What asks the system: it hangs on every name that ends in `.stuck`, or has `stuck` in it, until it is let go."""

    def __init__(self) -> None:
        self.free, self.lock, self.asked, self.hanging = Event(), Lock(), list[str](), Counter[str]()

    def __call__(self, host: str, port: int, *, type: socket.SocketKind) -> list[Any]:
        with self.lock:
            self.asked.append(host)
            self.hanging[host.partition(".")[2]] += 1
        if "stuck" in host:
            self.free.wait(60)
        if "missing" in host:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, type, 6, "", (f"127.0.0.{n}", port)) for n in (1, 2, 1)]


@pytest.fixture
def system() -> Iterator[System]:
    system = System()
    yield system
    system.free.set()


async def test_addresses_come_once_in_their_order(system: System) -> None:
    names = Names(system)
    assert await names.resolve("a.example", 80) == ["127.0.0.1", "127.0.0.2"]
    assert await names.resolve("::1", 80) == ["::1"]
    assert await names.resolve("10.0.0.1", 80) == ["10.0.0.1"]
    assert system.asked == ["a.example"]
    with pytest.raises(OSError, match="no such name"):
        await names.resolve("missing.example", 80)


async def test_a_name_that_nobody_answers_for_is_given_up_and_others_are_not(system: System) -> None:
    names = Names(system, seconds=0.2)
    with pytest.raises(EgressFailed, match=r"a\.stuck\.example can't be resolved: its name server does not answer"):
        await names.resolve("a.stuck.example", 80)
    assert await names.resolve("b.example.org", 80)


async def test_one_domain_holds_few_threads(system: System) -> None:
    names = Names(system, seconds=0.3)
    hosts = [f"n{n}.stuck.example" for n in range(3 * MAX_LOOKUPS)]
    told = await asyncio.gather(*(names.resolve(host, 80) for host in hosts), return_exceptions=True)
    assert len(system.asked) == MAX_OF_A_DOMAIN
    reasons = Counter(str(error).partition(": ")[2].partition("resolved: ")[2] for error in told)
    assert reasons == {
        "its name server does not answer (0.3 s)": MAX_OF_A_DOMAIN,
        "too many other names are being looked up (0.3 s)": 3 * MAX_LOOKUPS - MAX_OF_A_DOMAIN,
    }
    assert await names.resolve("b.example.org", 80)


async def test_when_all_threads_hang_it_is_said_and_passes(system: System) -> None:
    names = Names(system, seconds=0.3)
    stuck = [f"a.stuck{n}.example{n}" for n in range(MAX_LOOKUPS)]
    await asyncio.gather(*(names.resolve(host, 80) for host in stuck), return_exceptions=True)
    with pytest.raises(EgressFailed, match="too many other names are being looked up"):
        await names.resolve("b.example.org", 80)
    system.free.set()
    names.seconds = 30.0
    assert await names.resolve("b.example.org", 80)


async def test_a_caller_that_gives_up_leaves_the_turn_to_its_thread(system: System) -> None:
    names = Names(system)
    callers = [asyncio.create_task(names.resolve(f"n{n}.stuck.example", 80)) for n in range(MAX_OF_A_DOMAIN + 1)]
    while len(system.asked) < MAX_OF_A_DOMAIN:
        await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert len(system.asked) == MAX_OF_A_DOMAIN
    system.free.set()
    assert await names.resolve("b.stuck.example", 80)


async def test_the_guarded_client_looks_names_up_so(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the loop, whose threads a name could hold."""

    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the loop was asked")

    async with serving() as site:
        site.answers["/"] = answer(b"here")
        egress = Egress(Settings.of(parley_egress_allow=f"localhost:{site.port}"))
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        assert (await egress.fetch("GET", site.url(host="localhost"))).body == b"here"
        await egress.aclose()
