"""Medians over rounds, ratios of the same round, and how they are printed."""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.phases import PHASES, Phase, Sample

# What the product promises of a ratio to the yardstick, or of a value: phase, measure, least or most, bound.
GOALS = (
    ("delegated-32", "runs/s", "ratio", ">=", 0.7),
    ("delegated-1", "submit to finished ms p50", "ratio", "<=", 1.2),
    ("delegated-1", "accepted to started ms p50", "value", "<=", 25.0),
    ("delegated-1", "accept ms p99", "value", "<=", 20.0),
    ("chat-1", "cpu ms servers", "ratio", "<=", 1.3),
    ("streams-50", "tokens/s", "ratio", ">=", 1.0),
    ("streams-50", "first event ms p50", "value", "<=", 50.0),
    ("streams-50", "bytes/token", "value", "<=", 120.0),
)
START_GOALS = {"cold start s": 15.0, "warm start s": 4.0}
MEMORY_GOAL = 1.5


@dataclass
class Results:
    """Samples by phase and server, one per round; what went wrong; and measures outside the rounds."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    void: dict[str, str] = field(default_factory=dict[str, str])
    memory: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    starts: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def summary(self) -> dict[str, Any]:
        """Everything as JSON."""
        phases = {phase.name: _phase(phase, self.samples[phase.name]) for phase in self._measured()}
        return {"phases": phases, "void": self.void, "memory_pss_mb": self.memory, "starts": self.starts}

    def _measured(self) -> list[Phase]:
        return [phase for phase in PHASES if phase.name in self.samples and phase.name not in self.void]

    def text(self) -> str:
        """Everything as tables."""
        lines: list[str] = []
        summary = self.summary()
        for phase in self._measured():
            lines += _table(phase, summary["phases"][phase.name])
        lines += [f"{name}: {_values(values)}" for name, values in self.starts.items()]
        lines += [f"memory MB (PSS) {name}: {_memory(groups)}" for name, groups in self.memory.items()]
        lines += [f"VOID {name}: {why}" for name, why in self.void.items()]
        return "\n".join([*lines, "", *_goals(summary["phases"]), *self._other_goals()])

    def _other_goals(self) -> list[str]:
        """Goals of measures outside the rounds."""
        lines = [_verdict(name, median(values), "<=", START_GOALS[name]) for name, values in self.starts.items()]
        if {"floor", "parley"} <= self.memory.keys():
            ratio = _servers_mb(self.memory["parley"]) / _servers_mb(self.memory["floor"])
            lines.append(_verdict("memory of API and worker: ratio", ratio, "<=", MEMORY_GOAL))
        return lines


def _phase(phase: Phase, by_target: dict[str, list[Sample]]) -> dict[str, Any]:
    yardstick, ours = (by_target[phase.targets[index]] for index in (0, -1))
    return {
        measure: {
            **{name: [sample.get(measure) for sample in by_target[name]] for name in phase.targets},
            "ratio": _ratios([sample.get(measure) for sample in yardstick], [sample[measure] for sample in ours]),
        }
        for measure in ours[0]
    }


def _ratios(yardstick: list[float | None], ours: list[float]) -> list[float]:
    """Ours over the yardstick, round by round."""
    return [mine / theirs for theirs, mine in zip(yardstick, ours, strict=True) if theirs]


def _table(phase: Phase, measures: dict[str, Any]) -> list[str]:
    columns = [*phase.targets, "ratio"]
    lines = [f"{phase.name:<32}" + "".join(f"{column:>26}" for column in columns)]
    for measure, values in measures.items():
        lines.append(f"  {measure:<30}" + "".join(f"{_values(values[column]):>26}" for column in columns))
    return [*lines, ""]


def _values(values: list[float | None]) -> str:
    """The median, and the range."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" [{_short(min(known))}-{_short(max(known))}]" if len(known) > 1 else ""
    return _short(median(known)) + spread


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _servers_mb(groups: dict[str, float]) -> float:
    return sum(size for name, size in groups.items() if name in ("api", "worker"))


def _memory(groups: dict[str, float]) -> str:
    each = ", ".join(f"{name} {size:.0f}" for name, size in groups.items())
    return f"{each}; api and worker {_servers_mb(groups):.0f}"


def _goals(phases: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for phase, measure, kind, sense, bound in GOALS:
        found = phases.get(phase, {}).get(measure, {}).get("ratio" if kind == "ratio" else "parley")
        if found:
            lines.append(_verdict(f"{phase}, {measure}: {kind}", median(found), sense, bound))
    return lines


def _verdict(what: str, value: float, sense: str, bound: float) -> str:
    met = value >= bound if sense == ">=" else value <= bound
    return f"{'met   ' if met else 'MISSED'} {what} {_short(value)} ({sense} {bound:g})"
