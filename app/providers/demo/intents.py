"""Which tools a prompt calls for: rules over its clauses, in the order they stand."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic_ai.tools import ToolDefinition

from app.providers.demo.memories import REMEMBER, remembered
from app.providers.demo.memories import TOOLS as MEMORY_TOOLS
from app.providers.demo.schedules import read_schedule
from app.providers.demo.turn import Call
from app.providers.demo.wholes import whole
from app.providers.demo.written import written_out

Tools = Mapping[str, ToolDefinition]

MAX_CALLS = 8

_URL = re.compile(r"https?://[^\s<>\"')\];]*[^\s<>\"')\];.,:!?]")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|`([^`]+)`|(?<!\w)'([^']+)'(?!\w)")
_BREAK = re.compile(
    r"\s*(?:;|\n|,\s|[.?!](?=\s)|,?\s\b(?:and then|and also|(?<!\d\s)and|then|also)\b\s|(?<=\d)\s+and\s+(?!\d))\s*",
    re.IGNORECASE,
)

_TWO = r"\s+(-?\d[\d.]{0,30})\s+{}\s+(-?\d[\d.]{0,30}(?<!\.))"
_SPOKEN = (
    (re.compile(r"(\d[\d.]{0,30}) ?(?:%|percent)\s+of\s+", re.IGNORECASE), r"\1/100*"),
    (re.compile(r"(?<=\d),(?=\d{3}\b)"), ""),
    (re.compile(r"\badd" + _TWO.replace("{}", "(?:to|and)"), re.IGNORECASE), r"\2+\1"),
    (re.compile(r"\bsubtract" + _TWO.replace("{}", "from"), re.IGNORECASE), r"\2-\1"),
    (re.compile(r"\bmultiply" + _TWO.replace("{}", "(?:by|with|and)"), re.IGNORECASE), r"\1*\2"),
    (re.compile(r"\bdivide" + _TWO.replace("{}", "by"), re.IGNORECASE), r"\1/\2"),
    (re.compile(r"\s+(?:plus)\s+", re.IGNORECASE), "+"),
    (re.compile(r"\s+(?:minus)\s+|\u2212", re.IGNORECASE), "-"),
    (re.compile(r"\s+(?:times|multiplied by)\s+|\u00d7|(?<=[\d)])\s*x\s*(?=[\d(])", re.IGNORECASE), "*"),
    (re.compile(r"\s+(?:divided by)\s+|\u00f7", re.IGNORECASE), "/"),
    (re.compile(r"\s+to the power of\s+|\^", re.IGNORECASE), "**"),
)
_SUM = re.compile(r"(?<![\w.])(?:(?:sqrt|abs|round|min|max)\s*)?[-+(]{0,10}\d[\d\s.,()+*/%-]*")
_OPERATION = re.compile(r"\d\s*\)*\s*(?:\*\*|//|[-+*/%])\s*[-+(]*\s*\d|(?:sqrt|abs|round|min|max)\s*\(")
# Dates, instants and numbers of telephones.
_NO_SUM = re.compile(
    r"\b\d{4}-\d{1,2}-\d{1,2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?\b|\b\d{1,2}/\d{1,2}/\d{2,4}\b|\b\d{3}-\d{4}\b"
)
_CREDIT = re.compile(r"\(by `\w+`\)")
_TOLD = re.compile(r"\s*=\s*-?\d")

_TIME = re.compile(
    r"what(?:'s| is)? the (?:current )?(?:time|date)|what time|time is it|current (?:time|date)|time now|what day|"
    r"today'?s date|date today|the time in",
    re.IGNORECASE,
)
_ZONE = re.compile(r"\b(?:[A-Z][A-Za-z]+/[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)?|UTC)\b")
_CITIES = {
    "berlin": "Europe/Berlin", "london": "Europe/London", "paris": "Europe/Paris", "madrid": "Europe/Madrid",
    "rome": "Europe/Rome", "tokyo": "Asia/Tokyo", "beijing": "Asia/Shanghai", "singapore": "Asia/Singapore",
    "delhi": "Asia/Kolkata", "mumbai": "Asia/Kolkata", "sydney": "Australia/Sydney", "new york": "America/New_York",
    "chicago": "America/Chicago", "san francisco": "America/Los_Angeles", "los angeles": "America/Los_Angeles",
    "são paulo": "America/Sao_Paulo", "sao paulo": "America/Sao_Paulo",
}  # fmt: skip

_DOCUMENTS = re.compile(r"\b(?:documents?|docs|knowledge base|our files)\b", re.IGNORECASE)
_SEARCH = re.compile(
    r"\b(?:search|google|look up|look for|find out|find information|find news)\b"
    r"(?:\s+(?:through|in))?(?:\s+(?:the|our|my))?(?:\s+(?:web|internet|online|documents?|docs|knowledge base|files))?"
    r"(?:\s+(?:for|about|on))?\s+(?P<query>.+)",
    re.IGNORECASE,
)
_IN_DOCUMENTS = re.compile(
    r"\b(?:documents?|docs|knowledge base|files)\b[^?]{0,40}?\b(?:say|says|tell us|know|state)\b"
    r"(?:\s+(?:about|on|of))?\s+(?P<query>[^?]+)",
    re.IGNORECASE,
)
_NOTIFY = re.compile(
    r"\b(?:notify|alert|ping|e-?mail|mail)\s+(?:me|us|them|the team|\S+@\S+)|"
    r"\b(?:tell|send|let|post)\b.*\b(?:by|via|per|on|to|in)\s+(?:e-?mail|slack|webhook)",
    re.IGNORECASE,
)
_SAYING = re.compile(r"\b(?:that|saying)\s+(?P<text>\S.*)|:\s*(?P<rest>\S.*)", re.IGNORECASE)
_ASK_OTHER = re.compile(
    r"\b(?:ask|have|let|delegate to|hand over to)\s+(?:the\s+)?(?P<agent>[\w-]+)(?:\s+agent)?\s+"
    r"(?:to\s+)?(?P<rest>\S.*)",
    re.IGNORECASE,
)
_CHANGE = re.compile(r"\b(?:set|change)\s+(?:the\s+)?(?P<name>[A-Za-z_]\w*)\s+to\s+(?P<value>\S.*)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_PEOPLE = frozenset({"a", "me", "person", "human", "someone", "somebody", "operator", "user", "people"})

# Words of tool names that say too little to choose a tool by.
_WEAK = frozenset(
    {"get", "set", "make", "do", "run", "use", "send", "create", "delete", "update", "add", "new", "tool", "text"}
    | {"string", "list", "data", "value", "my", "to", "of", "the", "and", "a", "an", "in", "for", "with", "from"}
)
_LEAD = re.compile(
    r"^(?:\W*\b(?:the|a|an|word|words|string|text|phrase|sentence|of|in|for|on|with|this|following|please|tool|me)\b)*[\s:,-]*",
    re.IGNORECASE,
)


def plan(text: str, tools: Tools) -> list[Call]:
    """The calls a prompt writes out, else those it asks for; a wish to be told comes last, when there is something to tell."""
    if written := written_out(text, tools):
        return written[:MAX_CALLS]
    text = _CREDIT.sub("", text)
    if scheduled := _schedule(text, tools):
        return [scheduled]
    if asked := whole(text, tools):
        return [asked]
    calls: list[Call] = []
    for clause in clauses(text):
        calls += [call for call in _calls(clause, tools) if call not in calls]
    calls.sort(key=lambda call: call.tool == "notify")
    return calls[:MAX_CALLS]


def clauses(text: str) -> Iterator[str]:
    """The parts of a prompt; addresses, quoted text and what is to be remembered stay whole."""
    hidden = text
    for match in [*_URL.finditer(text), *_QUOTED.finditer(text), *REMEMBER.finditer(text)]:
        hidden = f"{hidden[: match.start()]}{'_' * (match.end() - match.start())}{hidden[match.end() :]}"
    start = 0
    for gap in _BREAK.finditer(hidden):
        yield text[start : gap.start()].strip()
        start = gap.end()
    yield text[start:].strip()


def zone_of(text: str) -> str:
    """The time zone a text names, UTC when it names none."""
    if named := _ZONE.search(text):
        return named[0]
    lowered = text.lower()
    return next((zone for city, zone in _CITIES.items() if city in lowered), "UTC")


def _calls(clause: str, tools: Tools) -> list[Call]:
    told = [call for call in _notify(clause, tools) if call.tool in tools]
    if told and told[0].arguments["text"]:
        return told
    for rule in _RULES:
        calls = [call for call in rule(clause, tools) if call.tool in tools and call.tool != "notify"]
        if calls:
            return calls + told
    return told


def _schedule(text: str, tools: Tools) -> Call | None:
    wish = read_schedule(text) if "schedule_task" in tools else None
    if wish is None:
        return None
    arguments = {"prompt": wish.prompt, "schedule_expression": wish.expression, "timezone": zone_of(text)}
    return Call("schedule_task", arguments)


def _named(clause: str, tools: Tools) -> Iterator[Call]:
    """A tool called by its own name: `use reverse_string on hello`."""
    for name, tool in tools.items():
        found = re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", clause)
        if found and ("_" in name or re.search(r"\b(?:use|call|run|tool)\b", clause, re.IGNORECASE)):
            yield Call(name, fill_arguments(tool.parameters_json_schema, clause[found.end() :]))


def _code(clause: str, tools: Tools) -> Iterator[Call]:
    """Code to run: what stands behind the tool's name, else the sum that the clause speaks of."""
    before, name, behind = clause.partition("execute_code")
    if not name or "execute_code" not in tools:
        return
    quoted = _QUOTED.search(behind) or _QUOTED.search(before)
    code = next(filter(None, quoted.groups())) if quoted else behind.strip(" :")
    sums = (str(call.arguments["expression"]) for call in _arithmetic(before, tools))
    if code := code or next(sums, ""):
        yield Call("execute_code", {"code": code})


def _arithmetic(clause: str, tools: Tools) -> Iterator[Call]:
    del tools
    text = _NO_SUM.sub(" ", _URL.sub(" ", clause))
    for pattern, sign in _SPOKEN:
        text = pattern.sub(sign, text)
    for match in _SUM.finditer(text):
        expression = _balanced(match[0])
        told = _TOLD.match(text, match.end())
        if _OPERATION.search(expression) and _is_expression(expression) and not told:
            yield Call("calculator", {"expression": expression})


def _time(clause: str, tools: Tools) -> Iterator[Call]:
    del tools
    if _TIME.search(clause):
        yield Call("current_time", {"timezone": zone_of(clause)})


def _fetch(clause: str, tools: Tools) -> Iterator[Call]:
    del tools
    for match in _URL.finditer(clause):
        yield Call("fetch_url", {"url": match[0]})


def _documents(clause: str, tools: Tools) -> Iterator[Call]:
    match = _IN_DOCUMENTS.search(clause) if "search_documents" in tools else None
    if match:
        yield Call("search_documents", {"query": match["query"].strip(" .?!\"'")})


def _search(clause: str, tools: Tools) -> Iterator[Call]:
    match = _SEARCH.search(clause)
    if match:
        inside = "search_documents" in tools and (_DOCUMENTS.search(clause) or "web_search" not in tools)
        yield Call("search_documents" if inside else "web_search", {"query": match["query"].strip(" .?!\"'")})


def _notify(clause: str, tools: Tools) -> Iterator[Call]:
    if not _NOTIFY.search(clause):
        return
    saying = _SAYING.search(clause)
    lowered = clause.lower()
    channel = next((word for word in ("slack", "webhook", "mail") if word in lowered), None)
    arguments = {"text": (saying["text"] or saying["rest"]) if saying else ""}
    required = "notify" in tools and "channel" in tools["notify"].parameters_json_schema.get("required", [])
    if channel or required:
        arguments["channel"] = "email" if channel in ("mail", None) else channel
    yield Call("notify", arguments)


def _proposal(clause: str, tools: Tools) -> Iterator[Call]:
    match = _CHANGE.search(clause) if "propose_state" in tools else None
    if match:
        yield Call("propose_state", {"patch": {match["name"]: _value(match["value"].strip(" .!\"'"))}})


def _value(text: str) -> object:
    return float(text) if "." in text and _NUMBER.fullmatch(text) else int(text) if _NUMBER.fullmatch(text) else text


def _other(clause: str, tools: Tools) -> Iterator[Call]:
    match = _ASK_OTHER.search(clause)
    if match is None:
        return
    agent, rest = match["agent"].lower(), match["rest"]
    if agent in _PEOPLE:
        yield Call("ask_person", {"question": rest})
    elif agent == "chatbot":
        yield Call("chatbot", {"query": rest})
    elif "delegate" in tools:
        yield Call("delegate", {"agent": match["agent"], "prompt": rest})


def _fitting(clause: str, tools: Tools) -> Iterator[Call]:
    """A tool whose name the clause speaks of: `reverse hello` for `reverse_string`."""
    words = list(re.finditer(r"\w+", clause))
    for name, tool in tools.items():
        wanted = [token for token in re.split(r"[_\W]+", name.lower()) if token not in _WEAK]
        hits = [word for word in words if any(_alike(word[0].lower(), token) for token in wanted)]
        said = {token for token in wanted for word in hits if _alike(word[0].lower(), token)}
        if wanted and said == set(wanted) and name not in MEMORY_TOOLS:
            yield Call(name, fill_arguments(tool.parameters_json_schema, clause[hits[-1].end() :]))
            return


# The first rule that finds something decides a clause.
_RULES: tuple[Callable[[str, Tools], Iterator[Call]], ...] = (
    remembered,
    _code,
    _named,
    _fetch,
    _time,
    _documents,
    _search,
    _proposal,
    _other,
    _arithmetic,
    _fitting,
)


def fill_arguments(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Arguments for a tool of any shape, from the words that are left."""
    quoted = [next(group for group in match.groups() if group) for match in _QUOTED.finditer(text)]
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    needed = [name for name in properties if name in schema.get("required", [])] or list(properties)[:1]
    rest = _LEAD.sub("", text).strip(" .?!\"'")
    return {name: _argument(properties[name], quoted, numbers, rest) for name in needed}


def _argument(schema: dict[str, Any], quoted: list[str], numbers: list[str], rest: str) -> object:
    choices = schema.get("enum")
    if choices:
        return next((choice for choice in choices if str(choice).lower() in rest.lower()), choices[0])
    match schema.get("type"):
        case "integer":
            return int(float(numbers.pop(0))) if numbers else 1
        case "number":
            return float(numbers.pop(0)) if numbers else 1.0
        case "boolean":
            return True
        case "array":
            return _items(schema.get("items", {}), quoted, numbers, rest)
        case "object":
            return {}
        case _:
            return quoted.pop(0) if quoted else rest


def _items(schema: dict[str, Any], quoted: list[str], numbers: list[str], rest: str) -> list[object]:
    if schema.get("type") in ("integer", "number"):
        return [float(number) if "." in number else int(number) for number in numbers]
    return list(quoted) or [item.strip() for item in rest.split(",") if item.strip()]


def _alike(word: str, token: str) -> bool:
    return word == token or (len(token) >= 4 and len(word) >= 4 and word[:5] == token[:5])


def _balanced(expression: str) -> str:
    """The expression without what trails it, and with its brackets in pairs."""
    expression = expression.strip().rstrip("+-*/%(., ").strip()
    while expression.count("(") < expression.count(")") and expression.endswith(")"):
        expression = expression[:-1].rstrip()
    return expression + ")" * max(0, expression.count("(") - expression.count(")"))


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
