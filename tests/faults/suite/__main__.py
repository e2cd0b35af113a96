"""The command: `python -m tests.faults.suite --minutes 20 --seed 7`, also as `python3 dev.py faults`; `--short` too."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.faults.suite.perform import Performance
from tests.faults.suite.plan import schedule
from tests.faults.suite.report import Report
from tests.faults.suite.stage import staged

GAP_SECONDS = 1.0
SHORT_MINUTES, SHORT_PEOPLE, SHORT_RUNS = 8.0, 10, 300  # Minutes at most: about one on a quiet machine.


def main(arguments: list[str]) -> int:
    """Run the suite; 0 when nothing was lost, doubled or wrong."""
    asked = parser().parse_args(arguments)
    report = asyncio.run(perform(asked))
    print(report.markdown())
    if asked.report:
        report.write(asked.report)
    return 0 if report.clean else 1


async def perform(asked: argparse.Namespace) -> Report:
    """Everything from an empty folder to the report."""
    print(f"seed {asked.seed}", flush=True)
    fsync = asked.fsync and not asked.short
    async with staged(_options(fsync=fsync), keep=asked.keep) as stage:
        if asked.keep:
            print(f"kept in {stage.home}", flush=True)
        if asked.short:
            return await Performance(stage, asked.seed, SHORT_MINUTES, SHORT_PEOPLE).every_failpoint(SHORT_RUNS)
        faults = schedule(asked.seed, asked.minutes, asked.gap)
        print(f"{len(faults)} faults in {asked.minutes:g} minutes", *faults, sep="\n", flush=True)
        return await Performance(stage, asked.seed, asked.minutes, asked.people).run(faults)


def _options(*, fsync: bool) -> dict[str, str]:
    return {"log_min_messages": "fatal"} | ({} if fsync else {"fsync": "off", "full_page_writes": "off"})


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="faults", description="Kill, freeze and cut everything, then check.")
    parser.add_argument("--short", action="store_true", help="what the tests do: a kill at every failpoint")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long faults are injected (3)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of faults and load; the time when left out")
    parser.add_argument("--gap", type=float, default=GAP_SECONDS, help="mean seconds between two faults (1)")
    parser.add_argument("--people", type=int, default=8, help="clients at once (8)")
    parser.add_argument("--report", type=Path, help="write the report to <path>.md and <path>.json")
    parser.add_argument("--fsync", action=argparse.BooleanOptionalAction, default=True, help="PostgreSQL's fsync")
    parser.add_argument("--keep", action="store_true", help="leave journal, logs and data behind")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
