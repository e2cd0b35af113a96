"""The checker: after the drain, over the journal, what clients were told, and the database."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from app.executor.ledger import Place
from tests.faults.suite import facts
from tests.faults.suite.inject import Orphan
from tests.faults.suite.journal import Note
from tests.faults.suite.load import Memory
from tests.faults.suite.stage import Frozen

Row = Any
JOURNALED = ("note", "pay", "tell")
CAREFUL = ("careful", "hasty", "unheard")
SHOWN = 5  # Of each kind of violation.
THAW_SECONDS = 2.0  # For so long after its thaw a process may still say what it was about to.


@dataclass(frozen=True)
class Violation:
    """Something that must never be.

    Attributes:
        kind: lost, doubled or wrong.
    """

    kind: str
    what: str
    detail: str


@dataclass(frozen=True)
class World:
    """All that the checker looks at."""

    runs: dict[UUID, Row]
    responses: dict[UUID, list[Row]]
    calls: list[Row]
    decisions: dict[tuple[UUID, str], list[Row]]
    numbers: dict[UUID, list[int]]
    starts: dict[UUID, list[tuple[int, float]]]
    mails: list[Row]
    slack: list[Row]
    wrong: dict[str, list[str]]

    @classmethod
    async def read(cls, connection: asyncpg.Connection) -> "World":
        """Everything in one look; nothing moves any more."""
        wrong = {what: await connection.fetch(statement) for what, statement in facts.WRONG.items()}
        return cls(
            runs={row["id"]: row for row in await connection.fetch(facts.RUNS)},
            responses=_grouped(await connection.fetch(facts.RESPONSES), "run_id"),
            calls=await connection.fetch(facts.CALLS),
            decisions=_grouped(await connection.fetch(facts.DECISIONS), "conversation_id", "subject"),
            numbers={row["run_id"]: row["numbers"] for row in await connection.fetch(facts.EVENT_NUMBERS)},
            starts={
                run: [(row["fence"], row["at"]) for row in rows]
                for run, rows in _grouped(await connection.fetch(facts.STARTS), "run_id").items()
            },
            mails=await connection.fetch(facts.SENT),
            slack=await connection.fetch(facts.TOLD_SLACK),
            wrong={what: [str(dict(row)) for row in rows] for what, rows in wrong.items()},
        )


@dataclass(frozen=True)
class Evidence:
    """What was seen from outside."""

    memory: Memory
    notes: list[Note]
    mails: Counter[str]
    freezes: list[Frozen]


def check(world: World, evidence: Evidence) -> list[Violation]:
    """Everything that is not as promised."""
    found = [Violation(_kind(what), what, row) for what, rows in world.wrong.items() for row in rows]
    for each in (_promises, _told_once, _asks, _effects, _streams, _deliveries):
        found += each(world, evidence)
    return found


def _kind(what: str) -> str:
    if "never ended" in what or "not sent" in what or "accounted" in what:
        return "lost"
    return "doubled" if "twice" in what or "exactly one" in what or "more often" in what else "wrong"


def _promises(world: World, evidence: Evidence) -> Iterator[Violation]:
    """I1: what was acknowledged exists, and says what was asked of it."""
    for promise in evidence.memory.promises:
        run = world.runs.get(promise.run_id)
        if run is None:
            yield Violation("lost", "an acknowledged run does not exist", str(promise))
        elif run["state"] == "completed" and promise.name not in (run["result"] or ""):
            yield Violation("wrong", "a run answered something else", f"{promise} {run['result']}")
    for what in evidence.memory.given_up:
        yield Violation("lost", "a client gave up", what)


def _told_once(world: World, evidence: Evidence) -> Iterator[Violation]:
    """I6, I7: one run per delivery id and per idempotency key; one acknowledged decision per approval."""
    told = [*evidence.memory.delivered.items(), *evidence.memory.repeats.items()]
    for key, runs in told:
        if len(runs) != 1:
            yield Violation("doubled", "one key was answered with several runs", f"{key} {runs}")
    for approval, times in evidence.memory.decided.items():
        if times > 1:
            yield Violation("doubled", "an approval was decided twice", approval)
    names = Counter(run["name"] for run in world.runs.values() if run["name"] and run["name"] != "by-hand")
    for name, times in names.items():
        if times > 1:
            yield Violation("doubled", "one message was answered by several runs", f"{name} {times}")


def _asks(world: World, evidence: Evidence) -> Iterator[Violation]:
    """G2: no recorded response is asked for again; a cut-off one once per claim that was lost."""
    asked = defaultdict[str, list[Note]](list)
    for note in evidence.notes:
        if note.what in ("ask", "remote ask"):
            asked[note["name"]].append(note)
    for run in world.runs.values():
        if run["name"] == "by-hand":
            continue
        notes, responses = asked.get(run["name"] or "", []), world.responses.get(run["id"], [])
        allowed = len(responses) + run["fence"] - (run["state"] == "completed")
        if len(notes) > max(allowed, len(responses)):
            yield Violation("doubled", "a model was asked too often", f"{run['name']} {len(notes)} times, {dict(run)}")
        for note in notes:
            # What is asked of a model behind the network is heard later.
            if (
                note.what == "ask"
                and note["n"] < len(responses)
                and note.at > responses[note["n"]]["at"]
                and not _thawed(note, evidence)
            ):
                detail = f"{run['name']} response {note['n']} {note.at - responses[note['n']]['at']:.3f} s later"
                yield Violation("doubled", "a recorded response was asked for again", detail)


def _effects(world: World, evidence: Evidence) -> Iterator[Violation]:
    """G2, G8 and the ledger: finished calls are not repeated, and what must not run twice does not."""
    notes = defaultdict[tuple[str, str], list[Note]](list)
    for note in evidence.notes:
        if note.what in ("begin", "effect"):
            notes[note.what, note["key"]].append(note)
    for call in world.calls:
        place = Place(call["conversation_id"], call["message_seq"], call["call_index"], call["sub_index"])
        key = str(place.effect_key)
        run = world.runs[call["run_id"]]
        decisions = world.decisions.get((call["conversation_id"], place.subject), [])
        yield from _call(call, run, decisions, notes["begin", key], notes["effect", key], evidence)


def _call(
    call: Row, run: Row, decisions: list[Row], begins: list[Note], effects: list[Note], evidence: Evidence
) -> Iterator[Violation]:
    about = f"{call['tool']} of {run['name']} at {call['message_seq']}: {len(begins)} begins, {len(effects)} effects"
    outcomes = Counter(row["outcome"] for row in decisions if row["kind"] == "effect" and row["state"] == "approved")
    if call["tool"] == "pay" and len(effects) > 1 + outcomes["repeat"]:
        yield Violation("doubled", "an effect that must not be repeated was", about)
    if call["tool"] == "note" and len(begins) > max(1, run["fence"]):
        yield Violation("doubled", "a call was made more often than its run was claimed", about)
    if call["tool"] in JOURNALED and call["state"] == "done" and not effects and not outcomes["happened"]:
        yield Violation("lost", "a finished call had no effect", about)
    asked = [row for row in decisions if row["kind"] == "tool"]
    if run["agent"] in CAREFUL and effects and not any(row["state"] == "approved" for row in asked):
        yield Violation("doubled", "a call was made without its approval", about)
    for note in begins:
        if call["state"] == "done" and note.at > call["at"] and not _thawed(note, evidence):
            yield Violation("doubled", "a finished call was made again", about)


def _thawed(note: Note, evidence: Evidence) -> bool:
    """Whether a process said it that had just been thawed: it could not know yet that it had lost its runs."""
    return any(
        freeze.pid == note.pid and freeze.since <= note.at <= freeze.until + THAW_SECONDS for freeze in evidence.freezes
    )


def _streams(world: World, evidence: Evidence) -> Iterator[Violation]:
    """G10: after the client's rule, text and numbers of a reader are those that are stored."""
    for reading in evidence.memory.readings:
        if reading.run_id not in world.runs:
            continue  # Told already.
        stored = [row["text"] for row in world.responses.get(reading.run_id, [])]
        if reading.text != (stored[-1] if stored else ""):
            yield Violation("wrong", "a reader holds another text", f"{reading.run_id}: {reading.text!r}, {stored}")
        if reading.ids != world.numbers.get(reading.run_id):
            yield Violation(
                "wrong",
                "a reader saw other events",
                f"{reading.run_id}: {reading.ids}, {world.numbers[reading.run_id]}",
            )


def _deliveries(world: World, evidence: Evidence) -> Iterator[Violation]:
    """I8: what says it was sent arrived, and nothing arrived more often than somebody set out to send it."""
    posts = Counter(note["run"] for note in evidence.notes if note.what == "slack")
    for row in world.mails:
        yield from _arrived(f"mail {row['message_id']}", row["state"] == "sent", row["attempts"], evidence.mails)
    for row in world.slack:
        yield from _arrived(row["run_id"], row["sent"], row["attempts"], posts)


def _arrived(what: str, sent: int, attempts: int, arrived: Counter[str]) -> Iterator[Violation]:
    times = arrived[what.removeprefix("mail ")]
    if times < sent:
        yield Violation("lost", "a notification never arrived", f"{what}: {times} of {sent}")
    if times > attempts:
        yield Violation("doubled", "a notification came more often than it was sent", f"{what}: {times} of {attempts}")


def recoveries(world: World, orphans: Iterable[Orphan], how: str) -> list[float]:
    """Seconds from the kill until another claim of each run began; those that had just ended are none."""
    found: list[float] = []
    for orphan in orphans:
        later = [at for fence, at in world.starts.get(orphan.run_id, []) if fence == orphan.fence + 1]
        if orphan.how == how and later:
            found.append(later[0] - orphan.at)
    return sorted(found)


def percentile(values: list[float], share: float) -> float | None:
    """The value below which that share lies; the values are sorted."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def _grouped(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        key = tuple(row[name] for name in names)
        found[key if len(names) > 1 else key[0]].append(row)
    return found
