"""A checked definition of a tool, whatever its kind: the content of a version, the hash that names it, and names."""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import BaseModel

# They stand behind /tools/ in paths; the last is to be a built-in tool.
RESERVED = frozenset({"register", "import", "execute", "delegate"})
NAME_CHARACTERS = 64  # The longest that every provider takes.
TELLING_APART_CHARACTERS = 8


@dataclass(frozen=True)
class Definition:
    """A checked definition, ready to be stored as a version.

    Attributes:
        spec: The version's content as JSON.
        sha256: Names the content: equal content is the same version.
    """

    spec: dict[str, Any]
    sha256: str


def defined(spec: BaseModel) -> Definition:
    """A checked spec as a version's content."""
    content = spec.model_dump(mode="json")
    return Definition(content, content_sha256(content))


def content_sha256(content: dict[str, Any]) -> str:
    """The hash that names a version's content."""
    return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- names of tools that others have named ----------------------------------------------------------


def cleaned(text: str) -> str:
    """A name of letters, digits, underscores and hyphens."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", text)


def name_within(source: str, own: str) -> str:
    """What a tool is called here that its source calls `own`."""
    whole = cleaned(f"{source}_{own}")
    # Two long names may begin alike.
    return whole if len(whole) <= NAME_CHARACTERS else told_apart(whole, sha256(whole.encode()).hexdigest())


def told_apart(name: str, hexadecimal: str) -> str:
    """A name that ends with the begin of a hash, so that it differs from its like."""
    room = NAME_CHARACTERS - TELLING_APART_CHARACTERS - 1
    return f"{name[:room]}_{hexadecimal[:TELLING_APART_CHARACTERS]}"
