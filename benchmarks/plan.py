"""What is measured, in which order, and what is promised of it."""

from dataclasses import dataclass
from typing import Literal

from benchmarks import phases, seam
from benchmarks.parts import parts_of_chat, parts_of_chat_with_tools, parts_of_delegated
from benchmarks.phases import Phase
from benchmarks.readers import readers
from benchmarks.recovery import recovery
from benchmarks.seam import RATE
from benchmarks.stages import READERS

DELEGATED = ("floor", "parley")
INLINE = ("floor-inline", "parley")
PARLEY = ("parley",)

PHASES = (
    Phase("delegated-1", DELEGATED, 100, 1, phases.delegated),
    Phase("delegated-8", DELEGATED, 160, 8, phases.delegated),
    Phase("delegated-32", DELEGATED, 400, 32, phases.delegated, least=128),
    Phase("accept-16", DELEGATED, 320, 16, phases.accepted),
    Phase("messages-16", DELEGATED, 320, 16, phases.posted),
    Phase("chat-1", INLINE, 100, 1, phases.chat),
    Phase("chat-16", INLINE, 320, 16, phases.chat),
    Phase("chat-tools", INLINE, 60, 1, phases.chat_with_tools),
    Phase("chat-steps", INLINE, 60, 1, phases.chat_with_steps),
    Phase("first-event", INLINE, 20, 1, phases.first_event),
    Phase("streams-50", INLINE, 50, 50, phases.streams, least=50),
    Phase("streams-paced", INLINE, 50, 50, phases.paced_streams, least=50),
    Phase("store", PARLEY, 3 * RATE, 0, seam.first, stage="store", rounds=2, least=2 * RATE, warm=False),
    Phase("store-replies", PARLEY, 3 * RATE, 0, seam.reply, stage="store", rounds=2, least=2 * RATE, warm=False),
    Phase("stored", ("parley-empty", "parley-stored"), 200, 8, phases.delegated, stage="stored", least=100),
    Phase("parts", DELEGATED, 200, 8, parts_of_delegated, stage="samplers", rounds=2),
    Phase("parts-chat", INLINE, 150, 1, parts_of_chat, stage="samplers", rounds=2),
    Phase("parts-tools", INLINE, 90, 1, parts_of_chat_with_tools, stage="samplers", rounds=2),
    Phase("readers", ("parley-readers",), READERS, 0, readers, stage="readers", rounds=1, warm=False),
    Phase("recovery", ("parley-killed",), 4, 1, recovery, stage="recovery", rounds=1, least=4, warm=False),
)


@dataclass(frozen=True)
class Goal:
    """A promise.

    Attributes:
        says: What it is about, in words.
        phase: Where it is measured.
        measure: The figure.
        of: Ours over the yardstick's (`ratio`), or ours (`value`).
        sense: At least or at most.
        bar: The bound.
        stretch: The bound we would like.
        whole: Says nothing with `--quick`, which measures less than it speaks of.
    """

    says: str
    phase: str
    measure: str
    of: Literal["ratio", "value"]
    sense: Literal[">=", "<="]
    bar: float
    stretch: float | None = None
    whole: bool = False

    def met(self, found: float) -> bool:
        """Whether a figure keeps the promise."""
        return found >= self.bar if self.sense == ">=" else found <= self.bar

    @property
    def bound(self) -> str:
        """The bar in words."""
        unit = "x" if self.of == "ratio" else ""
        stretch = f", stretch {self.stretch:g}{unit}" if self.stretch else ""
        return f"{self.sense} {self.bar:g}{unit}{stretch}"


GOALS = (
    Goal("delegated runs/s, 32 clients, over the floor's", "delegated-32", "runs/s", "ratio", ">=", 0.7, 1.0),
    Goal(
        "submit to finished, 1 client, over the floor's", "delegated-1", "submit to finished ms p50", "ratio", "<=", 1.2
    ),
    Goal("enqueue to start p50 ms, idle", "delegated-1", "accepted to started ms p50", "value", "<=", 25),
    Goal("accept p99 ms, 1 client", "delegated-1", "accept ms p99", "value", "<=", 20),
    Goal(f"messages/s taken at the store seam of {RATE} offered", "store", "accepted/s", "value", ">=", 0.98 * RATE),
    Goal("persisted p99 ms at the store seam", "store", "persisted ms p99", "value", "<=", 100),
    Goal("chat turn of text: CPU over floor-inline's", "chat-1", "cpu ms api", "ratio", "<=", 1.3),
    Goal("chat turn, 3 tools at once: CPU over floor-inline's", "chat-tools", "cpu ms api", "ratio", "<=", 1.6),
    Goal("chat turn, 3 tools in a row: CPU over floor-inline's", "chat-steps", "cpu ms api", "ratio", "<=", 1.6),
    Goal("50 streams: tokens/s over the floor's", "streams-50", "tokens/s", "ratio", ">=", 1.0),
    Goal("50 streams: first event p50 ms", "streams-50", "first event ms p50", "value", "<=", 50),
    Goal("50 streams of a paced model: bytes/token", "streams-paced", "bytes/token", "value", "<=", 120),
    Goal(
        "CPU per run with 100,000 stored conversations over none",
        "stored",
        "cpu ms with stores",
        "ratio",
        "<=",
        1.1,
        whole=True,
    ),
    Goal("idle readers on one API process", "readers", "readers", "value", ">=", READERS, whole=True),
    Goal("kill -9 of a worker: seconds to restart (lease + sweep)", "recovery", "kill to restart s", "value", "<=", 11),
    Goal("kill -9 of a worker: runs lost", "recovery", "lost", "value", "<=", 0),
    Goal("kill -9 of a worker: runs doubled", "recovery", "doubled", "value", "<=", 0),
)
START_GOALS = {"cold start s": 15.0, "warm start s": 4.0}
MEMORY_BAR = 1.5

# What is printed beside the goals: phase, measure.
BESIDE = (
    ("delegated-32", "runs/s"),
    ("delegated-32", "cpu ms with stores"),
    ("delegated-1", "submit to finished ms p50"),
    ("delegated-1", "bare commit ms"),
    ("accept-16", "tasks/s"),
    ("messages-16", "messages/s"),
    ("store", "persisted ms p50"),
    ("store-replies", "accepted/s"),
    ("store-replies", "persisted ms p99"),
    ("store", "cpu ms process"),
    ("store", "cpu ms postgres"),
    ("chat-1", "turn ms p50"),
    ("chat-1", "cpu ms with stores"),
    ("chat-tools", "cpu ms with stores"),
    ("chat-steps", "cpu ms with stores"),
    ("first-event", "first text over the model's ms p50"),
    ("streams-50", "first text ms p50"),
    ("streams-paced", "tokens/delta"),
    ("streams-paced", "first event ms p50"),
    ("stored", "cpu ms api"),
    ("stored", "cpu ms worker"),
    ("stored", "cpu ms postgres"),
    ("readers", "memory kB per reader"),
    ("readers", "connects/s"),
    ("readers", "cpu ms api per connect"),
    ("readers", "idle cpu % of a core"),
    ("readers", "first event to all of the sample ms"),
    ("readers", "last event to all of the sample ms"),
)
