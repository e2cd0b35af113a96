"""Agents as YAML: block style, long text as it is read, and nothing in it but plain data."""

from typing import Any, cast

import yaml

from app.agents.spec import AgentSpec
from app.errors import InvalidRequest, MalformedBody
from app.tools.plain_yaml import Loader, check_yaml

MAX_CHARACTERS = 500_000  # What the longest instructions and schemas come to.


class Writer(yaml.SafeDumper):
    """Writes text of several lines as a literal block."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say everything where it stands."""
        del data
        return True


def _text(_: Any, text: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Writer.add_representer(str, _text)


class Reader(Loader):
    """Reads plain data."""


# A date is text here: specs are JSON.
Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def dump_yaml(spec: AgentSpec) -> str:
    """The spec as YAML that `read_yaml` takes; what stands at its default is left out."""
    values = {"name": spec.name, **spec.model_dump(mode="json", exclude_defaults=True)}
    return yaml.dump(values, Dumper=Writer, sort_keys=False, allow_unicode=True, width=100)


def read_yaml(text: str) -> dict[str, Any]:
    """The values of an agent written as YAML; slow for long ones, so not on the event loop.

    Raises:
        MalformedBody: when it is not YAML.
        InvalidRequest: when it is too long, no mapping, or there are several.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidRequest(f"an agent as YAML may have {MAX_CHARACTERS} characters", field="body")
    found = read_documents(text)
    if len(found) != 1:
        raise InvalidRequest("one agent is asked for: a mapping that begins with `name:`", field="body")
    return found[0]


def read_documents(text: str) -> list[dict[str, Any]]:
    """The values of agents written as YAML, parted by `---`; empty parts are left out.

    Raises:
        MalformedBody: when it is not YAML.
        InvalidRequest: when one is no mapping.
    """
    try:
        check_yaml(text, aliases=False)
        found = list(yaml.load_all(text, Loader=Reader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise MalformedBody(f"this is not YAML: {' '.join(str(error).split())[:300]}") from error
    given = [values for values in found if values is not None]
    if not all(isinstance(values, dict) for values in given):
        raise InvalidRequest("an agent is a mapping that begins with `name:`", field="body")
    return cast("list[dict[str, Any]]", given)
