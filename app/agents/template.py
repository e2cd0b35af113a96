"""Instructions are Jinja templates: rendered for each run, in a sandbox that also keeps them small."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import ChainableUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.errors import InvalidRequest, RunFailed

MAX_RENDERED = 400_000
MAX_NUMBER = 10_000
# What a template says of other templates: there are none.
OF_OTHERS = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
# Filters that make long text out of short text.
STRETCHING = ("center", "format", "indent", "wordwrap")


class Instructions(ImmutableSandboxedEnvironment):
    """Jinja without attributes of Python's own, without loops over made-up ranges, without stretched strings."""

    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        """Take out what instructions don't need."""
        # Nothing is escaped: this is text for a model, not HTML.
        super().__init__(autoescape=False, undefined=ChainableUndefined)
        self.globals.clear()
        for name in STRETCHING:
            del self.filters[name]

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Refuse, where Jinja would give an undefined value and a chain of them nothing."""
        raise SecurityError(f"{attribute!r} of {type(obj).__name__} is not for templates")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply numbers only, and small ones."""
        if not all(isinstance(value, int | float) and abs(value) <= MAX_NUMBER for value in (left, right)):
            raise SecurityError(f"{operator} is for numbers up to {MAX_NUMBER}")
        return super().call_binop(context, operator, left, right)

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call methods such as `upper`, not with numbers large enough to stretch a string."""
        if any(isinstance(value, int) and value > MAX_NUMBER for value in (*args, *kwargs.values())):
            raise SecurityError(f"numbers up to {MAX_NUMBER} can be passed")
        return super().call(__context, __obj, *args, **kwargs)


ENVIRONMENT = Instructions()


def check_instructions(text: str) -> None:
    """Refuse a template that can't be rendered.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    try:
        _refuse_other_templates(text)
        _render(ENVIRONMENT.from_string(text), {})
    except TemplateSyntaxError as error:
        raise InvalidRequest(f"line {error.lineno}: {error.message}", field="instructions") from error
    except SecurityError as error:
        raise InvalidRequest(f"the template is refused: {error}", field="instructions") from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        return  # It stumbles over the values that are missing here; a run has them.


def check_names(text: str, names: Mapping[str, Collection[str] | None]) -> None:
    """Refuse a template that can't be rendered, or that names what will not be there.

    Args:
        text: The template.
        names: What it may name, each with its members; None where any may be there.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    check_instructions(text)
    tree = ENVIRONMENT.parse(text)
    there = [f"{name}.{member}" for name, members in names.items() for member in members or ()]
    there = sorted([*(name for name, members in names.items() if not members), *there])
    for name in sorted(meta.find_undeclared_variables(tree) - names.keys()):
        line = next(node.lineno for node in tree.find_all(nodes.Name) if node.name == name)
        raise InvalidRequest(f"line {line}: there is no {name!r}; there are {', '.join(there)}")
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        whole, member = _member(node)
        if whole in names and names[whole] is not None and member not in (*(names[whole] or ()), None):
            raise InvalidRequest(f"line {node.lineno}: there is no '{whole}.{member}'; there are {', '.join(there)}")


def _member(node: nodes.Getattr | nodes.Getitem) -> tuple[str, str | None]:
    """Which member of which name is meant, as far as it is said."""
    whole = node.node.name if isinstance(node.node, nodes.Name) else ""
    if isinstance(node, nodes.Getattr):
        return whole, node.attr
    return whole, str(node.arg.value) if isinstance(node.arg, nodes.Const) else None


def _refuse_other_templates(text: str) -> None:
    named = next(ENVIRONMENT.parse(text).find_all(OF_OTHERS), None)
    if named is not None:
        raise TemplateSyntaxError("instructions can't take in other templates", named.lineno)


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
        return _render(_compiled(instructions), context)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise RunFailed(f"the agent's instructions can't be rendered: {error}") from error


@lru_cache(maxsize=512)
def _compiled(text: str) -> Template:
    """Compiling costs more than rendering, and the same text is rendered for run after run."""
    return ENVIRONMENT.from_string(text)


def _render(template: Template, context: Mapping[str, Any]) -> str:
    parts: list[str] = []
    length = 0
    for part in template.generate(dict(context)):
        length += len(part)
        if length > MAX_RENDERED:
            raise SecurityError(f"the text becomes longer than {MAX_RENDERED} characters")
        parts.append(part)
    return "".join(parts)
