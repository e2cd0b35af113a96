"""`parley bench`: the measures of the product, beside the floor, in one interleaved run.

    python -m benchmarks [--quick] [--rounds N] [--only PHASE ...] [--json | --markdown [FILE]]

It starts PostgreSQL, Valkey, the floor and Parley in a folder of its own on loopback, and stops them again. Quote ratios:
other numbers are those of this machine at this moment.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks import machine
from benchmarks.alone import ALONE, figures
from benchmarks.client import Failed
from benchmarks.ground import Ground, prepared
from benchmarks.phases import Phase, bare_commit_ms, connected
from benchmarks.plan import PHASES
from benchmarks.report import Results
from benchmarks.stages import SIDE_BY_SIDE, STAGES
from benchmarks.starts import starts
from benchmarks.targets import Target

STARTS = "starts"
STDOUT = "-"
ROUNDS = 3
WARM_UP = 5
VOIDING = (Failed, OSError, EOFError, TimeoutError, asyncpg.PostgresError)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print.

    Args:
        argv: The arguments; the command line's when None.

    Returns:
        0, 1 when a phase was voided by an error, 130 when it was stopped.
    """
    chosen = arguments().parse_args(argv)
    try:
        results, environment = uvloop.run(measure(chosen))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    if chosen.json:
        print(json.dumps({"environment": environment, **results.summary()}, indent=1))
    elif chosen.markdown == STDOUT:
        print("\n\n".join(results.blocks(environment).values()))
    else:
        if chosen.markdown:
            place(Path(chosen.markdown), results, environment)
        print("\n".join(f"{name}: {value}" for name, value in environment.items()), "\n")
        print(results.text())
    return 1 if results.void else 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    names = [*(phase.name for phase in PHASES), STARTS, *ALONE]
    parser = argparse.ArgumentParser(prog="parley bench", description="Measure Parley beside a bare server.")
    parser.add_argument("--quick", action="store_true", help="one round of a third of the runs, in about four minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds over all servers (3, with --quick 1)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PHASE", help=f"some of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print JSON, with the values of every round")
    parser.add_argument(
        "--markdown",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="print Markdown, or put it into a page such as docs/performance.md in place of the figures there",
    )
    return parser


async def measure(chosen: argparse.Namespace) -> tuple[Results, dict[str, Any]]:
    """All stages one after the other; in each of them every phase goes over its servers before the next one begins."""
    _stop_on_sigterm()
    results = Results(quick=chosen.quick)
    environment: dict[str, Any] = machine.environment()
    with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)  # the servers' account passes through when we are root
        if stages := _stages(chosen):
            async with prepared(home) as ground:
                environment |= await _stores(ground.blank)
                for name, phases in stages.items():
                    await _stage(name, phases, ground, chosen, results, environment)
    for name in (name for name in ALONE if not chosen.only or name in chosen.only):
        _say(f"round 1 of 1: {name}")
        try:
            results.alone += await figures(name, quick=chosen.quick)
        except* VOIDING as errors:
            results.void[name] = _why(name, errors)
    if not chosen.only or STARTS in chosen.only:
        _say(f"round 1 of 1: {STARTS}")
        try:
            results.starts = await starts(1 if chosen.quick else 2)
        except* VOIDING as errors:
            results.void[STARTS] = _why("dev.py", errors)
    environment["load_average_at_end"] = machine.load()
    return results, environment


def _stop_on_sigterm() -> None:
    """Stop as Ctrl-C does: with every server that was started."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _stages(chosen: argparse.Namespace) -> dict[str, list[Phase]]:
    """The chosen phases by the servers they need."""
    phases = [phase for phase in PHASES if not chosen.only or phase.name in chosen.only]
    return {name: found for name in STAGES if (found := [phase for phase in phases if phase.stage == name])}


async def _stage(
    name: str,
    phases: Sequence[Phase],
    ground: Ground,
    chosen: argparse.Namespace,
    out: Results,
    notes: dict[str, Any],
) -> None:
    """One group of servers, from start to stop; what goes wrong with them voids its phases."""
    _say(f"starting: {name}")
    try:
        async with STAGES[name](ground, notes, chosen.quick) as targets:
            await _rounds(phases, targets, chosen, out)
            if name == SIDE_BY_SIDE:
                out.memory = {target.name: machine.pss_mb(target.processes) for target in targets}
    except* VOIDING as errors:
        out.void |= {phase.name: _why(name, errors) for phase in phases}


async def _rounds(phases: Sequence[Phase], targets: Sequence[Target], chosen: argparse.Namespace, out: Results) -> None:
    rounds = chosen.rounds or (1 if chosen.quick else ROUNDS)
    for number in range(rounds + 1):
        for phase in (phase for phase in phases if (phase.warm if number == 0 else number <= phase.rounds)):
            _say(f"round {number} of {rounds}: {phase.name}" if number else f"warming up: {phase.name}")
            for target in (target for name in phase.targets for target in targets if target.name == name):
                await _one(phase, target, _count(phase, number, quick=chosen.quick), out, keep=number > 0)


def _count(phase: Phase, number: int, *, quick: bool) -> int:
    """How many runs a round makes; the first one only warms up."""
    return WARM_UP if number == 0 else max(phase.least, phase.count // 3) if quick else phase.count


async def _one(phase: Phase, target: Target, count: int, out: Results, *, keep: bool) -> None:
    """One phase on one server; an error voids the phase."""
    if phase.name in out.void:
        return
    try:
        sample = await phase.measure(phase, target, count)
        if keep:
            out.samples[phase.name][target.name].append(sample)
    except* VOIDING as errors:
        out.void[phase.name] = _why(target.name, errors)


def _why(where: str, errors: BaseExceptionGroup) -> str:
    """What went wrong: the beginning and, as that of a server's log says most, the end."""
    said = "; ".join(repr(error) for error in errors.exceptions)
    return f"{where}: {said if len(said) < 1000 else f'{said[:300]} ... {said[-600:]}'}"


async def _stores(dsn: str) -> dict[str, str]:
    names = ("server_version", "fsync", "full_page_writes", "shared_buffers")
    async with connected(dsn) as connection:
        shown = {f"postgres_{name}": await connection.fetchval(f"show {name}") for name in names}
    # Both servers set it themselves, whatever PostgreSQL's own setting is.
    commit = f"{await bare_commit_ms(dsn):.2f} (synchronous_commit on)"
    return {**shown, "bare_commit_ms": commit}


def place(path: Path, results: Results, environment: dict[str, Any]) -> None:
    """Put the figures where a page has those of an earlier run; what was not measured stays as it is."""
    text = path.read_text(encoding="utf-8")
    for name, block in results.blocks(environment).items():
        before, begin, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not (begin and end):
            raise SystemExit(
                f"{path} has no place for {name}: a line <!-- {name} --> and a line <!-- end of {name} -->"
            )
        text = f"{before}{begin}\n\n{block}\n\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
