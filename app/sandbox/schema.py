"""Annotations as JSON schemas, and the dataclasses among them: read, never run."""

import ast
import math
from dataclasses import dataclass
from typing import Any

NAMES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "None": {"type": "null"},
    "list": {"type": "array"},
    "List": {"type": "array"},
    "dict": {"type": "object"},
    "Dict": {"type": "object"},
    "Any": {},
    "object": {},
}
SEQUENCES = frozenset({"list", "List", "Sequence", "Iterable"})
MAPPINGS = frozenset({"dict", "Dict", "Mapping"})
MAX_NESTING = 12  # dataclasses in lists in dataclasses; also what ends a recursive one
MAX_PARTS = 300  # of one annotation, all dataclasses written out


class Undescribable(Exception):
    """An annotation that has no JSON schema."""


@dataclass(frozen=True)
class Part:
    """One named part of a signature or a dataclass."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None


class Annotations:
    """What the annotations of one source mean."""

    def __init__(self, tree: ast.Module) -> None:
        """Find the source's dataclasses."""
        self._dataclasses = {
            node.name: _fields(node) for node in tree.body if isinstance(node, ast.ClassDef) and _is_dataclass(node)
        }
        self._parts = 0
        self._more = False  # Whether objects may have more than their fields, as what a function answers may.

    def schema(self, annotation: ast.expr) -> dict[str, Any]:
        """The JSON schema of what a function answers.

        Raises:
            Undescribable: it has none.
        """
        self._parts, self._more = 0, True
        return self._schema(annotation, 0)

    def properties(self, parts: list[Part]) -> dict[str, Any]:
        """The schema of arguments with these names.

        Raises:
            Undescribable: one of them has none.
        """
        self._parts, self._more = 0, False
        return self._object(parts, 0)

    def made(self, annotation: ast.expr | None, value: str, depth: int = 0) -> str | None:
        """The expression that makes the dataclasses out of a JSON value; None where there are none.

        Args:
            annotation: What the value is to become.
            value: The expression that is the JSON value.
            depth: How many comprehensions stand around it.
        """
        item = f"item{depth}"
        match _plain(annotation):
            case ast.Name(id=name) if name in self._dataclasses:
                return f"{name}(**{self.made_parts(self._dataclasses[name], value, depth)})"
            case ast.BinOp(left=left, right=right):
                return self._made_option([left, right], value, depth)
            case ast.Subscript(value=generic, slice=inner):
                return self._made_generic(name_of(generic), items_of(inner), value, item, depth + 1)
            case _:
                return None

    def made_parts(self, parts: list[Part], value: str, depth: int = 0) -> str:
        """The expression of a dict whose parts are made; those left out stay out."""
        made = ""
        for part in parts:
            name = repr(part.name)
            if text := self.made(part.annotation, f"{value}[{name}]", depth):
                made += f", **({{{name}: {text}}} if {name} in {value} else {{}})"
        return f"{{**{value}{made}}}" if made else value

    def _made_option(self, options: list[ast.expr], value: str, depth: int) -> str | None:
        made = [text for option in options if (text := self.made(option, value, depth))]
        return f"(None if {value} is None else {made[0]})" if made else None

    def _made_generic(self, name: str, items: list[ast.expr], value: str, item: str, depth: int) -> str | None:
        if name in ("Optional", "Union"):
            return self._made_option(items, value, depth)
        if name == "Annotated":
            return self.made(items[0], value, depth)
        text = None if name == "Literal" else self.made(items[-1], item, depth)
        if text is None:
            return None
        if name in MAPPINGS:
            return f"{{key: {text} for key, {item} in {value}.items()}}"
        return f"[{text} for {item} in {value}]"

    # --- schemas ----------------------------------------------------------------------------------

    def _schema(self, node: ast.expr, depth: int) -> dict[str, Any]:
        self._count(node, depth)
        match _plain(node):
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._union([left, right], depth)
            case ast.Subscript(value=value, slice=inner) as whole:
                return self._generic(name_of(value), items_of(inner), whole, depth + 1)
            case plain if plain is not None and name_of(plain) in NAMES:
                return dict(NAMES[name_of(plain)])
            case ast.Name(id=name) if name in self._dataclasses:
                return self._object(self._dataclasses[name], depth + 1)
            case _:
                raise Undescribable(ast.unparse(node))

    def _count(self, node: ast.expr, depth: int) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Undescribable(f"a type of more than {MAX_PARTS} parts")
        if depth > MAX_NESTING:
            raise Undescribable(f"a type nested more than {MAX_NESTING} levels deep (or in itself)")

    def _object(self, parts: list[Part], depth: int) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {
                part.name: (self._schema(part.annotation, depth) if part.annotation else {}) | _default(part.default)
                for part in parts
            },
            "required": [part.name for part in parts if part.default is None],
            "additionalProperties": self._more,
        }

    def _generic(self, name: str, items: list[ast.expr], whole: ast.expr, depth: int) -> dict[str, Any]:
        match name, items:
            case "Optional", [item]:
                return self._union([item, ast.Constant(value=None)], depth)
            case "Union", _:
                return self._union(items, depth)
            case "Literal", _:
                return {"enum": [_literal(item) for item in items]}
            case "Annotated", [item, *notes]:
                return self._schema(item, depth) | _description(notes)
            case _, [item] if name in SEQUENCES:
                return {"type": "array", "items": self._schema(item, depth)}
            case _, [ast.Name(id="str"), item] if name in MAPPINGS:
                return {"type": "object", "additionalProperties": self._schema(item, depth)}
            case _:
                raise Undescribable(ast.unparse(whole))

    def _union(self, items: list[ast.expr], depth: int) -> dict[str, Any]:
        options: list[dict[str, Any]] = []
        for item in items:
            schema = self._schema(item, depth)
            options.extend(schema["anyOf"] if set(schema) == {"anyOf"} else [schema])
        if sum("properties" in option for option in options) > 1:
            raise Undescribable("a union of several dataclasses")
        return {"anyOf": options}


def name_of(node: ast.AST) -> str:
    """The name a node is, in a module or not; empty when it is none."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=None):
            return "None"
        case _:
            return ""


def items_of(node: ast.expr) -> list[ast.expr]:
    """What stands between the brackets of a generic type."""
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _is_dataclass(node: ast.ClassDef) -> bool:
    called = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
    return any(name_of(item) == "dataclass" for item in called)


def _fields(node: ast.ClassDef) -> list[Part]:
    return [
        Part(each.target.id, each.annotation, each.value)
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def _plain(node: ast.expr | None) -> ast.expr | None:
    """The annotation without the quotes round it."""
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        return node
    try:
        return ast.parse(node.value, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise Undescribable(repr(node.value)) from error


def _default(default: ast.expr | None) -> dict[str, Any]:
    """The default for the schema, when it is a plain literal that JSON can hold."""
    if isinstance(default, ast.Constant) and _is_json(default.value):
        return {"default": default.value}
    return {}


def _literal(node: ast.expr) -> str | int | bool | None:
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise Undescribable(ast.unparse(node)) from error
    if isinstance(value, float) or not _is_json(value):
        raise Undescribable(ast.unparse(node))
    return value


def _is_json(value: object) -> bool:
    """Whether a literal can be stored as JSON: finite numbers, texts without NUL and halves of characters."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int)


def _description(notes: list[ast.expr]) -> dict[str, Any]:
    texts = [note.value for note in notes if isinstance(note, ast.Constant) and _is_text(note.value)]
    return {"description": texts[0]} if texts else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _is_json(value)
