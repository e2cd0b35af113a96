"""The report: one JSON object, and the same as Markdown for people."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """What a run of the suite found."""

    seed: int
    again: str
    minutes: float
    environment: dict[str, Any]
    faults: dict[str, int]
    passed_over: dict[str, int]
    kills_and_freezes: int
    runs: dict[str, int]
    acknowledged: dict[str, int]
    answers: dict[str, int]
    lost: int
    doubled: int
    wrong: int
    violations: list[dict[str, str]]
    recovery_seconds: dict[str, dict[str, float | int | None]]
    failpoints: dict[str, int]
    drain_seconds: float
    streams: dict[str, int]
    logged_errors: dict[str, int]

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def markdown(self) -> str:
        lines = [
            f"# Faults: seed {self.seed}, {self.minutes:g} minutes",
            "",
            f"Again: `{self.again}`",
            "",
            f"{self.kills_and_freezes} kills and freezes, {sum(self.faults.values())} faults in all; "
            f"{sum(self.runs.values())} runs, {sum(self.acknowledged.values())} acknowledged to clients. "
            f"**Lost {self.lost}, doubled {self.doubled}, otherwise wrong {self.wrong}.** "
            f"Everything had ended {self.drain_seconds:.1f} s after the last fault.",
            "",
            *_table("Fault", "times", self.faults),
            *_table("Failpoint", "times", self.failpoints),
            *_table("Run ended as", "runs", self.runs),
            *_table("Acknowledged", "runs", self.acknowledged),
            *_table("Streams", "", self.streams),
            "| Until a run goes on elsewhere after its holder was | runs | p50 | p99 | longest |",
            "|---|---|---|---|---|",
            *(
                f"| {how} | {each['count']} | {_s(each['p50'])} | {_s(each['p99'])} | {_s(each['max'])} |"
                for how, each in self.recovery_seconds.items()
            ),
            "",
            *_table("HTTP status", "answers", self.answers),
            *_table("Logged as an error", "times", self.logged_errors),
            *([f"- {each['kind']}: {each['what']}: {each['detail']}" for each in self.violations] or ["No violation."]),
            "",
            "Environment: " + ", ".join(f"{name} {value}" for name, value in self.environment.items()),
            "",
        ]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """As `<path>.md` and `<path>.json`."""
        path.with_suffix(".md").write_text(self.markdown())
        path.with_suffix(".json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def _table(what: str, unit: str, rows: dict[str, int]) -> list[str]:
    return [f"| {what} | {unit} |", "|---|---|", *(f"| {name} | {count} |" for name, count in rows.items()), ""]


def _s(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
