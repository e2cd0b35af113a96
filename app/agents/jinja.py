"""Jinja as instructions use it: plain values, few words, and a bound on the work of one rendering.

Python's hands can't be tied from outside while it renders, so every operand of every operation passes `weighed`, every
round of a loop costs what stands in it, and words that can grow text in other ways are not there.
"""

from collections.abc import Callable, Collection, ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from itertools import islice
from typing import Any, cast

from jinja2 import ChainableUndefined, TemplateSyntaxError, Undefined, nodes, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_NUMBER = 10_000
MAX_EXPONENT = 100
INFINITE = float("inf")
LARGEST = {"*": (MAX_NUMBER, MAX_NUMBER), "**": (MAX_NUMBER, MAX_EXPONENT), "%": (INFINITE, INFINITE)}
MAX_TOKENS = 10_000  # Of code: reading so much takes about half a second.
MAX_EFFORT = 500_000  # Entries looked at: some tenths of a second at most.
CHARACTERS = 16  # Characters that cost as much as one entry.
STATEMENTS = (nodes.Output, nodes.If, nodes.For, nodes.Assign, nodes.With)
WORDS: dict[type[nodes.Stmt], str] = {
    nodes.AssignBlock: "set without =",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.FromImport: "import",
}
FILTERS = frozenset(
    [
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "first",
        "float",
        "forceescape",
        "groupby",
        "int",
        "items",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "random",
        "reject",
        "rejectattr",
        "reverse",
        "safe",
        "select",
        "selectattr",
        "sort",
        "string",
        "title",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
    ]
)
METHODS = frozenset(
    [
        "capitalize",
        "count",
        "endswith",
        "find",
        "get",
        "index",
        "isalnum",
        "isalpha",
        "isdigit",
        "islower",
        "isspace",
        "isupper",
        "items",
        "join",
        "keys",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "values",
        "ljust",
        "rjust",
        "zfill",
        "center",
    ]
)

_left: ContextVar[list[int]] = ContextVar("left of the effort")


def begin() -> None:
    """Give the rendering that follows all of its effort."""
    _left.set([MAX_EFFORT])


def spend(effort: int) -> None:
    """Count some work.

    Raises:
        SecurityError: there was too much of it.
    """
    left = _left.get()
    left[0] -= effort
    if left[0] < 0:
        raise SecurityError("it does too much: its loops or the texts it builds are too large")


def weigh(value: Any) -> None:
    """Count all that a value holds, what stands in it twice twice."""
    waiting, effort, left = [value], 0, _left.get()[0]
    while waiting and effort <= left:
        value = waiting.pop()
        effort += 1
        if isinstance(value, str):
            effort += len(value) // CHARACTERS
        elif isinstance(value, Mapping):
            waiting += cast("Mapping[Any, Any]", value).keys()
            waiting += cast("Mapping[Any, Any]", value).values()
        elif isinstance(value, list | tuple | set | frozenset | KeysView | ValuesView | ItemsView):
            waiting += cast("Collection[Any]", value)
    spend(effort)


# --- filters ----------------------------------------------------------------------------------------


@pass_context  # So that nothing is worked out while the template is read.
def _weighed(_context: Any, value: Any) -> Any:
    weigh(value)
    return (
        _one_by_one(cast("Any", value)) if isinstance(value, Iterator) and not isinstance(value, LoopContext) else value
    )


def _one_by_one(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        weigh(value)
        yield value


@pass_context
def _rounds(_context: Any, values: Any, cost: int) -> Iterator[Any]:
    for value in values:
        spend(cost)
        yield value


def _replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    spend(text.count(old) * len(new) // CHARACTERS)
    return text.replace(old, new, count)


def _join(values: Any, by: Any = "", attribute: str | None = None) -> str:
    parts = [each if attribute is None else each[attribute] for each in values]
    spend(len(parts) * (1 + len(str(by)) // CHARACTERS))
    weigh(parts)
    return str(by).join(str(each) for each in parts)


def _sum(values: Any, attribute: str | None = None, start: float = 0) -> float:
    numbers = [each if attribute is None else each[attribute] for each in values]
    if not all(isinstance(each, int | float) for each in (start, *numbers)):
        raise SecurityError("sum is for numbers")
    return sum(numbers, start)


def _round(value: Any, precision: int = 0) -> float:
    return round(float(value), max(-MAX_EXPONENT, min(precision, MAX_EXPONENT)))


def _plain(tojson: Callable[..., Any]) -> Callable[..., Any]:
    """Without an indent of any width."""

    @pass_eval_context
    def plain(asked: Any, value: Any) -> Any:
        return tojson(asked, value)

    return plain


# --- the environment --------------------------------------------------------------------------------


class Instructions(ImmutableSandboxedEnvironment):
    """Jinja without attributes of Python's own, without made-up ranges, macros and blocks, and with its work counted."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self) -> None:
        """Take out what instructions don't need."""
        # Nothing is escaped: this is text for a model, not HTML.
        super().__init__(autoescape=False, undefined=ChainableUndefined)
        self.globals.clear()
        standard = cast("dict[str, Any]", self.filters)
        own = {"join": _join, "replace": _replace, "round": _round, "sum": _sum, "weighed": _weighed, "rounds": _rounds}
        self.filters = cast(
            "Any", {name: standard[name] for name in FILTERS} | own | {"tojson": _plain(standard["tojson"])}
        )

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Refuse, where Jinja would give an undefined value and a chain of them nothing."""
        raise SecurityError(f"{attribute!r} of {type(obj).__name__} is not for templates")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply numbers only, and small ones."""
        for value, most in zip((left, right), LARGEST[operator], strict=True):
            if not isinstance(value, int | float) or abs(value) > most:
                raise SecurityError(f"{operator} is for numbers" + (f" up to {most:g}" if most < INFINITE else ""))
        return super().call_binop(context, operator, left, right)

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call methods such as `upper`, not with numbers large enough to stretch a string."""
        if any(isinstance(value, int) and value > MAX_NUMBER for value in (*args, *kwargs.values())):
            raise SecurityError(f"numbers up to {MAX_NUMBER} can be passed")
        name, owner = getattr(__obj, "__name__", ""), getattr(__obj, "__self__", None)
        if isinstance(owner, str) and name in ("replace", "join"):
            return _replace(owner, *args) if name == "replace" else _join(*args, by=owner)
        if not isinstance(__obj, Undefined) and not isinstance(owner, LoopContext) and name not in METHODS:
            raise SecurityError(f"{name or type(__obj).__name__} can't be called")
        return super().call(__context, __obj, *args, **kwargs)

    def call_filter(
        self, name: str, value: Any, args: Any = None, kwargs: Any = None, *more: Any, **others: Any
    ) -> Any:
        """Weigh what `map` passes for each item."""
        weigh([value, list(args or ()), kwargs or {}])
        return super().call_filter(name, value, args, kwargs, *more, **others)

    def call_test(self, name: str, value: Any, args: Any = None, kwargs: Any = None, *more: Any, **others: Any) -> Any:
        """Weigh what `select` passes for each item."""
        weigh([value, list(args or ()), kwargs or {}])
        return super().call_test(name, value, args, kwargs, *more, **others)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if next(islice(self.lex(source), MAX_TOKENS, None), None):
            raise TemplateSyntaxError(f"there is more code than {MAX_TOKENS} words and signs", 1)
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(nodes.Stmt):
            if not isinstance(node, STATEMENTS) or (isinstance(node, nodes.For) and node.recursive):
                raise TemplateSyntaxError(f"{_word(node)} can't stand in instructions", node.lineno)
        for node in list(tree.find_all(nodes.Node)):
            _measure(node)
        tree.set_environment(self)
        return tree


def _word(node: nodes.Stmt) -> str:
    """What a statement is called, more or less as it is written."""
    return "a recursive loop" if isinstance(node, nodes.For) else WORDS.get(type(node), type(node).__name__.lower())


def _measure(node: nodes.Node) -> None:
    """Let what an operation works on be weighed first, and each round of a loop cost what stands in it."""
    if isinstance(node, nodes.For):
        cost = sum(1 for _ in node.find_all(nodes.Node))
        node.iter = _passed(_passed(node.iter, "weighed"), "rounds", nodes.Const(cost))
    elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        node.node.node = _passed(node.node.node, "weighed")
    for name in _operands(node):
        value: Any = getattr(node, name)
        if isinstance(value, list):
            setattr(node, name, [_operand(each) for each in cast("list[nodes.Node]", value)])
        elif value is not None:
            setattr(node, name, _operand(value))


def _operands(node: nodes.Node) -> tuple[str, ...]:
    if isinstance(node, nodes.BinExpr):
        return ("left", "right")
    if isinstance(node, nodes.Output | nodes.Concat):
        return ("nodes",)
    if isinstance(node, nodes.Filter | nodes.Test):
        return ("node", "args", "dyn_args", "dyn_kwargs")
    if isinstance(node, nodes.Call):
        return ("args", "dyn_args", "dyn_kwargs")
    if isinstance(node, nodes.With):
        return ("values",)
    if isinstance(node, nodes.Assign):
        return ("node",)
    if isinstance(node, nodes.Compare | nodes.Operand):
        return ("expr",)
    if isinstance(node, nodes.Keyword):
        return ("value",)
    return ("node",) if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice) else ()


def _operand(node: nodes.Node) -> nodes.Node:
    return node if isinstance(node, nodes.TemplateData) else _passed(node, "weighed")


def _passed(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, list(args), [], None, None, lineno=node.lineno)
