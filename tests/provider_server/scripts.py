"""What the loopback provider answers, chosen by the model's name; the same for every protocol.

A name is a script, with a fault before it if wanted: `text`, `tool-calculator`, `error-429-once+three-tools`.

Scripts: `text`, `thinking`, `empty`, `long-N` (N words), `slow-Nms` (a pause before each word), `tool-NAME`,
`three-tools` (one after the other), `parallel-tools` (the first three offered, at once).
Faults: `error-STATUS`, `error-context`, `error-quota`, `cut` (the connection ends after the first words),
`stream-error` (an error inside the open stream); each also as `...-once`, which spares later requests.
When an output tool (`final_result...`) is offered, the last answer is a call of it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.providers.demo.shapes import fill

RETRY_AFTER = 1


@dataclass(frozen=True)
class Ask:
    """A request, whatever its protocol."""

    protocol: str
    model: str
    stream: bool
    prompt: str
    results: tuple[str, ...]
    tools: dict[str, dict[str, Any]]
    key: str = ""


@dataclass(frozen=True)
class ToolUse:
    """A call the answer asks for."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A response, whatever its protocol."""

    text: str = ""
    thinking: str = ""
    calls: tuple[ToolUse, ...] = ()
    pause: float = 0.0
    cut: bool = False
    stream_error: bool = False
    input_tokens: int = 11
    output_tokens: int = 7

    def words(self) -> list[str]:
        """The text as it is streamed."""
        return re.findall(r"\S+\s*", self.text)


@dataclass(frozen=True)
class Failure:
    """A refused request."""

    status: int
    kind: str
    message: str


def fold(marks: Iterable[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    """The last prompt and the results after it, from (`prompt` | `result`, text) pairs."""
    prompt, results = "", list[str]()
    for kind, text in marks:
        if kind == "prompt":
            prompt, results = text, []
        else:
            results.append(text)
    return prompt, tuple(results)


class Scripts:
    """The scripts and how often each faulty one was asked for."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.outage: dict[str, Failure] = {}  # By protocol: what every request is refused with, whatever its script.

    def reply(self, ask: Ask) -> Answer | Failure:
        """The answer to a request."""
        if ask.protocol in self.outage:
            return self.outage[ask.protocol]
        fault, plus, script = ask.model.rpartition("+")
        if not plus and _is_fault(script):
            fault, script = script, "text"
        self.seen[ask.model] += 1
        answer = _answer(script, ask)
        if not fault or (fault.endswith("-once") and self.seen[ask.model] > 1):
            return answer
        return _faulty(fault.removesuffix("-once"), answer, ask)


def _is_fault(name: str) -> bool:
    return name.startswith(("error-", "cut", "stream-error"))


def _faulty(fault: str, answer: Answer, ask: Ask) -> Answer | Failure:
    if fault == "cut":
        return replace(answer, cut=True, text=answer.text or "Let me see what I can")
    if fault == "stream-error":
        return replace(answer, stream_error=True, text=answer.text or "Let me see what I can")
    return _failure(fault.removeprefix("error-"), ask)


def _failure(kind: str, ask: Ask) -> Failure:
    match kind:
        case "context":
            return Failure(400, "context", "prompt is too long: 250000 tokens > 200000 maximum")
        case "quota":
            return Failure(429, "quota", "You exceeded your current quota, please check your plan and billing details.")
        case "401":
            return Failure(401, "auth", f"Incorrect API key provided: {ask.key}.")
        case "404":
            return Failure(404, "model", f"The model {ask.model!r} does not exist.")
        case "429":
            return Failure(429, "rate", "Too many requests; slow down.")
        case "529" | "503":
            return Failure(int(kind), "overloaded", "Overloaded")
        case _:
            return Failure(int(kind), "server" if int(kind) >= 500 else "request", "Something went wrong here.")


def _answer(script: str, ask: Ask) -> Answer:
    names = [name for name in ask.tools if not name.startswith("final_result")]
    wanted = _wanted(script, names, len(ask.results))
    if wanted:
        return Answer(calls=tuple(_use(name, ask, index) for index, name in enumerate(wanted)))
    return _final(script, ask)


def _wanted(script: str, names: Sequence[str], done: int) -> Sequence[str]:
    if script.startswith("tool-"):
        return [script.removeprefix("tool-")] if done == 0 else []
    if script == "three-tools":
        return names[done : done + 1] if done < 3 else []
    if script == "parallel-tools":
        return names[:3] if done == 0 else []
    return []


def _final(script: str, ask: Ask) -> Answer:
    output = next((name for name in ask.tools if name.startswith("final_result")), None)
    if output:
        return Answer(calls=(_use(output, ask, 0),))
    if script == "empty":
        return Answer(output_tokens=0)
    if long := re.fullmatch(r"long-(\d+)", script):
        return Answer(text=" ".join(f"word{number}" for number in range(int(long[1]))))
    pause = re.fullmatch(r"slow-(\d+)ms", script)
    return Answer(
        text=_closing(ask),
        thinking="First I weigh the question." if script == "thinking" else "",
        pause=int(pause[1]) / 1000 if pause else 0.0,
    )


def _closing(ask: Ask) -> str:
    if ask.results:
        return f"The tools answered: {'; '.join(ask.results)}."
    return f"The loopback provider heard: {ask.prompt}"


def _use(name: str, ask: Ask, index: int) -> ToolUse:
    known = {"calculator": {"expression": "6*7"}, "current_time": {"timezone": "UTC"}}
    arguments: Any = known.get(name) or fill(ask.tools.get(name, {}), ask.prompt[:60] or "topic", ask.prompt or "text")
    return ToolUse(f"call_{len(ask.results)}_{index}", name, arguments if isinstance(arguments, dict) else {})
