"""What a clause asks to be remembered, or to be told from memory."""

import re
from collections.abc import Iterator, Mapping

from pydantic_ai.tools import ToolDefinition

from app.providers.demo.turn import Call

# "I remember ..." and "do you remember ...?" ask for nothing to be kept.
REMEMBER = re.compile(
    r"(?<!\bI )(?<!\bdo you )(?<!\bdid you )\b(?:remember|memori[sz]e|keep in mind)(?P<whose>\s+for (?:this task|yourself))?"
    r"(?:,?\s+that\s+|\s*:\s*|\s+(?=(?:I|my|we|our)\b))(?P<text>[^\n]+?)(?=[.!?](?:\s|$)|\n|$)",
    re.IGNORECASE,
)
_RECALL = re.compile(
    r"\b(?:what (?:do|did|can) you (?:still )?(?:remember|recall)|do you (?:still )?remember|recall|"
    r"what have you remembered)\b(?:\s+(?:about|of|that))?\s*(?P<query>[^?.!\n]*)",
    re.IGNORECASE,
)
_ALL = re.compile(r"(?:me|us|this task|yourself|everything|anything|all)?\W*(?:so far)?", re.IGNORECASE)
_OWNERS = {"task": "task", "yourself": "agent"}

# Their names are everyday words: only the rules here call them.
TOOLS = frozenset({"remember", "recall", "forget"})


def remembered(clause: str, tools: Mapping[str, ToolDefinition]) -> Iterator[Call]:
    """A wish to remember, or to be told what was."""
    del tools
    if asked := _RECALL.search(clause):
        query = asked["query"].strip(" \"'")
        yield Call("recall", {} if _ALL.fullmatch(query) else {"query": query})
    elif told := REMEMBER.search(clause):
        about = next((owner for word, owner in _OWNERS.items() if word in (told["whose"] or "").lower()), "person")
        yield Call("remember", {"text": told["text"].strip(" \"'"), "about": about})
