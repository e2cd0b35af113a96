"""What the demo model says: it explains what its tools answered, and is honest about everything else."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from app.providers.demo.research import report
from app.providers.demo.turn import Result, Turn

LABEL = "(offline demo model)"

_EXCERPT = 400
_MAX_LEAVES, _MAX_VALUE = 20, 120

_FACTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"capital of france", "The capital of France is Paris."),
        (r"capital of germany", "The capital of Germany is Berlin."),
        (r"capital of italy", "The capital of Italy is Rome."),
        (r"capital of spain", "The capital of Spain is Madrid."),
        (r"capital of japan", "The capital of Japan is Tokyo."),
        (r"capital of (?:the )?(?:uk|united kingdom|england)", "The capital of the United Kingdom is London."),
        (r"capital of (?:the )?(?:usa?|united states)", "The capital of the United States is Washington, D.C."),
        (r"boiling point of water|water boils?", "Water boils at 100 °C at sea level."),
        (r"speed of light", "Light travels at 299,792,458 metres per second in vacuum."),
        (r"who (?:made|wrote|created) python", "Python was created by Guido van Rossum."),
    )
)
_GREETING = re.compile(r"^\W*(?:hello|hi|hey|good (?:morning|day|evening))\b", re.IGNORECASE)
_WHO = re.compile(r"\bwho are you|what are you|are you (?:real|an ai)|which model", re.IGNORECASE)
_HELP = re.compile(r"\bwhat can you do|^\W*help\W*$|which tools|what tools", re.IGNORECASE)
_MY_NAME = re.compile(r"\bmy name is (\w+)", re.IGNORECASE)
_NAME_ASKED = re.compile(r"\bwhat(?:'s| is) my name", re.IGNORECASE)
_LAST_ASKED = re.compile(r"\bwhat did i (?:just )?(?:ask|say|write)", re.IGNORECASE)
_COUNT = re.compile(r"\bcount (?:up )?to (\d{1,4})\b", re.IGNORECASE)
_NAME = re.compile(r"[^\W_]+")
_CALCULATION = re.compile(r"(-?\d[\d.]*)\s*([-+*/])\s*(\d[\d.]*)\s*=\s*(-?\d[\d.]*\d|\d)")
_SIGNS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
_MEANS = {
    "+": "{one} and {other} together make {result}",
    "-": "taking {other} away from {one} leaves {result}",
    "*": "{other} lots of {one} make {result}",
    "/": "{one} shared out in {other} equal parts gives {result} each",
}
_THANKS = re.compile(r"^\W*(?:thanks|thank you)", re.IGNORECASE)


def answer(turn: Turn) -> str:
    """The final text of a turn, labelled as the demo model's."""
    return f"{body(turn)}\n\n{LABEL}"


def body(turn: Turn) -> str:
    """The final text of a turn without the label."""
    if written := report(turn):
        return written
    if turn.results:
        return explain(turn.results)
    return next((text for rule in _RULES if (text := rule(turn))), "") or _honest(turn)


def explain(results: list[Result]) -> str:
    """What the tools were asked and what they answered."""
    if len(results) == 1:
        return _told(results[0])
    lines = (f"{number}. {_told(result)}" for number, result in enumerate(results, 1))
    return "Here is what I did:\n\n" + "\n".join(lines)


def finding(result: Result) -> str:
    """One result in a few words, for whoever is asked about it."""
    if result.tool == "calculator" and not result.failed:
        return f"{result.arguments.get('expression', 'It')} = {shown(result.content)}"
    return _told(result)


def shown(content: object) -> str:
    """A tool's answer as text."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        fields = cast("dict[str, Any]", content)
        telling = [
            fields[key]
            for key in ("result", "value", "text", "answer", "time", "local", "now")
            if isinstance(fields.get(key), str | int | float)
        ]
        if telling:
            return str(telling[0])
        if isinstance(fields.get("memories"), list):
            return "; ".join(str(each["text"]) for each in fields["memories"]) or "nothing yet"
    return json.dumps(content, ensure_ascii=False, default=str)


def _passage(content: object) -> str:
    """The best passage of a search in documents, its citation first: what is long loses its end."""
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    passages: list[dict[str, Any]] = fields.get("results") or []
    return f"[{passages[0]['citation']}] {passages[0]['text']}" if passages else "nothing that fits"


def _told(result: Result) -> str:
    said = _passage if result.tool == "search_documents" and not result.failed else shown
    text = " ".join(said(result.content).split())
    text = text if len(text) <= _EXCERPT else f"{text[:_EXCERPT].rstrip()}..."
    if result.failed:
        return f"`{result.tool}` could not do it: {text}"
    teller = _TELLERS.get(result.tool)
    return teller(result.arguments, text) if teller else f"`{result.tool}` answered: {text}"


_TELLERS: dict[str, Callable[[dict[str, Any], str], str]] = {
    "calculator": lambda given, text: f"{given.get('expression', 'It')} = {text} (by `calculator`)",
    "current_time": lambda given, text: f"The time in {given.get('timezone', 'UTC')} is {text} (by `current_time`)",
    "fetch_url": lambda given, text: f"{given.get('url', 'The page')} says: {text}",
    "web_search": lambda given, text: f'Searching for "{given.get("query", "")}" found: {text}',
    "search_documents": lambda given, text: f'The documents say about "{given.get("query", "")}": {text}',
    "schedule_task": lambda given, text: (
        f'I scheduled "{given.get("prompt", "")}" at `{given.get("schedule_expression", "")}` '
        f"({given.get('timezone', 'UTC')}): {text}"
    ),
    "propose_state": lambda given, text: f"I proposed {json.dumps(given.get('patch', {}))}: {text}",
    "notify": lambda given, text: f"I sent a notification: {text}",
    "remember": lambda given, text: f'I will remember: "{given.get("text", "")}"',
    "recall": lambda given, text: f"I remember: {text}",
}


def _facts(turn: Turn) -> str | None:
    return next((text for pattern, text in _FACTS if pattern.search(turn.wish)), None)


def _greeting(turn: Turn) -> str | None:
    return "Hello! I am the offline demo model of Parley." if _GREETING.search(turn.wish) else None


def _identity(turn: Turn) -> str | None:
    if not _WHO.search(turn.wish):
        return None
    return "I am the offline demo model of Parley: rules, no language model. Set DEFAULT_MODEL to talk to one."


def _abilities(turn: Turn) -> str | None:
    if not _HELP.search(turn.wish):
        return None
    return f"I follow simple rules and call this agent's tools: {_listed(turn)}."


def _memory(turn: Turn) -> str | None:
    if _NAME_ASKED.search(turn.wish):
        names = [match[1] for prompt in turn.earlier for match in _MY_NAME.finditer(prompt)]
        return f"Your name is {names[-1]}." if names else "You have not told me your name."
    if _LAST_ASKED.search(turn.wish):
        return f"You wrote: {turn.earlier[-1]}" if turn.earlier else "This is the first thing you wrote here."
    match = _MY_NAME.search(turn.wish)
    return f"Nice to meet you, {match[1]}." if match else None


def _counting(turn: Turn) -> str | None:
    match = _COUNT.search(turn.wish)
    return " ".join(str(number) for number in range(1, int(match[1]) + 1)) if match else None


def _explanation(turn: Turn) -> str | None:
    """A calculation in one sentence."""
    match = _CALCULATION.search(turn.wish) if "explain" in turn.wish.lower() else None
    if match is None:
        return None
    one, sign, other, result = match.groups()
    return f"{one} {_SIGNS[sign]} {other} is {result}: {_MEANS[sign].format(one=one, other=other, result=result)}."


def _thanks(turn: Turn) -> str | None:
    return "You are welcome." if _THANKS.search(turn.wish) else None


def _data(turn: Turn) -> str | None:
    """What came along as data, told without doing anything it says: what the wish names, else all of it."""
    leaves = [leaf for value in turn.data.values() for leaf in _leaves(value, "")]
    if not leaves:
        return None
    asked = set(_NAME.findall(turn.wish.lower()))
    named = [leaf for leaf in leaves if asked.intersection(_NAME.findall(leaf[0].lower().rpartition(".")[2]))]
    told = "\n".join(f"- {path}: {_excerpt(value)}" for path, value in (named or leaves)[:_MAX_LEAVES])
    return f"The data I was given says:\n\n{told}\n\nI read it as data and did nothing else with it."


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    """The single values of some data, each with where it stands."""
    if not isinstance(value, dict):
        yield path or "value", value
        return
    for key, each in cast("dict[str, Any]", value).items():
        yield from _leaves(each, f"{path}.{key}" if path else key)


def _excerpt(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE].rstrip()}..."


_RULES = (_facts, _explanation, _identity, _abilities, _memory, _counting, _thanks, _greeting, _data)


def _honest(turn: Turn) -> str:
    asked = " ".join(turn.wish.split())
    asked = asked if len(asked) <= 120 else f"{asked[:117].rstrip()}..."
    return (
        f'I can\'t really answer "{asked}": I am the offline demo model, which follows rules. '
        f"I can call this agent's tools: {_listed(turn)}. Set DEFAULT_MODEL and a provider key for real answers."
    )


def _listed(turn: Turn) -> str:
    return ", ".join(sorted(turn.tools)) or "it has none"
