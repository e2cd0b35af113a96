"""Medians over rounds, ratios of the same round, and how they are printed."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.figure import Figure
from benchmarks.phases import Phase, Sample
from benchmarks.plan import BESIDE, GOALS, MEMORY_BAR, PHASES, START_GOALS, Goal
from benchmarks.sampler import PARTS

Values = Sequence[float | None]


@dataclass(frozen=True)
class Verdict:
    """A promise beside what was found."""

    says: str
    found: float
    bound: str
    met: bool


@dataclass
class Results:
    """Samples by phase and server, one per round; what went wrong; and measures outside the rounds."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    void: dict[str, str] = field(default_factory=dict[str, str])
    memory: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    starts: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    alone: list[Figure] = field(default_factory=list[Figure])
    quick: bool = False

    def summary(self) -> dict[str, Any]:
        """Everything as JSON."""
        phases = {phase.name: _phase(phase, self.samples[phase.name]) for phase in self._measured()}
        return {
            "phases": phases,
            "void": self.void,
            "memory_pss_mb": self.memory,
            "starts": self.starts,
            "alone": [asdict(each) for each in self.alone],
        }

    def _measured(self) -> list[Phase]:
        return [phase for phase in PHASES if phase.name in self.samples and phase.name not in self.void]

    def verdicts(self) -> list[Verdict]:
        """Every promise that was measured, as large as it was meant."""
        phases = self.summary()["phases"]
        goals = [goal for goal in GOALS if not (goal.whole and self.quick)]
        found = [_verdict(goal, values) for goal in goals if (values := _found(goal, phases))]
        for name, values in self.starts.items():
            bar = START_GOALS[name]
            found.append(Verdict(name, median(values), f"<= {bar:g}", median(values) <= bar))
        if {"floor", "parley"} <= self.memory.keys():
            ratio = _servers_mb(self.memory["parley"]) / _servers_mb(self.memory["floor"])
            says = "memory (PSS) of API and worker over the floor's"
            found.append(Verdict(says, ratio, f"<= {MEMORY_BAR:g}x", ratio <= MEMORY_BAR))
        return found

    # --- as text -----------------------------------------------------------------------------------------

    def text(self) -> str:
        """Everything as tables, the promises last."""
        lines: list[str] = []
        summary = self.summary()
        for phase in self._measured():
            lines += _table(phase, summary["phases"][phase.name])
        lines += [f"{name}: {_values(values)}" for name, values in self.starts.items()]
        lines += [each.line for each in self.alone]
        lines += [f"memory MB (PSS) {name}: {_memory(groups)}" for name, groups in self.memory.items()]
        lines += [f"VOID {name}: {why}" for name, why in self.void.items()]
        beside = [
            f"       {phase}: {measure}: {_against(*values)}" for phase, measure, *values in _beside(summary["phases"])
        ]
        return "\n".join([*lines, "", *(_line(verdict) for verdict in self.verdicts()), "", "beside them:", *beside])

    # --- as Markdown -------------------------------------------------------------------------------------

    def blocks(self, environment: dict[str, Any]) -> dict[str, str]:
        """What belongs into each place of a page; of what was not measured there is none."""
        found = {"figures of tools": self._tools(environment)} if self.alone else {}
        return found | ({"figures": self.markdown(environment)} if self.samples or self.starts else {})

    def _tools(self, environment: dict[str, Any]) -> str:
        said = ", ".join(str(environment[name]) for name in ("at", "cpu", "cores") if name in environment)
        rows = [
            (each.measure, "" if each.yardstick is None else _short(each.yardstick), _short(each.found), _ratio(each))
            for each in self.alone
        ]
        load = f"load average {environment.get('load_average')} to {environment.get('load_average_at_end')}"
        return "\n".join([f"{said} cores, {load}", "", *_rows(("measure", "yardstick", "Parley", "ratio"), rows)])

    def markdown(self, environment: dict[str, Any]) -> str:
        """The environment, the promises, the figures beside them, and the parts of a run."""
        phases = self.summary()["phases"]
        blocks = [
            [f"- {name.replace('_', ' ')}: {_plain(value)}" for name, value in environment.items()],
            _rows(
                ("promise", "found", "bar", ""),
                [(each.says, _short(each.found), each.bound, _word(each)) for each in self.verdicts()],
            ),
            _rows(("beside them", "measure", "yardstick", "Parley", "ratio"), _beside(phases)),
            _rows(("memory MB (PSS)", "API", "worker", "both"), [_memory_row(*each) for each in self.memory.items()]),
            *(_parts_table(name, phases[name]) for name in ("parts", "parts-chat", "parts-tools") if name in phases),
            [f"- VOID {name}: {why}" for name, why in self.void.items()],
        ]
        return "\n\n".join("\n".join(block) for block in blocks if block)


# --- values -------------------------------------------------------------------------------------------------


def _phase(phase: Phase, by_target: dict[str, list[Sample]]) -> dict[str, Any]:
    yardstick, ours = (by_target[phase.targets[index]] for index in (0, -1))
    return {
        measure: {
            **{name: [sample.get(measure) for sample in by_target[name]] for name in phase.targets},
            **(
                {"ratio": _ratios([sample.get(measure) for sample in yardstick], [sample[measure] for sample in ours])}
                if len(phase.targets) > 1
                else {}
            ),
        }
        for measure in ours[0]
    }


def _ratios(yardstick: list[float | None], ours: list[float]) -> list[float]:
    """Ours over the yardstick, round by round."""
    return [mine / theirs for theirs, mine in zip(yardstick, ours, strict=True) if theirs]


def _found(goal: Goal, phases: dict[str, Any]) -> list[float]:
    """The figures of a promise, one per round."""
    column = "ratio" if goal.of == "ratio" else _targets(goal.phase)[-1]
    return phases.get(goal.phase, {}).get(goal.measure, {}).get(column, [])


def _targets(name: str) -> tuple[str, ...]:
    return next(phase.targets for phase in PHASES if phase.name == name)


def _verdict(goal: Goal, values: list[float]) -> Verdict:
    return Verdict(goal.says, median(values), goal.bound, goal.met(median(values)))


def _servers_mb(groups: dict[str, float]) -> float:
    return sum(size for name, size in groups.items() if name in ("api", "worker"))


# --- lines --------------------------------------------------------------------------------------------------


def _table(phase: Phase, measures: dict[str, Any]) -> list[str]:
    columns = [*phase.targets, *(["ratio"] if len(phase.targets) > 1 else [])]
    lines = [f"{phase.name:<38}" + "".join(f"{column:>26}" for column in columns)]
    for measure, values in measures.items():
        lines.append(f"  {measure:<36}" + "".join(f"{_values(values[column]):>26}" for column in columns))
    return [*lines, ""]


def _values(values: Values) -> str:
    """The median, and the range."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" [{_short(min(known))}-{_short(max(known))}]" if len(known) > 1 else ""
    return _short(median(known)) + spread


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(figure: Figure) -> str:
    return "" if figure.ratio is None else f"{figure.ratio:.2f}"


def _line(verdict: Verdict) -> str:
    return f"{_word(verdict):<6} {verdict.says}: {_short(verdict.found)} ({verdict.bound})"


def _word(verdict: Verdict) -> str:
    return "met" if verdict.met else "MISSED"


def _memory(groups: dict[str, float]) -> str:
    each = ", ".join(f"{name} {size:.0f}" for name, size in groups.items())
    return f"{each}; api and worker {_servers_mb(groups):.0f}"


def _memory_row(name: str, groups: dict[str, float]) -> tuple[str, ...]:
    return name, _mb(groups.get("api")), _mb(groups.get("worker")), _mb(_servers_mb(groups))


def _mb(size: float | None) -> str:
    return "-" if size is None else f"{size:.0f}"


def _rows(head: tuple[str, ...], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _beside(phases: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for phase, measure in BESIDE:
        if found := phases.get(phase, {}).get(measure):
            targets = _targets(phase)
            yardstick = _values(found[targets[0]]) if len(targets) > 1 else ""
            rows.append((phase, measure, yardstick, _values(found[targets[-1]]), _values(found.get("ratio", []))))
    return rows


def _against(yardstick: str, ours: str, ratio: str) -> str:
    return f"{ours} (yardstick {yardstick}, ratio {ratio})" if yardstick else ours


def _parts_table(name: str, measures: dict[str, Any]) -> list[str]:
    """Milliseconds of CPU per run, by part and process, ours beside the floor's."""
    yardstick, ours = _targets(name)
    columns = [(target, server) for target in (yardstick, ours) for server in ("api", "worker")]
    rows = [(part, *(_values(measures[f"{server} {part} ms"][target]) for target, server in columns)) for part in PARTS]
    rows.append(("all", *(_values(measures[f"{server} ms"][target]) for target, server in columns)))
    stores = [
        (store, *(_values(measures[f"{store} ms"][target]) if server == "api" else "" for target, server in columns))
        for store in ("postgres", "valkey")
    ]
    return _rows((f"CPU ms per run: {name}", *(f"{target} {server}" for target, server in columns)), [*rows, *stores])


def _plain(value: Any) -> str:
    return ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else str(value)
