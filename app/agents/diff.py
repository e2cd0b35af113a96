"""What tells two specs of an agent apart, field by field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any, cast

from app.agents.spec import AgentSpec
from app.db import dump_json

# Their members are compared one by one; a schema or a team is compared as a whole.
BY_MEMBER = frozenset({"model_settings", "limits", "approval"})
CONTEXT_LINES = 2


@dataclass(frozen=True)
class Change:
    """A field that differs.

    Attributes:
        field: Its name, such as `instructions` or `limits.requests`.
        before: Its value in the first spec; None where it has none.
        after: Its value in the second.
        lines: The difference for people: `-` taken away, `+` added, a blank before what stayed.
    """

    field: str
    before: Any
    after: Any

    @property
    def lines(self) -> list[str]:
        """The difference, line by line."""
        before, after = _lines(self.before), _lines(self.after)
        whole = list(unified_diff(before, after, n=CONTEXT_LINES, lineterm=""))
        # Without the two lines that name the files, and the places of what comes first.
        return [line for line in whole[2:] if not line.startswith("@@")]


def changes(before: AgentSpec | None, after: AgentSpec) -> list[Change]:
    """What changes from one spec to another, in the order of the fields.

    Args:
        before: The first; None when there is none and everything is new.
        after: The second.
    """
    old = dict(_fields(before)) if before else {}
    new = dict(_fields(after)) if before else {**dict(_fields(after, exclude_defaults=True)), "name": after.name}
    names = [*new, *(name for name in old if name not in new)]
    return [Change(name, old.get(name), new.get(name)) for name in names if not _same(old.get(name), new.get(name))]


def _fields(spec: AgentSpec, *, exclude_defaults: bool = False) -> Iterator[tuple[str, Any]]:
    for name, value in spec.model_dump(mode="json", exclude_defaults=exclude_defaults).items():
        if name in BY_MEMBER:
            members = cast("Mapping[str, Any]", value)
            yield from ((f"{name}.{member}", each) for member, each in members.items())
        else:
            yield name, value


def _same(before: Any, after: Any) -> bool:
    """Whether two values are stored alike; True is not 1."""
    return dump_json(before) == dump_json(after)


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return value.splitlines() or [""]
    if isinstance(value, list):
        return [each if isinstance(each, str) else dump_json(each) for each in cast("list[Any]", value)]
    return [dump_json(value)]
