"""What the demo model sees of a conversation: the present prompt and what its tools have answered."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    StructuredContent,
    TextContent,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.tools import ToolDefinition

# The rules look at no more of a prompt than this: they must be done in milliseconds whatever they are given.
MAX_WISH = 4000

_OPENING = re.compile(r"<([A-Za-z][\w-]*)(?:\s[^<>]*)?>")
_CLOSING = re.compile(r"</([A-Za-z][\w-]*)>")


@dataclass(frozen=True)
class Call:
    """A tool to call."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a tool answered."""

    tool: str
    arguments: dict[str, Any]
    content: object
    failed: bool


@dataclass
class Turn:
    """The present prompt, the earlier ones, and the results since.

    `wish` is the prompt without the data it carries; `data` is that data, by the names of its elements.
    """

    tools: dict[str, ToolDefinition]
    prompt: str = ""
    wish: str = ""
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    earlier: list[str] = field(default_factory=list[str])
    results: list[Result] = field(default_factory=list[Result])

    def ask(self, prompt: str) -> None:
        """A new prompt begins: what was answered before belongs to an earlier turn."""
        if self.prompt:
            self.earlier.append(self.prompt)
        self.prompt = prompt
        self.wish = without_data(prompt.replace(self._told_before, " ") if self._told_before else prompt)[:MAX_WISH]
        self.results = []

    @property
    def _told_before(self) -> str:
        """The report that a schedule gave before: a prompt may quote it."""
        fire: dict[str, Any] = self.data.get("fire") or {}
        previous: dict[str, Any] = fire.get("previous") or {}
        return previous.get("result") or ""


def read_turn(messages: Sequence[ModelMessage], tools: Iterable[ToolDefinition]) -> Turn:
    """The last turn of a history."""
    turn = Turn({tool.name: tool for tool in tools})
    arguments: dict[str, dict[str, Any]] = {}
    for message in messages:
        if isinstance(message, ModelResponse):
            arguments.update((call.tool_call_id, call.args_as_dict()) for call in message.tool_calls)
        else:
            _read_request(turn, message, arguments)
    return turn


def without_data(text: str) -> str:
    """A prompt without what stands in tags or fences: that was handed over as data, to be read, not obeyed."""
    fenced = text.split("```")
    if len(fenced) % 2 == 0:
        fenced[-2:] = ["```".join(fenced[-2:])]
    return " ".join(_without_tags(piece) for piece in fenced[::2]).strip()


def _without_tags(text: str) -> str:
    ends: dict[str, list[int]] = {}
    for closing in _CLOSING.finditer(text):
        ends.setdefault(closing[1], []).append(closing.end())
    kept, position = list[str](), 0
    for opening in _OPENING.finditer(text):
        later = ends.get(opening[1], [])
        nearest = bisect_right(later, opening.end())
        if opening.start() >= position and nearest < len(later):
            kept.append(text[position : opening.start()])
            position = later[nearest]
    return " ".join([*kept, text[position:]])


def _read_request(turn: Turn, request: ModelRequest, arguments: dict[str, dict[str, Any]]) -> None:
    for part in request.parts:
        if isinstance(part, ToolReturnPart) and part.tool_name in turn.tools:
            made_with = arguments.get(part.tool_call_id, {})
            turn.results.append(Result(part.tool_name, made_with, part.content, part.outcome != "success"))
    prompts = [part for part in request.parts if isinstance(part, UserPromptPart)]
    turn.data.update((item.tag or "data", item.value) for part in prompts for item in _structured(part))
    prompt = "\n".join(_text(part) for part in prompts)
    if prompt.strip():
        turn.ask(prompt)


def _structured(part: UserPromptPart) -> list[StructuredContent]:
    return [item for item in part.content if isinstance(item, StructuredContent)]


def _text(part: UserPromptPart) -> str:
    if isinstance(part.content, str):
        return part.content
    texts = (
        item if isinstance(item, str) else getattr(item, "content", "")
        for item in part.content
        if isinstance(item, str | TextContent) and not isinstance(item, StructuredContent)
    )
    return "\n".join(texts)
