"""YAML from strangers, as plain data: read by libyaml where it is there, and never nested so deeply that it would fall."""

from typing import Any, cast

import yaml

MAX_DEPTH = 100  # libyaml's reader recurses in C: a hundred thousand brackets would end the process.
# The pure one takes ten times as long, and says the same.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def check_yaml(text: str | bytes, *, aliases: bool) -> None:
    """Refuse what is not for a reader, before anything is built of it.

    Args:
        text: YAML.
        aliases: Whether one part may stand for another; a few of them can stand for gigabytes.

    Raises:
        YAMLError: saying where.
    """
    depth = 0
    for event in cast("Any", yaml).parse(text, Loader=Loader):
        depth += isinstance(event, OPENING) - isinstance(event, CLOSING)
        if depth > MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH} levels", event)
        if not aliases and isinstance(event, yaml.AliasEvent):
            raise _refused("aliases are not read", event)


def _refused(said: str, event: Any) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(None, None, said, event.start_mark)


def check_written(value: Any, most: int) -> None:
    """Refuse a value that has too many parts when each alias in it is written out.

    Raises:
        YAMLError: it has more than `most`, or is part of itself.
    """
    waiting, count = [value], 0
    while waiting:
        part = waiting.pop()
        count += 1
        if isinstance(part, dict):
            waiting += cast("dict[Any, Any]", part).values()
        elif isinstance(part, list):
            waiting += cast("list[Any]", part)
        if count > most:
            raise yaml.YAMLError(f"more than {most} values, aliases written out")
