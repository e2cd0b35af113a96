"""Instructions are Jinja templates: rendered for each run, in a sandbox that keeps them small and their work bounded."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError

from app.agents.jinja import Instructions, begin
from app.errors import InvalidRequest, RunFailed

MAX_RENDERED = 400_000
# What instructions may name.
NAMES = {"user": None, "title": None, "context": None, "today": None}
KEPT = 64  # Templates held ready: reading a long one takes a second.
TOO_DEEP = "it is nested too deeply"
# What Python says of a template that is nested too deeply for its stack, its parser or its compiler.
DEPTH = (RecursionError, MemoryError, SyntaxError)

ENVIRONMENT = Instructions()
template_of = lru_cache(KEPT)(ENVIRONMENT.from_string)


def check_instructions(text: str) -> None:
    """Refuse instructions that can't be rendered, or that name what no run has.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    check_names(text, NAMES, "instructions")


def check_template(text: str, field: str) -> None:
    """Refuse a template that can't be rendered.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    try:
        _render(template_of(text), {})
    except TemplateSyntaxError as error:
        raise InvalidRequest(f"line {error.lineno}: {error.message}", field=field) from error
    except SecurityError as error:
        raise InvalidRequest(f"the template is refused: {error}", field=field) from error
    except DEPTH as error:
        raise InvalidRequest(f"the template is refused: {TOO_DEEP}", field=field) from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return  # It stumbles over the values that are missing here; a run has them.


def check_names(text: str, names: Mapping[str, Collection[str] | None], field: str) -> None:
    """Refuse a template that can't be rendered, or that names what will not be there.

    Args:
        text: The template.
        names: What it may name, each with its members; None where any may be there.
        field: Where it stands.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    check_template(text, field)
    tree = ENVIRONMENT.parse(text)
    there = [f"{name}.{member}" for name, members in names.items() for member in members or ()]
    there = sorted([*(name for name, members in names.items() if not members), *there])
    for name in sorted(meta.find_undeclared_variables(tree) - names.keys()):
        line = next(node.lineno for node in tree.find_all(nodes.Name) if node.name == name)
        raise InvalidRequest(f"line {line}: there is no {name!r}; there are {', '.join(there)}", field=field)
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        whole, member = _member(node)
        if whole in names and names[whole] is not None and member not in (*(names[whole] or ()), None):
            said = f"line {node.lineno}: there is no '{whole}.{member}'; there are {', '.join(there)}"
            raise InvalidRequest(said, field=field)


def _member(node: nodes.Getattr | nodes.Getitem) -> tuple[str, str | None]:
    """Which member of which name is meant, as far as it is said."""
    whole = node.node.name if isinstance(node.node, nodes.Name) else ""
    if isinstance(node, nodes.Getattr):
        return whole, node.attr
    return whole, str(node.arg.value) if isinstance(node.arg, nodes.Const) else None


def render_instructions(instructions: str, context: Mapping[str, Any]) -> str:
    """The instructions of one run.

    Args:
        instructions: The template.
        context: The values it may name; one that is missing is empty.

    Raises:
        RunFailed: when the template stumbles over these values.
    """
    if "{" not in instructions:
        return instructions
    try:
        return _render(template_of(instructions), context)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise RunFailed(f"the agent's instructions can't be rendered: {error}") from error
    except DEPTH as error:
        raise RunFailed(f"the agent's instructions can't be rendered: {TOO_DEEP}") from error


def _render(template: Template, context: Mapping[str, Any]) -> str:
    parts: list[str] = []
    length = 0
    begin()
    for part in template.generate(dict(context)):
        length += len(part)
        if length > MAX_RENDERED:
            raise SecurityError(f"the text becomes longer than {MAX_RENDERED} characters")
        parts.append(part)
    return "".join(parts)
