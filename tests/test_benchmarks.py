"""The benchmark suite itself: a tiny run of it, and what it makes of samples."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import documents, openapi, registry, sandbox
from benchmarks.__main__ import main, place
from benchmarks.client import Client, Failed
from benchmarks.figure import Figure
from benchmarks.report import Results
from benchmarks.sampler import PARTS, part_of


def test_a_tiny_run_measures_both_and_voids_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--json", "--only", "delegated-1", "first-event", "chat-tools"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["void"] == {}
    assert found["environment"]["postgres_fsync"] == "on"
    delegated = found["phases"]["delegated-1"]
    assert delegated["runs/s"]["ratio"] == [
        delegated["runs/s"]["parley"][0] / delegated["runs/s"]["floor"][0],
    ]
    assert found["phases"]["first-event"]["first text over the model's ms p50"]["floor-inline"][0] > 0
    assert found["phases"]["chat-tools"]["cpu ms api"]["ratio"][0] > 0
    assert found["memory_pss_mb"]["parley"].keys() >= {"api", "worker"}


def test_the_samplers_find_the_parts_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--json", "--only", "parts"]) == 0

    parts = json.loads(capsys.readouterr().out)["phases"]["parts"]
    for server in ("api", "worker"):
        shares = sum(parts[f"{server} {part} ms"]["parley"][0] for part in PARTS)
        assert shares == pytest.approx(parts[f"{server} ms"]["parley"][0])
    assert parts["worker agent ms"]["parley"][0] > parts["worker http ms"]["parley"][0]


def test_ratios_are_taken_round_by_round_and_a_void_phase_is_not_reported() -> None:
    results = Results()
    results.samples["chat-1"]["floor-inline"] = [{"turns/s": 100.0}, {"turns/s": 200.0}, {"turns/s": 50.0}]
    results.samples["chat-1"]["parley"] = [{"turns/s": 50.0}, {"turns/s": 150.0}, {"turns/s": 50.0}]
    results.samples["chat-16"]["parley"] = [{"turns/s": 1.0}]
    results.void["chat-16"] = "parley: failed"
    results.starts = {"cold start s": [7.0], "warm start s": [4.5]}
    results.memory = {"floor": {"api": 50.0, "worker": 50.0}, "parley": {"api": 70.0, "worker": 70.0, "postgres": 9.0}}

    assert results.summary()["phases"]["chat-1"]["turns/s"]["ratio"] == [0.5, 0.75, 1.0]
    assert "chat-16" not in results.summary()["phases"]
    text = results.text()
    assert "VOID chat-16: parley: failed" in text
    assert "met    cold start s: 7 (<= 15)" in text
    assert "MISSED warm start s: 4.5 (<= 4)" in text
    assert "met    memory (PSS) of API and worker over the floor's: 1.4 (<= 1.5x)" in text


def test_a_quick_run_says_nothing_of_what_it_did_not_measure_whole() -> None:
    results = Results(quick=True)
    results.samples["readers"]["parley-readers"] = [{"readers": 1000.0}]
    results.samples["recovery"]["parley-killed"] = [{"kill to restart s": 9.5, "lost": 0, "doubled": 1}]

    assert [(each.says, each.met) for each in results.verdicts()] == [
        ("kill -9 of a worker: seconds to restart (lease + sweep)", True),
        ("kill -9 of a worker: runs lost", True),
        ("kill -9 of a worker: runs doubled", False),
    ]
    results.quick = False
    assert [each.says for each in results.verdicts() if not each.met] == [
        "idle readers on one API process",
        "kill -9 of a worker: runs doubled",
    ]


def test_figures_replace_those_of_the_run_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    results = Results()
    results.samples["chat-1"] = {"floor-inline": [{"cpu ms api": 2.0}], "parley": [{"cpu ms api": 2.5}]}

    place(page, results, {"cores": 2})

    text = page.read_text()
    assert text.startswith("before\n<!-- figures -->\n\n- cores: 2\n")
    assert "| chat turn of text: CPU over floor-inline's | 1.25 | <= 1.3x | met |" in text
    assert text.endswith("<!-- end of figures -->\nafter\n")
    assert "old" not in text


def test_figures_of_tools_have_a_place_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- figures -->\nkept\n<!-- end of figures -->\n<!-- figures of tools -->\n<!-- end of figures of tools -->\n"
    )
    results = Results(alone=[Figure("warm call ms", 3.0, 2.0), Figure("read s", 0.25)])

    place(page, results, {"at": "now", "cpu": "one", "cores": 2})

    assert "\nkept\n" in page.read_text()
    assert "| warm call ms | 2 | 3 | 1.50 |\n| read s |  | 0.25 |  |\n" in page.read_text()
    assert "warm call ms: 3 (yardstick 2, 1.50x)" in results.text()


@pytest.mark.parametrize(
    ("measure", "count"),
    [
        (lambda: sandbox.measure(3, 1), 3),
        (lambda: registry.measure(1, 3), 6),
        (lambda: openapi.measure(1, 4), 3),
        (lambda: documents.measure(100, 3), 7),
    ],
    ids=["sandbox", "registry", "openapi", "documents"],
)
async def test_tools_and_documents_are_measured(measure: Callable[[], Awaitable[list[Figure]]], count: int) -> None:
    figures = await measure()
    assert len({each.measure for each in figures}) == count
    assert all(each.found > 0 for each in figures if "cpu" not in each.measure), figures


def test_a_sample_belongs_to_the_innermost_known_part() -> None:
    def frame(*places: tuple[str, str]) -> Any:
        """A stack, the innermost place first."""
        inner, *outer = places
        code = SimpleNamespace(co_filename=inner[0], co_name=inner[1])
        return SimpleNamespace(f_code=code, f_back=frame(*outer) if outer else None)

    redis, run = ("/lib/redis/client.py", "execute"), ("/lib/asyncio/runners.py", "run")
    assert part_of(frame(redis, ("/x/app/events/bus.py", "_write"), run)) == "events"
    assert part_of(frame(redis, ("/lib/arq/worker.py", "poll"), run)) == "queue"
    assert part_of(frame(("/lib/asyncpg/pool.py", "acquire"), ("/x/app/api/tasks.py", "create"), run)) == "commits"
    assert part_of(frame(("/x/benchmarks/floor.py", "run"))) == "commits"
    assert part_of(frame(run)) == "loop"
    assert part_of(None) == "other"


async def test_the_client_reads_events_however_they_are_cut_and_refuses_failures() -> None:
    answers = iter(
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1a\r\nevent: a\r\ndata: {}\r\n\r\n: be\r\n"
            b"1a\r\nat\r\n\r\nevent: b\ndata: [1]\n\n\r\n"
            b"0\r\n\r\n",
            b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno",
        )
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for content in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(content)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Client(server.sockets[0].getsockname()[1]) as client:
        events = [(event.name, event.data) async for event in client.events("GET", "/")]
        with pytest.raises(Failed, match="answered 409: no"):
            await client.json("GET", "/")

    assert events == [("a", {}), ("b", [1])]
