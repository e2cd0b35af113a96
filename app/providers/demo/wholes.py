"""Wishes that take up a whole prompt: a chart of the numbers in it, a question in SQL, a text to summarise."""

import re
from collections.abc import Callable, Collection
from typing import Any

from app.providers.demo.turn import Call

_CHART = re.compile(
    r"\b(?:draw|make|create|plot|show)\b[^.:]{0,80}\b(?:chart|graph|plot)\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_KIND = re.compile(r"\b(line|bar|scatter|pie)\b", re.IGNORECASE)
_PAIR = re.compile(r"(?P<label>[^\W\d_][\w-]{0,40})\s*[:=]?\s+(?P<number>-?\d{1,12}(?:\.\d{1,6})?)\b")
_TITLE = re.compile(r"\b(?:called|titled)\s+[\"“']?(?P<title>[^\"”'.:,]{1,80})", re.IGNORECASE)
_SQL = re.compile(r"(?P<query>\b(?:select|with|values|explain)\b[^`]{3,})", re.IGNORECASE | re.DOTALL)
_FROM = re.compile(r"\bselect\b.*\bfrom\b|\bselect\s+[\d'(]", re.IGNORECASE | re.DOTALL)
_TABLES = re.compile(r"\b(?:which|what|list|show|describe)\b.{0,40}\b(?:tables|database)\b", re.IGNORECASE)
_SUMMARY = re.compile(r"\bsummari[sz]e\b[^:]{0,60}:\s*(?P<text>\S.*)", re.IGNORECASE | re.DOTALL)
_LENGTH = re.compile(r"\b(?:in|to)\s+(?:at most\s+)?(\d{2,5})\s+characters", re.IGNORECASE)


def whole(text: str, tools: Collection[str]) -> Call | None:
    """The one call that a prompt as a whole asks for, if it does."""
    found = (rule(text) for rule in _RULES)
    return next((call for call in found if call and call.tool in tools), None)


def _chart(text: str) -> Call | None:
    match = _CHART.search(text)
    pairs: dict[str, Any] = {}
    for pair in _PAIR.finditer(match["rest"]) if match else ():
        pairs[pair["label"]] = float(pair["number"]) if "." in pair["number"] else int(pair["number"])
    if not pairs:
        return None
    kind, title = _KIND.search(text), _TITLE.search(text)
    arguments = {
        "chart_type": kind[1].lower() if kind else "bar",
        "data": pairs,
        "title": title["title"] if title else "",
    }
    return Call("create_chart", arguments)


def _query(text: str) -> Call | None:
    match = _SQL.search(text) if _FROM.search(text) else None
    return Call("query_database", {"query": match["query"].strip(" \n\"'")}) if match else None


def _tables(text: str) -> Call | None:
    return Call("describe_database", {}) if _TABLES.search(text) else None


def _summary(text: str) -> Call | None:
    match = _SUMMARY.search(text)
    if match is None:
        return None
    length = _LENGTH.search(text[: match.start("text")])
    return Call("summarizer", {"text": match["text"].strip(), "max_length": max(20, int(length[1]) if length else 300)})


_RULES: tuple[Callable[[str], Call | None], ...] = (_summary, _chart, _query, _tables)
