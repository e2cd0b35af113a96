"""`parley bench`: the measures of the product, beside the floor, in one interleaved run.

    python -m benchmarks [--quick] [--rounds N] [--only PHASE ...] [--json]

It starts PostgreSQL, Valkey, the floor and Parley in a folder of its own on loopback, and stops them again. Quote ratios:
other numbers are those of this machine at this moment.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks import machine
from benchmarks.client import Failed
from benchmarks.phases import PHASES, Phase
from benchmarks.report import Results
from benchmarks.starts import starts
from benchmarks.targets import Target, started

STARTS = "starts"
ROUNDS = 3
WARM_UP = 5
VOIDING = (Failed, OSError, EOFError, TimeoutError, asyncpg.PostgresError)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print.

    Args:
        argv: The arguments; the command line's when None.

    Returns:
        0, or 1 when a phase was voided by an error.
    """
    chosen = arguments().parse_args(argv)
    results, environment = uvloop.run(measure(chosen))
    if chosen.json:
        print(json.dumps({"environment": environment, **results.summary()}, indent=1))
    else:
        print("\n".join(f"{name}: {value}" for name, value in environment.items()), "\n")
        print(results.text())
    return 1 if results.void else 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    names = [*(phase.name for phase in PHASES), STARTS]
    parser = argparse.ArgumentParser(prog="parley bench", description="Measure Parley beside a bare server.")
    parser.add_argument("--quick", action="store_true", help="one round of a third of the runs, in about 40 seconds")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds over all servers (3, with --quick 1)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PHASE", help=f"some of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print JSON, with the values of every round")
    return parser


async def measure(chosen: argparse.Namespace) -> tuple[Results, dict[str, Any]]:
    """All rounds, interleaved: every phase goes over its servers before the next one begins."""
    phases = [phase for phase in PHASES if not chosen.only or phase.name in chosen.only]
    results = Results()
    environment: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)  # the servers' account passes through when we are root
        if phases:
            async with started(home) as targets:
                environment = {**machine.environment(), **await _stores(targets[0])}
                await _rounds(phases, targets, chosen, results)
                results.memory = {target.name: machine.pss_mb(target.processes) for target in targets}
    if not chosen.only or STARTS in chosen.only:
        results.starts = await starts(1 if chosen.quick else 2)
    environment["load_average_at_end"] = machine.load()
    return results, environment


async def _rounds(phases: Sequence[Phase], targets: Sequence[Target], chosen: argparse.Namespace, out: Results) -> None:
    rounds = chosen.rounds or (1 if chosen.quick else ROUNDS)
    for number in range(rounds + 1):
        for phase in phases:
            _say(f"round {number} of {rounds}: {phase.name}" if number else f"warming up: {phase.name}")
            for target in (target for name in phase.targets for target in targets if target.name == name):
                await _one(phase, target, _count(phase, number, quick=chosen.quick), out, keep=number > 0)


def _count(phase: Phase, number: int, *, quick: bool) -> int:
    """How many runs a round makes; the first one only warms up."""
    return WARM_UP if number == 0 else max(1, phase.count // 3) if quick else phase.count


async def _one(phase: Phase, target: Target, count: int, out: Results, *, keep: bool) -> None:
    """One phase on one server; an error voids the phase."""
    if phase.name in out.void:
        return
    try:
        sample = await phase.measure(phase, target, count)
        if keep:
            out.samples[phase.name][target.name].append(sample)
    except* VOIDING as errors:
        out.void[phase.name] = f"{target.name}: {'; '.join(repr(error) for error in errors.exceptions)[:1000]}"


async def _stores(target: Target) -> dict[str, str]:
    connection = await asyncpg.connect(target.dsn)
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
    shown = {f"postgres_{name}": await connection.fetchval(f"show {name}") for name in names}
    await connection.close()
    return shown


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
